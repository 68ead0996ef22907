"""Servers as values: they start, answer, complain in one sentence, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from taskscope.testing.engines import (
    HOST,
    EngineError,
    Missing,
    Spec,
    alertmanager,
    chromium,
    free_port,
    free_ports,
    members,
    nginx,
    postgres,
    prometheus,
    redis,
    running,
    start,
)
from taskscope.testing.engines import (
    spec as spec_module,
)
from taskscope.testing.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD = "a-password_of-tests"
ALERTMANAGER_YML = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
SITE = 'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}'
WHO = "SELECT current_user || rolsuper FROM pg_roles WHERE rolname = current_user"


def a_prometheus(folder: Path, config: str = "") -> Spec:
    file = folder / "prometheus.yml"
    file.write_text(config)
    return prometheus.prometheus(folder / "prometheus", port=free_port(), config=file)


def an_alertmanager(folder: Path, config: str = ALERTMANAGER_YML) -> Spec:
    file = folder / "alertmanager.yml"
    file.write_text(config)
    return alertmanager.alertmanager(folder / "alertmanager", port=free_port(), config=file)


def an_nginx(folder: Path, site: str = SITE) -> Spec:
    port = free_port()
    return nginx.nginx(folder / "nginx", ports=(port,), conf=site.format(port=port))


def a_redis(folder: Path, **settings: str) -> Spec:
    return redis.redis(
        folder / "redis", port=free_port(), password=PASSWORD, settings=settings or None
    )


def a_postgres(folder: Path, **settings: str) -> Spec:
    return postgres.postgres(
        folder / "postgres", port=free_port(), password=PASSWORD, settings=settings or None
    )


SERVERS = pytest.mark.parametrize(
    "describe", [a_prometheus, an_alertmanager, an_nginx, a_redis, a_postgres]
)


def described(describe: Callable[[Path], Spec], folder: Path) -> Spec:
    """The server, or a skip that names what is missing: what a fixture of any folder does."""
    try:
        return describe(folder)
    except Missing as missing:
        pytest.skip(str(missing))


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.engine
@SERVERS
def test_a_server_starts_and_leaves_no_process_and_no_port(
    describe: Callable[[Path], Spec], tmp_path: Path
) -> None:
    spec = described(describe, tmp_path)

    with running(spec) as server:
        socket.create_connection((HOST, spec.ports[0]), timeout=5).close()
        assert server.alive

    assert not server.alive
    assert members(server.pid) == []
    assert not spec_module.taken(spec.ports[0])


@pytest.mark.engine
@SERVERS
def test_a_server_that_crashed_starts_again_in_its_folder(
    describe: Callable[[Path], Spec], tmp_path: Path
) -> None:
    spec = described(describe, tmp_path)
    start(spec).kill()
    # Workers of PostgreSQL lead groups of their own, and see the death of their parent a moment later.
    until(lambda: not spec_module.taken(spec.ports[0]), within_s=20)

    with running(spec) as server:
        assert server.alive


@pytest.mark.engine
def test_prometheus_answers_queries_and_reloads(tmp_path: Path) -> None:
    spec = described(a_prometheus, tmp_path)
    with running(spec):
        answer = get(f"http://{HOST}:{spec.ports[0]}/api/v1/query?query=vector(1)")
        reload = urllib.request.Request(f"http://{HOST}:{spec.ports[0]}/-/reload", method="POST")
        with urllib.request.urlopen(reload, timeout=5) as reloaded:
            assert reloaded.status == 200

    assert '"status":"success"' in answer


@pytest.mark.engine
def test_promtool_and_amtool_judge_a_configuration(tmp_path: Path) -> None:
    described(a_prometheus, tmp_path)
    described(an_alertmanager, tmp_path)

    assert prometheus.promtool("check", "config", tmp_path / "prometheus.yml").returncode == 0
    assert alertmanager.amtool("check-config", tmp_path / "alertmanager.yml").returncode == 0
    assert prometheus.promtool("check", "config", tmp_path / "nothing.yml").returncode == 1


@pytest.mark.engine
def test_nginx_takes_large_bodies_in_its_own_folder(tmp_path: Path) -> None:
    back, front = free_ports(2)
    site = f"""
        client_body_buffer_size 1k;
        server {{ listen 127.0.0.1:{back}; location / {{ return 200 "hello"; }} }}
        server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://127.0.0.1:{back}; }} }}
    """
    describe = partial(nginx.nginx, ports=(front, back), conf=site)
    with running(described(describe, tmp_path / "nginx")) as server:
        request = urllib.request.Request(f"http://{HOST}:{front}/", data=b"x" * 500_000)
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.read() == b"hello"

    assert (server.spec.cwd / "temporary" / "client_body").is_dir()


@pytest.mark.engine
def test_nginx_finds_the_files_that_its_configuration_includes(tmp_path: Path) -> None:
    port = free_port()
    conf = tmp_path / "nginx.conf"
    conf.write_text("events { }\nhttp { include site.conf; }\n")
    describe = partial(
        nginx.nginx, ports=(port,), conf=conf, beside={"site.conf": SITE.format(port=port)}
    )
    with running(described(describe, tmp_path / "nginx")):
        assert get(f"http://{HOST}:{port}/") == "hello"


@pytest.mark.engine
def test_redis_answers_nobody_without_its_password(tmp_path: Path) -> None:
    spec = described(a_redis, tmp_path)
    with running(spec), socket.create_connection((HOST, spec.ports[0]), timeout=5) as client:
        client.sendall(b"PING\r\n")
        refused = client.recv(200)
        client.sendall(f"AUTH {PASSWORD}\r\n".encode())
        accepted = client.recv(200)

    assert refused.startswith(b"-NOAUTH")
    assert accepted == b"+OK\r\n"


async def connect(port: int, **login: str) -> str:
    """The name under which one is logged in, or the error's class."""
    try:
        connection = await asyncpg.connect(host=HOST, port=port, ssl=False, **login)
    except asyncpg.PostgresError as error:
        return type(error).__name__
    try:
        return str(
            await connection.fetchval(
                "select current_user || rolsuper from pg_roles where rolname = current_user"
            )
        )
    finally:
        await connection.close()


