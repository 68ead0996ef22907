"""Elasticsearch with security on: who may add, who may read, and that nobody else may anything."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elasticsearch import ApiError, Elasticsearch

from taskscope.testing.engines import (
    HOST,
    EngineError,
    Missing,
    distribution,
    free_ports,
    jdk,
    new_password,
    running,
)
from taskscope.testing.engines import elasticsearch as es

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM = "logs-taskapi-default"
TEMPLATE = {"index_patterns": ["logs-taskapi-*"], "priority": 300, "data_stream": {}}
USERS = {
    "admin": es.EsUser(name="admin", password=new_password(), role=es.ADMIN),
    "shipper": es.EsUser(name="shipper", password=new_password(), role=es.SHIPPER),
    "reader": es.EsUser(name="reader", password=new_password(), role=es.READER),
    "wrong": es.EsUser(name="shipper", password="wrong", role=es.SHIPPER),
    "nobody": es.EsUser(name="nobody", password="nothing", role=es.READER),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that knows the first three users and a template for log streams."""
    port, transport_port = free_ports(2)
    users = [USERS[name] for name in ("admin", "shipper", "reader")]
    folder = tmp_path_factory.mktemp("elasticsearch")
    try:
        spec = es.elasticsearch(folder, port=port, transport_port=transport_port, users=users)
    except Missing as missing:
        pytest.skip(str(missing))
    with running(spec):
        yield f"http://{HOST}:{port}"


@pytest.fixture(scope="module")
def stream(url: str) -> str:
    """The log stream with one document, `first`, that the shipper added."""
    with client(url, "admin") as admin:
        admin.indices.put_index_template(name="logs-taskapi", body=TEMPLATE)
    assert add(url, "first") == [201]
    with client(url, "admin") as admin:
        admin.indices.refresh(index=STREAM)
    return url


def client(url: str, user: str) -> Elasticsearch:
    login = USERS[user]
    return Elasticsearch(url, basic_auth=(login.name, login.password))


def add(url: str, name: str, user: str = "shipper") -> list[int]:
    """The status of each item of a bulk request that creates document `name`."""
    lines = [{"create": {"_id": name}}, {"@timestamp": "2026-01-01T00:00:00Z", "message": "up"}]
    with client(url, user) as shipper:
        answer = shipper.bulk(index=STREAM, operations=lines)
    return [item["create"]["status"] for item in answer["items"]]


def refusal(url: str, user: str, method: str, path: str) -> int:
    """The status by which the server refuses."""
    with client(url, user) as asking, pytest.raises(ApiError) as refused:
        asking.perform_request(method, path, headers={"accept": "application/json"})
    return refused.value.status_code


@pytest.mark.engine
def test_the_server_tells_its_version_to_whoever_may_log_in(url: str) -> None:
    java = jdk.find()
    assert java is not None

    with client(url, "reader") as reader:
        assert reader.info()["version"]["number"] == distribution.version_for(java)


@pytest.mark.engine
def test_a_document_is_added_once_however_often_it_is_sent(stream: str) -> None:
    assert add(stream, "again") == [201]
    assert add(stream, "again") == [409]


@pytest.mark.engine
def test_the_reader_finds_what_the_shipper_added(stream: str) -> None:
    with client(stream, "reader") as reader:
        found = reader.search(index=STREAM, query={"ids": {"values": ["first"]}})

    assert [hit["_source"]["message"] for hit in found["hits"]["hits"]] == ["up"]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("user", "method", "path"),
    [
        ("shipper", "GET", f"/{STREAM}/_search"),
        ("shipper", "DELETE", f"/{STREAM}"),
        ("shipper", "PUT", "/other"),
        ("shipper", "GET", "/_cluster/settings"),
        ("reader", "DELETE", f"/{STREAM}"),
        ("reader", "POST", f"/{STREAM}/_refresh"),
        ("reader", "GET", "/_security/user"),
    ],
)
def test_a_user_may_no_more_than_its_work_asks(
    stream: str, user: str, method: str, path: str
) -> None:
    assert refusal(stream, user, method, path) == 403


@pytest.mark.engine
def test_the_reader_adds_nothing(stream: str) -> None:
    with pytest.raises(ApiError, match="403"):
        add(stream, "forbidden", user="reader")


@pytest.mark.engine
@pytest.mark.parametrize("user", ["wrong", "nobody"])
def test_a_wrong_password_opens_nothing(stream: str, user: str) -> None:
    assert refusal(stream, user, "GET", "/") == 401
    assert refusal(stream, user, "GET", f"/{STREAM}/_search") == 401


@pytest.mark.engine
def test_an_api_key_of_the_admin_may_be_narrower_than_the_admin(stream: str) -> None:
    narrow = {"ship": {"indices": [{"names": ["logs-*"], "privileges": ["create_doc"]}]}}
    with client(stream, "admin") as admin:
        key = admin.security.create_api_key(name="ship", role_descriptors=narrow)["encoded"]

    with Elasticsearch(stream, api_key=key) as shipper:
        line = [{"create": {}}, {"@timestamp": "2026-01-01T00:00:00Z"}]
        assert shipper.bulk(index=STREAM, operations=line)["errors"] is False
        with pytest.raises(ApiError, match="403"):
            shipper.search(index=STREAM)


