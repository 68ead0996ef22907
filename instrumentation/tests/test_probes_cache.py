"""The cache probe over a real Redis: hits, misses, writes, pipelines, a server that stalls, one that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from taskscope.catalogue.builtin import LIBRARY_ERRORS
from taskscope.catalogue.groups import CACHE, CACHE_DURATION, CACHE_REQUESTS
from taskscope.errors import MetricError
from taskscope.metrics.instruments import Instruments
from taskscope.probes.cache import CacheProbe
from taskscope.testing.engines import Running, free_port, new_password, running
from taskscope.testing.engines.redis import redis as redis_server
from taskscope.testing.engines.redis import url
from taskscope.testing.metrics import isolated, value

pytestmark = pytest.mark.engine

SyncClient = Callable[..., redis.Redis]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, password = free_port(), new_password()
    with running(redis_server(tmp_path_factory.mktemp("redis"), port=port, password=password)):
        yield url(port=port, password=password)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Running, str]]:
    """A server that may be hurt."""
    port, password = free_port(), new_password()
    with running(redis_server(tmp_path, port=port, password=password)) as server:
        yield server, url(port=port, password=password)


@pytest.fixture
def instruments() -> Instruments:
    return isolated(*CACHE)


@pytest.fixture
def probe(instruments: Instruments) -> CacheProbe:
    return CacheProbe(instruments)


@pytest.fixture
def client(place: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(place)
    client.flushall()
    yield client
    client.close()


def results(instruments: Instruments, **labels: str) -> dict[str, float]:
    """Requests by result, those that are not 0."""
    found = {
        result: value(instruments.registry, CACHE_REQUESTS, result=result, **labels)
        for result in ("hit", "miss", "write", "error", "timeout", "__overflow__")
    }
    return {result: count for result, count in found.items() if count}


def timed(instruments: Instruments) -> dict[str, float]:
    found = {
        operation: value(instruments.registry, CACHE_DURATION, operation=operation)
        for operation in ("read", "write", "delete", "other")
    }
    return {operation: count for operation, count in found.items() if count}


def run_with(place: str, use: Callable[[Any], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(place, **options) as client:
            await use(client)

    asyncio.run(main())


def test_a_sync_client_is_counted_by_what_came(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    probe.watch(client, name="tasks")
    assert client.get("a") is None
    assert client.set("a", "1", ex=90) is True
    assert client.get("a") == b"1"
    assert client.mget("a", "b") == [b"1", None]
    assert client.exists("a", "b") == 1
    assert client.delete("a") == 1
    assert client.ping() is True
    assert results(instruments, cache_name="tasks") == {"hit": 3, "miss": 3, "write": 1}
    assert results(instruments, ttl_class="minutes") == {"write": 1}
    assert timed(instruments) == {"read": 4, "write": 1, "delete": 1, "other": 1}


def test_an_async_client_is_counted_by_what_came(
    place: str, client: redis.Redis, probe: CacheProbe, instruments: Instruments
) -> None:
    async def use(watched: redis.asyncio.Redis) -> None:
        probe.watch(watched, name="tasks", ttl_class="hours")
        assert await watched.get("a") is None
        assert await watched.set("a", "1", ex=7200) is True
        assert await watched.get("a") == b"1"
        assert await watched.hset("h", mapping={"f": "v"}) == 1
        assert await watched.hgetall("h") == {b"f": b"v"}

    run_with(place, use)
    assert results(instruments) == {"hit": 2, "miss": 1, "write": 2}
    assert results(instruments, ttl_class="hours") == results(instruments)
    assert timed(instruments) == {"read": 3, "write": 2}


def test_watching_twice_counts_once(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    for name in ("one", "two"):
        probe.watch(client, name=name)
    client.get("a")
    client.pipeline().get("a").execute()
    assert results(instruments, cache_name="one") == {"miss": 2}
    assert results(instruments, cache_name="two") == {}


def test_two_kinds_of_entries_are_two_clients_over_one_pool(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    pages = redis.Redis(connection_pool=client.connection_pool)
    sessions = redis.Redis(connection_pool=client.connection_pool)
    probe.watch(pages, name="pages", ttl_class="seconds")
    probe.watch(sessions, name="sessions", ttl_class="days")
    pages.get("a")
    sessions.get("a")
    assert results(instruments, cache_name="pages", ttl_class="seconds") == {"miss": 1}
    assert results(instruments, cache_name="sessions", ttl_class="days") == {"miss": 1}


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_counts_each_command_and_is_timed_once(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments, transaction: bool
) -> None:
    probe.watch(client)
    with client.pipeline(transaction=transaction) as pipe:
        pipe.set("a", 1, ex=5).get("a").get("b").delete("a")
        assert pipe.execute() == [True, b"1", None, 1]
        pipe.get("a")
        assert pipe.execute() == [None]
        assert pipe.execute() == []
    assert results(instruments) == {"write": 1, "hit": 1, "miss": 2}
    assert results(instruments, ttl_class="seconds") == {"write": 1}
    assert timed(instruments) == {"other": 1, "read": 1}


@pytest.mark.parametrize("transaction", [True, False])
def test_an_async_pipeline_counts_each_command_and_is_timed_once(
    place: str, client: redis.Redis, probe: CacheProbe, instruments: Instruments, transaction: bool
) -> None:
    async def use(watched: redis.asyncio.Redis) -> None:
        probe.watch(watched)
        async with watched.pipeline(transaction=transaction) as pipe:
            pipe.mset({"a": 1, "b": 2}).get("a")
            assert await pipe.execute() == [True, b"1"]

    run_with(place, use)
    assert results(instruments) == {"write": 2, "hit": 1}
    assert timed(instruments) == {"other": 1}


def test_commands_between_watch_and_multi_are_counted(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    probe.watch(client)

    def double(pipe: Any) -> None:
        current = int(pipe.get("a") or 1)
        pipe.multi()
        pipe.set("a", current * 2)

    assert client.transaction(double, "a") == [True]
    assert results(instruments) == {"miss": 1, "write": 1}


def test_a_command_that_redis_refuses_is_an_error_and_raises_as_ever(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    client.set("a", "text")
    probe.watch(client)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.hget("a", "f")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.pipeline(transaction=False).get("a").hget("a", "f").execute()
    answers = client.pipeline().get("a").hget("a", "f").execute(raise_on_error=False)
    assert answers[0] == b"text"
    # Who is given an exception for the whole pipeline has the answer of no command.
    assert results(instruments) == {"error": 4, "hit": 1}


def test_publish_and_subscribe_stay_untouched(
    probe: CacheProbe, client: redis.Redis, instruments: Instruments
) -> None:
    probe.watch(client)
    with client.pubsub() as listener:
        listener.subscribe("news")
        assert listener.get_message(timeout=5) is not None
        client.publish("news", "hello")
        message = listener.get_message(timeout=5)
    assert message is not None
    assert message["data"] == b"hello"
    assert (results(instruments), timed(instruments)) == ({}, {"other": 1})


def test_a_killed_server_is_an_error_each_and_raises_as_ever(
    own: tuple[Running, str], probe: CacheProbe, instruments: Instruments
) -> None:
    server, place = own

    async def use(watched: redis.asyncio.Redis) -> None:
        probe.watch(watched)
        await watched.set("a", 1)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            await watched.get("a")
        with pytest.raises(redis.ConnectionError):
            await watched.pipeline().get("a").set("b", 1).execute()

    run_with(place, use, retry=None)
    assert results(instruments) == {"write": 1, "error": 3}


def test_a_stalled_server_is_a_timeout_each_and_raises_as_ever(
    own: tuple[Running, str], probe: CacheProbe, instruments: Instruments
) -> None:
    server, place = own
    client = redis.Redis.from_url(place, socket_timeout=0.1, retry=None)
    probe.watch(client)

    async def use(watched: redis.asyncio.Redis) -> None:
        probe.watch(watched)
        await watched.ping()
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(redis.TimeoutError):
            await watched.get("a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watched.get("a"), 0.02)
        with pytest.raises(redis.TimeoutError):
            client.get("a")

    try:
        run_with(place, use, socket_timeout=0.1, retry=None)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert results(instruments) == {"timeout": 3}
    assert client.set("a", 1) is True
    client.close()


def test_a_measurement_that_fails_is_counted_and_the_command_answers(
    probe: CacheProbe,
    client: redis.Redis,
    instruments: Instruments,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    probe.watch(client)
    monkeypatch.setattr(probe.durations, "at", planted)
    monkeypatch.setattr(probe.requests, "at", planted)
    assert client.set("a", 1) is True
    assert client.pipeline().get("a").execute() == [b"1"]
    with pytest.raises(redis.ResponseError):
        client.hget("a", "f")
    errors = value(
        instruments.registry, LIBRARY_ERRORS, component="probes", error_type="RuntimeError"
    )
    assert errors == 3


def test_a_catalogue_without_the_group_says_what_to_add() -> None:
    with pytest.raises(MetricError, match=r"add \*CACHE .* to Catalogue\(metrics=…\)"):
        CacheProbe(isolated())


def test_what_is_no_client_or_no_class_is_refused_at_once(probe: CacheProbe) -> None:
    with pytest.raises(MetricError, match=r"pass redis\.Redis"):
        probe.watch(object())  # type: ignore[arg-type] # that is what the test is about
    with pytest.raises(MetricError, match="use one of none, seconds"):
        probe.watch(redis.Redis(), ttl_class="weeks")