@pytest.mark.engine
def test_postgres_lets_one_plain_role_in_by_its_password(tmp_path: Path) -> None:
    spec = described(a_postgres, tmp_path)
    as_role = {"user": "taskscope", "database": "taskscope"}
    with running(spec):
        port = spec.ports[0]
        ours = asyncio.run(connect(port, password=PASSWORD, **as_role))
        wrong = asyncio.run(connect(port, password="wrong", **as_role))
        superuser = asyncio.run(
            connect(port, user="postgres", password=PASSWORD, database="postgres")
        )

    assert ours == "taskscopefalse"
    assert wrong == "InvalidPasswordError"
    assert superuser == "InvalidAuthorizationSpecificationError"


@pytest.mark.engine
def test_postgres_takes_a_new_password_at_the_next_start(tmp_path: Path) -> None:
    first = described(a_postgres, tmp_path)
    start(first).stop()
    port = free_port()
    second = postgres.postgres(tmp_path / "postgres", port=port, password="another")
    with running(second):
        user = asyncio.run(
            connect(port, user="taskscope", database="taskscope", password="another")
        )

    assert user == "taskscopefalse"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("describe", "complaint"),
    [
        (partial(a_prometheus, config="scrape: []"), "field scrape not found"),
        (partial(an_alertmanager, config="route: {}\n"), "receiver"),
        (partial(an_nginx, site="listen_to 80;"), 'unknown directive "listen_to"'),
        (partial(a_redis, maxmemory="some"), "argument must be a memory value"),
        (
            partial(a_postgres, max_connections="many"),
            'invalid value for parameter "max_connections"',
        ),
    ],
)
def test_a_broken_configuration_is_told_in_the_servers_own_words(
    describe: Callable[[Path], Spec], complaint: str, tmp_path: Path
) -> None:
    spec = described(describe, tmp_path)

    with pytest.raises(EngineError) as refused:
        start(spec)

    sentence = str(refused.value)
    assert re.match(rf"{spec.name}: ended with exit code \d before it was ready: ", sentence)
    assert complaint in sentence
    assert "\n" not in sentence
    assert sentence.endswith(str(spec.log))
    assert not spec_module.taken(spec.ports[0])


@pytest.mark.parametrize(
    ("describe", "remedy"),
    [
        (a_prometheus, prometheus.REMEDY),
        (an_alertmanager, alertmanager.REMEDY),
        (an_nginx, nginx.REMEDY),
        (a_redis, redis.REMEDY),
        (a_postgres, postgres.REMEDY),
    ],
)
def test_a_server_that_is_not_installed_is_named_with_the_command_that_installs_it(
    describe: Callable[[Path], Spec],
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(spec_module, "_SBIN", str(tmp_path))
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)

    with pytest.raises(Missing, match=f"is not installed; run: {remedy}$"):
        describe(tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("describe", [a_redis, a_postgres])
def test_no_password_shows_among_the_processes(
    describe: Callable[[Path], Spec], tmp_path: Path
) -> None:
    with running(described(describe, tmp_path)) as server:
        words = Path(f"/proc/{server.pid}/cmdline").read_text()
        environment = Path(f"/proc/{server.pid}/environ").read_text()

    assert PASSWORD not in words + environment


def test_nginx_wraps_a_file_of_conf_d() -> None:
    conf = nginx.main_conf("server { listen 1; }", Path("/run/x"))

    assert conf.startswith("daemon off;\npid /run/x/nginx.pid;\n")
    assert "http {\n    client_body_temp_path /run/x/temporary/client_body;" in conf


def test_nginx_overrides_what_a_whole_conf_says_of_the_process() -> None:
    whole = "user nginx;\npid /run/nginx.pid;\nevents { }\nhttp {\n  access_log /dev/stdout;\n}\n"

    conf = nginx.main_conf(whole, Path("/run/x"))

    assert "user nginx" not in conf
    assert conf.count("pid ") == 1
    assert "access_log off" not in conf


def test_chromium_keeps_its_sandbox_unless_root_forbids_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--no-sandbox" not in chromium.flags()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--no-sandbox" in chromium.flags()
