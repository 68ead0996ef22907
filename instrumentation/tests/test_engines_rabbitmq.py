"""RabbitMQ: one user, its own epmd, and nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aio_pika
import pytest
from aiormq.exceptions import AMQPError

from taskscope.testing.engines import (
    HOST,
    EngineError,
    Missing,
    Spec,
    free_ports,
    members,
    rabbitmq,
    running,
    start,
)
from taskscope.testing.engines import spec as spec_module
from taskscope.testing.waiting import until

PASSWORD = "a-password_of-tests"
EPMD = 4369


def a_rabbitmq(folder: Path, *, password: str = PASSWORD, **settings: str) -> Spec:
    port, *internal = free_ports(3)
    try:
        return rabbitmq.rabbitmq(
            folder / "rabbitmq",
            port=port,
            internal_ports=(internal[0], internal[1]),
            password=password,
            settings=settings,
        )
    except Missing as missing:
        pytest.skip(str(missing))


async def echoed(url: str) -> bytes:
    """What comes back from a queue, or the name of the error at the door."""
    try:
        connection = await aio_pika.connect(url, timeout=10)
    except AMQPError as error:
        return type(error).__name__.encode()
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        message = await queue.get(timeout=10)
        await message.ack()
        return message.body


@pytest.mark.engine
def test_it_answers_its_user_alone_also_after_a_crash_and_leaves_no_process_port_and_epmd(
    tmp_path: Path,
) -> None:
    epmd_before = spec_module.taken(EPMD)
    crashed = a_rabbitmq(tmp_path, password="another")
    start(crashed).kill()
    until(lambda: not any(map(spec_module.taken, crashed.ports)), within_s=20)

    spec = a_rabbitmq(tmp_path)
    port = spec.ports[0]
    with running(spec) as server:
        ours = asyncio.run(echoed(rabbitmq.url(port=port, password=PASSWORD)))
        former = asyncio.run(echoed(rabbitmq.url(port=port, password="another")))
        guest = asyncio.run(echoed(f"amqp://guest:guest@{HOST}:{port}/"))
        shown = Path(f"/proc/{server.pid}/cmdline").read_text()
        shown += Path(f"/proc/{server.pid}/environ").read_text()

    assert ours == b"hello"
    assert former == guest == b"ProbableAuthenticationError"
    assert PASSWORD not in shown + repr(spec)
    assert members(server.pid) == []
    assert [port for port in spec.ports if spec_module.taken(port)] == []
    assert spec_module.taken(EPMD) == epmd_before


@pytest.mark.engine
def test_a_broken_configuration_is_told_in_the_servers_own_words(tmp_path: Path) -> None:
    spec = a_rabbitmq(tmp_path, channel_max="many")

    with pytest.raises(EngineError) as refused:
        start(spec)

    sentence = str(refused.value)
    assert sentence.startswith("rabbitmq: ended with exit code 1 before it was ready: ")
    assert "channel_max" in sentence
    assert sentence.endswith(str(spec.log))
    until(lambda: not any(map(spec_module.taken, spec.ports)), within_s=20)


def test_where_it_is_not_installed_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(spec_module, "_SBIN", str(tmp_path))
    monkeypatch.setattr(rabbitmq, "_DEBIAN", tmp_path / "none")

    with pytest.raises(Missing, match=f"is not installed; run: {rabbitmq.REMEDY}$"):
        rabbitmq.rabbitmq(tmp_path, port=1, internal_ports=(2, 3), password=PASSWORD)
