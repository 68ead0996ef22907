"""The end: Ctrl-C leaves no process and no port, even of a stack of which half was killed."""

from __future__ import annotations

import signal
import socket

import psutil
import pytest

from .conftest import Live

pytestmark = [pytest.mark.engine, pytest.mark.stack]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_stopping_leaves_no_process_and_no_port(live: Live) -> None:
    ports = [part.port for part in live.state.parts if part.port]
    children = psutil.Process(live.process.pid).children(recursive=True)
    assert ports
    assert children
    live.process.send_signal(signal.SIGINT)
    assert (
        live.process.wait(60) == 2
    )  # what was killed before did not run to the end, and that is told
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert [port for port in ports if _listens(port)] == []
