"""A shipper as a process runs it: its lock, its series, its own silence, its end."""

from __future__ import annotations

import json
import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope.logs import configure
from taskscope.logs.spool import Spool
from taskscope.settings import Settings
from taskscope.testing.faultproxy import BulkFaults, BulkProxy
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import ShipSettings

from .faulty import (
    CATALOGUE,
    Faulty,
    Ship,
    fill,
    settings,
    shipping,
    statuses,
    until,
)


@contextmanager
def running(
    config: ShipSettings, said: list[str], *, port: int | None = None
) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(
        target=run,
        args=(config,),
        kwargs={"catalogue": CATALOGUE, "stop": stop, "port": port, "say": said.append},
    )
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(15)
        assert not thread.is_alive()


def test_its_series_are_served_on_loopback(spool: Spool, faulty: Faulty) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fill(spool, 3)
    with running(settings(spool, faulty), [], port=port):
        until(lambda: len(faulty.stored) == 3)
        text = (
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        )  # loopback
    assert "taskscope_logs_shipped_total" in text
    assert "_created" not in text


def test_a_file_of_a_later_format_waits_and_is_told_once(spool: Spool, faulty: Faulty) -> None:
    later = spool.folder / "0197a0000000-0123456789abcdef-000000.seg2"
    later.write_bytes(b"what a later version writes")
    with shipping(settings(spool, faulty)) as ship:
        for start in (0, 3):
            fill(spool, 3, start=start)
            until(lambda count=start + 3: len(faulty.stored) == count)  # type: ignore[misc] # its count
    (told,) = [sentence for sentence in ship.said if later.name in sentence]
    assert told.startswith("1 file(s) in the spool, such as '0197a0000000-")
    assert told.endswith(
        "are of a later format; they wait: run the shipper of the version that wrote them"
    )
    assert later.read_bytes() == b"what a later version writes"


def test_of_two_shippers_one_works_and_the_other_takes_over(spool: Spool, faulty: Faulty) -> None:
    said: list[str] = []
    with running(settings(spool, faulty), []) as first:
        fill(spool, 3)
        until(lambda: len(faulty.stored) == 3)
        with running(settings(spool, faulty), said):
            until(lambda: any("another shipper works" in sentence for sentence in said))
            first.set()
            fill(spool, 3, start=3)
            until(lambda: len(faulty.stored) == 6)
    assert sum(faulty.requests) == 6


def test_the_clients_own_loggers_are_silent_while_it_ships(
    spool: Spool, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    faulty.plans = [lambda _: None]
    fill(spool, 3)
    with running(settings(spool, faulty), []):
        until(lambda: len(faulty.requests) == 2)
    assert [record.name for record in caplog.records if record.name.startswith("elastic")] == []


def test_with_everything_logged_the_shipper_adds_no_line_to_the_spool_it_ships(
    tmp_path: Path, faulty: Faulty
) -> None:
    pipeline = configure(
        settings=Settings(spool=tmp_path / "spool", log_level="DEBUG"),
        service_name="shop",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    try:
        logging.getLogger("app").debug("heard")
        faulty.plans = [lambda _: None, statuses(503)]
        settings = ShipSettings(spool=tmp_path / "spool", url=faulty.url, pause_s=0.01)
        with shipping(settings) as ship:
            until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
            until(lambda: faulty.stored)
            pauses = len(ship.waits)
            until(lambda: len(ship.waits) > pauses + 20)
    finally:
        pipeline.close()
    messages = [json.loads(raw)["message"] for raw in faulty.stored.values()]
    assert "heard" in messages
    assert not [text for text in messages if "_bulk" in text or "Retry" in text]


def test_a_server_that_names_a_pause_is_given_it(spool: Spool, faulty: Faulty) -> None:
    faults = BulkFaults(whole_429=1.0, retry_after_s=7)
    fill(spool, 3)
    with (
        BulkProxy(faulty.server_port, faults=faults) as proxy,
        shipping(ShipSettings(spool=spool.folder, url=proxy.url)) as ship,
    ):
        until(lambda: ship.waits)
        assert ship.waits[0] == 7.0
        proxy.faults = BulkFaults()
        until(lambda: len(faulty.stored) == 3)


def test_a_close_ships_what_is_there_and_waits_for_no_server_that_fails(
    spool: Spool, faulty: Faulty
) -> None:
    for plans, shipped in (([], True), ([statuses(503)] * 1000, False)):
        faulty.plans = list(plans)
        ship = Ship(settings(spool, faulty))
        thread = threading.Thread(target=ship.shipper.run)
        fill(spool, 3000)
        thread.start()
        assert ship.shipper.close(timeout_s=10) is shipped
        thread.join(5)
        assert not thread.is_alive()
        assert (ship.value("taskscope_spool_size_bytes") == 0) is shipped


def test_a_port_in_use_is_one_sentence(spool: Spool, faulty: Faulty) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            SettingsError, match=r"port \d+ on 127.0.0.1 cannot be used .* name another"
        ):
            run(
                settings(spool, faulty),
                catalogue=CATALOGUE,
                stop=threading.Event(),
                port=taken.getsockname()[1],
            )


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be used: .*; set TASKSCOPE_SPOOL"):
        run(
            ShipSettings(spool=tmp_path / "file"),
            catalogue=CATALOGUE,
            stop=threading.Event(),
            port=None,
        )
