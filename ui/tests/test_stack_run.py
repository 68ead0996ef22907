"""The whole local stack on real engines: it comes up, is scraped, is closed, and leaves nothing behind."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httpx2
import pytest

from taskscope.testing.engines.spec import taken
from taskscope.testing.waiting import until_async
from taskscope_ui.stack import Stack, UpOptions, read_state, running_stack
from taskscope_ui.stack.part import Phase
from taskscope_ui.stack.processes import Group, members

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.stack]

ROOT: Final = Path(__file__).resolve().parents[2]
WATCHED: Final = (
    "api-1",
    "api-2",
    "proxy",
    "traffic",
    "prometheus",
    "alertmanager",
    "boards",
    "page",
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    options = UpOptions(
        folder=tmp_path_factory.mktemp("stack"),
        project=ROOT,
        rate=10,
        without=frozenset({"elasticsearch"}),
        usual_ports=False,
    )
    async with running_stack(options) as running:
        await running.ready(within_s=120)
        yield running


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
async def half_sent(stack: Stack) -> AsyncIterator[anyio.abc.SocketStream]:
    """Begun with the first test, so that the ten seconds of its test are not waited for in vain."""
    door = urlsplit(stack.address("api"))
    async with await anyio.connect_tcp("127.0.0.1", door.port or 0) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        yield stream


async def prometheus(client: httpx2.AsyncClient, stack: Stack, path: str) -> Any:
    response = await client.get(f"{stack.address('prometheus')}/api/v1/{path}")
    return response.json()["data"]


async def test_every_part_is_ready(stack: Stack) -> None:
    assert {part.name: stack.status(part.name).phase for part in stack.plan.parts} == dict.fromkeys(
        WATCHED, Phase.READY
    )


async def test_every_address_answers(stack: Stack, client: httpx2.AsyncClient) -> None:
    for name, address in stack.plan.addresses.items():
        response = await client.get(f"{address}/", follow_redirects=True)
        assert response.status_code < 500, name


async def test_prometheus_scrapes_all_that_runs(stack: Stack, client: httpx2.AsyncClient) -> None:
    async def all_up() -> bool:
        targets = (await prometheus(client, stack, "targets"))["activeTargets"]
        jobs = sorted(target["labels"]["job"] for target in targets)
        up = all(target["health"] == "up" for target in targets)
        return up and jobs == ["alertmanager", "prometheus", "taskapi", "taskapi"]

    await until_async(all_up, within_s=40, every_s=0.2)


async def test_the_rules_are_loaded_and_none_is_in_error(
    stack: Stack, client: httpx2.AsyncClient
) -> None:
    async def evaluated() -> bool:
        groups = (await prometheus(client, stack, "rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"]
        return bool(rules) and all(rule["health"] == "ok" for rule in rules)

    await until_async(evaluated, within_s=40, every_s=0.2)


async def test_prometheus_knows_its_alertmanager(stack: Stack, client: httpx2.AsyncClient) -> None:
    async def known() -> bool:
        active = (await prometheus(client, stack, "alertmanagers"))["activeAlertmanagers"]
        return [entry["url"] for entry in active] == [
            f"{stack.address('alertmanager')}/api/v2/alerts"
        ]

    await until_async(known, within_s=40, every_s=0.2)


async def test_the_traffic_is_counted(stack: Stack, client: httpx2.AsyncClient) -> None:
    query = "query?query=sum(http_server_request_duration_seconds_count)"

    async def counted() -> bool:
        result = (await prometheus(client, stack, query))["result"]
        return bool(result) and float(result[0]["value"][1]) > 20

    await until_async(counted, within_s=40, every_s=0.2)


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/%6detrics", "//metrics"])
async def test_the_door_hides_what_is_for_those_who_run_the_service(
    stack: Stack, client: httpx2.AsyncClient, path: str
) -> None:
    response = await client.get(stack.address("api") + path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_what_only_nginx_can_refuse_is_in_the_envelope_of_the_api(
    stack: Stack, client: httpx2.AsyncClient
) -> None:
    response = await client.post(f"{stack.address('api')}/api/v1/tasks", content=b"x" * 1_100_000)
    assert response.status_code == 413
    assert response.headers["content-type"].startswith("application/json")
    assert set(response.json()) == {"success", "data", "error", "meta"}
    assert response.json()["meta"]["request_id"]


async def test_nginx_does_not_tell_its_version(stack: Stack, client: httpx2.AsyncClient) -> None:
    response = await client.get(f"{stack.address('api')}/api/v1/none")
    assert response.headers["server"] == "nginx"


async def test_a_header_that_never_ends_is_hung_up_on(half_sent: anyio.abc.SocketStream) -> None:
    answer = b""
    with anyio.fail_after(15), suppress(anyio.BrokenResourceError):
        async for chunk in half_sent:
            answer += chunk
    assert answer == b"" or b" 408 " in answer


async def test_only_loopback_is_listened_on(stack: Stack) -> None:
    name = socket.gethostname()
    own = {info[4][0] for info in socket.getaddrinfo(name, None, family=socket.AF_INET)}
    ports = [part.port for part in stack.plan.parts if part.port]
    for address in own - {"127.0.0.1"}:
        for port in ports:
            with socket.socket() as probe:
                assert probe.connect_ex((str(address), port)) != 0


def test_the_state_file_tells_what_runs(stack: Stack) -> None:
    state = read_state(stack.folder)
    assert state is not None
    assert state.runs
    assert state.addresses["api"] == stack.address("api")
    named = {part.name: part for part in state.parts if part.phase == "ready"}
    assert set(named) == set(WATCHED)
    assert all(part.runs and Path(part.log).is_file() for part in named.values())


def test_nothing_in_the_folder_is_open_to_others(stack: Stack) -> None:
    assert stack.folder.stat().st_mode & 0o077 == 0
    private = [
        stack.layout.secrets,
        stack.layout.run / "stack.json",
        *stack.layout.secrets.iterdir(),
    ]
    assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_no_secret_stands_on_a_command_line_or_in_the_state(stack: Stack) -> None:
    words = [path.read_text().strip() for path in stack.layout.secrets.iterdir()]
    told = (stack.layout.run / "stack.json").read_text()
    for part in stack.plan.parts:
        told += Path(f"/proc/{stack.status(part.name).pid}/cmdline").read_text()
    assert [word for word in words if word in told] == []


async def test_a_second_start_in_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(Exception, match="is in use by another taskscope up, pid"):
        async with running_stack(UpOptions(folder=stack.folder, project=ROOT)):
            pass
    assert stack.status("prometheus").phase is Phase.READY


def test_all_came_up_within_fifteen_seconds_of_its_own_start(stack: Stack) -> None:
    assert max(stack.status(part.name).took_s for part in stack.plan.parts) < 15


async def test_after_the_stop_no_process_and_no_port_is_left(tmp_path: Path) -> None:
    options = UpOptions(
        folder=tmp_path / "stack",
        project=ROOT,
        without=frozenset({"elasticsearch", "traffic", "page", "boards"}),
        usual_ports=False,
    )
    async with running_stack(options) as stack:
        await stack.ready(within_s=60)
        state = read_state(stack.folder)
        assert state is not None
        groups = [Group(pid=part.pid, began=part.began) for part in state.parts if part.pid]
        ports = [part.port for part in state.parts if part.port]
        assert len(groups) == 5
        assert all(members(group) for group in groups)
    assert [group for group in groups if members(group)] == []
    assert [port for port in ports if taken(port)] == []
    phases = {
        part["phase"] for part in json.loads((stack.folder / "run/stack.json").read_text())["parts"]
    }
    assert phases == {"stopped", "absent"}