@pytest.mark.engine
def test_a_heap_that_java_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    port, transport_port = free_ports(2)
    try:
        spec = es.elasticsearch(
            tmp_path / "elasticsearch",
            port=port,
            transport_port=transport_port,
            users=[USERS["reader"]],
            heap_mb=-1,
        )
    except Missing as missing:
        pytest.skip(str(missing))

    with (
        pytest.raises(EngineError, match="Invalid initial heap size: -Xms-1m") as refused,
        running(spec),
    ):
        pass

    assert "\n" not in str(refused.value)


@pytest.mark.engine
def test_two_that_fetch_at_once_get_one_home(tmp_path: Path) -> None:
    java = jdk.find()
    if java is None or not es.installed():
        pytest.skip(f"elasticsearch was not fetched yet; run: {es.REMEDY}")
    version = distribution.version_for(java)
    steps: list[str] = []
    # The lock belongs to the open file, so two threads meet at it as two processes do.
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(distribution.prepare, tmp_path, version, java, steps.append)
            for _ in range(2)
        ]

    home = distribution.home_of(tmp_path, version)
    assert [run.result() for run in both] == [home, home]
    assert len(steps) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", home.name]


def test_a_fetch_without_maven_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Missing, match=r"^maven is not installed; run: apt-get install maven$"):
        distribution.prepare(tmp_path, "9.5.3", jdk.Jdk(home=tmp_path, major=21))


def test_a_fetch_that_fails_is_told_in_mavens_own_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(
        "#!/bin/sh\nprintf '\\033[0m[ERROR] Could not transfer artifact\\n[ERROR] more\\n'\nexit 1\n"
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(maven.parent))
    cache = tmp_path / "cache"

    with pytest.raises(
        EngineError, match=r"^mvn: exit code 1: \[ERROR\] Could not transfer artifact; "
    ):
        distribution.prepare(cache, "9.5.3", jdk.Jdk(home=tmp_path, major=21))

    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_server_that_was_not_fetched_is_named_with_the_command_that_fetches_it(
    tmp_path: Path,
) -> None:
    java = jdk.Jdk(home=tmp_path, major=17)

    with pytest.raises(Missing, match=r"^elasticsearch 8\.19\.21 was not fetched yet; run: python"):
        es.elasticsearch(tmp_path, port=1, transport_port=2, users=[], cache=tmp_path, java=java)


def a_jdk(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    for tool in ("java", "javac"):
        (folder / "bin" / tool).touch(mode=0o755)
    return folder


@pytest.mark.parametrize(
    ("version", "server"),
    [("17.0.15", "8.19.21"), ("20", "8.19.21"), ("21.0.1", "9.5.3"), ("25.0.3", "9.5.3")],
)
def test_the_jdk_decides_the_version(tmp_path: Path, version: str, server: str) -> None:
    java = jdk.read(a_jdk(tmp_path / "jdk", version))

    assert java is not None
    assert distribution.version_for(java) == server


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_292"])
def test_an_old_jdk_is_none(tmp_path: Path, version: str) -> None:
    assert jdk.read(a_jdk(tmp_path / "jdk", version)) is None


def test_a_java_without_a_compiler_is_none(tmp_path: Path) -> None:
    home = a_jdk(tmp_path / "jdk", "21")
    (home / "bin" / "javac").unlink()

    assert jdk.read(home) is None


def test_the_named_jdk_wins_over_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_jdk(tmp_path / "newest", "25")
    monkeypatch.setattr(jdk, "_FOLDERS", (tmp_path,))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("ES_JAVA_HOME", raising=False)
    newest = jdk.find()
    monkeypatch.setenv("ES_JAVA_HOME", str(a_jdk(tmp_path / "named", "17")))
    named = jdk.find()

    assert newest is not None
    assert named is not None
    assert (newest.major, named.major) == (25, 17)


def test_a_named_jdk_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ES_JAVA_HOME", str(tmp_path))

    with pytest.raises(EngineError, match=r"^ES_JAVA_HOME: .* holds no JDK of 17 or newer; unset"):
        jdk.find()


def test_the_files_of_the_realm_hold_no_password_and_one_line_a_role() -> None:
    users = [USERS["admin"], USERS["shipper"], USERS["reader"]]

    files = es.realm(users)

    assert not any(user.password in text for user in users for text in files.values())
    assert files["users_roles"] == "superuser:admin\nshipper:shipper\nreader:reader\n"
    name, _, role = files["roles.yml"].splitlines()[0].partition(": ")
    assert name == "shipper"
    assert json.loads(role)["indices"][0]["privileges"] == ["create_doc", "auto_configure"]


def test_a_printed_user_holds_no_password() -> None:
    assert USERS["admin"].password not in repr(USERS["admin"])


def test_a_name_that_would_break_the_files_is_refused() -> None:
    with pytest.raises(EngineError, match=r"^elasticsearch: name 'a:b'; use letters"):
        es.realm([replace(USERS["reader"], name="a:b")])


def test_root_keeps_what_the_servers_account_reads_out_of_closed_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(closed))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert distribution.default_cache() == Path("/var/cache/taskscope")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert distribution.default_cache() == closed / "taskscope"
