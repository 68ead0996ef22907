"""The shipper against a server that fails in every way: nothing is lost, nothing is dropped in silence."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taskscope.catalogue import Catalogue
from taskscope.errors import SettingsError
from taskscope.logs import configure
from taskscope.logs.spool import Spool
from taskscope.settings import Settings
from taskscope.testing import waiting
from taskscope.testing.engines import free_port
from taskscope.testing.faultproxy import BulkFaults, BulkProxy
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.deadletters import FILE_NAME
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Shipper, ShipperMetrics

until = partial(waiting.until, within_s=15)

CATALOGUE = Catalogue(service="shop")
Plan = Callable[[list[str]], tuple[int, list[int]] | None]
"""For the ids of one bulk request: the response's status and one per item; None hangs up without an answer."""


_MADE_WHEN_MET = ("taskscope_logs_dead_letters_total",)


class Faulty(ThreadingHTTPServer):
    """Answers as Elasticsearch does, but as planned; remembers what it stored."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stored: dict[str, bytes] = {}
        self.plans: list[Plan] = []
        self.requests: list[int] = []

    def bulk(self, body: bytes) -> tuple[int, list[int]] | None:
        parts = body.split(b"\n")
        ids = [json.loads(part)["create"]["_id"] for part in parts[:-1:2]]
        self.requests.append(len(ids))
        plan = self.plans.pop(0)(ids) if self.plans else (200, [201] * len(ids))
        lines = dict(zip(ids, parts[1::2], strict=True))
        if plan is None:
            self.stored.update(lines)
            return None
        status, items = plan
        known = [
            409 if found == 201 and name in self.stored else found
            for name, found in zip(ids, items, strict=False)
        ]
        if status == 200:
            self.stored.update(
                {name: lines[name] for name, found in zip(ids, known, strict=False) if found == 201}
            )
        return status, known


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def do_GET(self) -> None:  # the standard library's name
        self._answer(404, {"error": {"type": "resource_not_found_exception"}})

    def do_PUT(self) -> None:  # as above
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if "/_bulk" not in self.path:
            self._answer(200, {"acknowledged": True})
            return
        answer = self.server.bulk(body)
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, items = answer
        found = [{"create": {"status": item, "error": {"type": f"e{item}"}}} for item in items]
        refusal = {"error": {"reason": "planned"}}
        self._answer(status, {"errors": True, "items": found} if status == 200 else refusal)

    do_POST = do_PUT  # noqa: N815 # as above

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", self.headers["accept"].split(",")[0])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    made = Faulty()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 26, segment_bytes=1 << 16, sync_s=None)
    yield made
    made.close()


class Ship:
    """A shipper in a thread of its own, what it said, and its series."""

    def __init__(self, settings: ShipSettings) -> None:
        self.said: list[str] = []
        self.waits: list[float] = []
        self.stop = threading.Event()
        self.metrics = ShipperMetrics(CATALOGUE, settings)
        self.shipper = Shipper(
            settings=settings,
            catalogue=CATALOGUE,
            metrics=self.metrics,
            stop=self.stop,
            say=self.said.append,
            rng=random.Random(1),
            wait=self._wait,
        )

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.stop.wait(min(seconds, 0.01))

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None or name in _MADE_WHEN_MET, name
        return found or 0.0


@contextmanager
def shipping(settings: ShipSettings) -> Iterator[Ship]:
    ship = Ship(settings)
    thread = threading.Thread(target=ship.shipper.run)
    thread.start()
    try:
        yield ship
    finally:
        ship.stop.set()
        thread.join(15)
        assert not thread.is_alive()


def fill(spool: Spool, count: int, *, start: int = 0) -> list[bytes]:
    lines = [b'{"n":%d}' % n for n in range(start, start + count)]
    for line in lines:
        spool.write(line + b"\n")
    return lines


def settings(spool: Spool, faulty: Faulty, **more: object) -> ShipSettings:
    return ShipSettings(spool=spool.folder, url=faulty.url, **more)  # type: ignore[arg-type] # any setting


def statuses(status: int, items: Callable[[int], int] = lambda _: 201) -> Plan:
    return lambda ids: (status, [items(at) for at in range(len(ids))])


def test_every_line_is_stored_once_and_the_spool_is_empty(spool: Spool, faulty: Faulty) -> None:
    lines = fill(spool, 12_000)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
        assert ship.value("taskscope_logs_shipped_total") == 12_000
        assert ship.value("taskscope_shipper_connected") == 1
        assert ship.value("taskscope_logs_oldest_line_age_seconds") == 0
    assert sorted(faulty.stored.values()) == sorted(lines)
    assert max(faulty.requests) <= 1000
    assert [path.name for path in spool.folder.glob("*.seg")] == [spool.segment]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (lambda _: None, "unreachable"),
        (statuses(503), "overloaded"),
        (statuses(429), "overloaded"),
        (statuses(401), "refused"),
        (statuses(403), "refused"),
        (statuses(404), "refused"),
        (statuses(200, lambda at: 429 if at % 3 else 201), "overloaded"),
        (statuses(200, lambda at: 503 if at == 5 else 201), "overloaded"),
        (statuses(200, lambda at: 403 if at == 5 else 201), "refused"),
        (lambda _: (200, []), "unreachable"),
    ],
    ids=["lost", "503", "429", "401", "403", "404", "some-429", "one-503", "one-403", "nonsense"],
)
def test_a_failure_is_counted_and_every_line_is_stored_once(
    spool: Spool, faulty: Faulty, plan: Plan, reason: str
) -> None:
    faulty.plans = [plan]
    lines = fill(spool, 50)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
        assert ship.value("taskscope_logs_retries_total", reason=reason) == 1
        arrived = ship.value("taskscope_logs_shipped_total") + ship.value(
            "taskscope_logs_duplicates_total"
        )
        assert arrived >= 50
        assert ship.value("taskscope_logs_dead_letters_total") == 0
    assert sorted(faulty.stored.values()) == sorted(lines)
    assert not (spool.folder / FILE_NAME).exists()


def test_a_batch_whose_answer_was_lost_is_absorbed_by_its_ids(spool: Spool, faulty: Faulty) -> None:
    faulty.plans = [lambda _: None]
    fill(spool, 50)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
        assert ship.value("taskscope_logs_duplicates_total") == 50
        assert ship.value("taskscope_logs_shipped_total") == 0
    assert len(faulty.stored) == 50


def test_a_line_that_can_never_be_stored_lies_in_the_dead_letter_file(
    spool: Spool, faulty: Faulty
) -> None:
    faulty.plans = [statuses(200, lambda at: 400 if at == 7 else 201)]
    fill(spool, 20)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
        assert ship.value("taskscope_logs_dead_letters_total", error_type="e400") == 1
    (letter,) = (spool.folder / FILE_NAME).read_text().splitlines()
    assert json.loads(letter)["error"]["type"] == "e400"
    assert json.loads(letter)["line"] == '{"n":7}\n'
    assert (spool.folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert len(faulty.stored) == 19
    assert any("cannot be stored (e400" in sentence for sentence in ship.said)


def test_a_request_that_is_refused_whole_is_halved_down_to_the_line(
    spool: Spool, faulty: Faulty
) -> None:
    fill(spool, 16)
    bad = f"{spool.segment.removesuffix('.seg')}-{5 * 8:x}"

    def plan(ids: list[str]) -> tuple[int, list[int]]:
        return (400, []) if bad in ids else (200, [201] * len(ids))

    faulty.plans = [plan] * 40
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
    assert len(faulty.stored) == 15
    letter = json.loads((spool.folder / FILE_NAME).read_text())
    assert letter["error"]["type"] == "refused_request"
    assert letter["id"] == bad


def test_a_damaged_line_is_set_aside_and_the_rest_ships(tmp_path: Path, faulty: Faulty) -> None:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    (folder / "0197a0000000-0123456789abcdef-000000.seg").write_bytes(
        b'{"n":1}\n\x00\x00\n{"n":2}\n{"n":'
    )
    with shipping(ShipSettings(spool=folder, url=faulty.url)) as ship:
        until(lambda: not list(folder.glob("*.seg")))
    assert list(faulty.stored.values()) == [b'{"n":1}', b'{"n":2}']
    assert json.loads((folder / FILE_NAME).read_text())["error"]["type"] == "damaged_line"
    assert any("1 half-written line(s)" in sentence for sentence in ship.said)


def test_pauses_grow_are_spread_and_capped_and_a_trouble_is_said_once(
    spool: Spool, faulty: Faulty
) -> None:
    faulty.plans = [statuses(503)] * 12
    fill(spool, 5)
    with shipping(settings(spool, faulty, backoff_s=2.0)) as ship:
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
    growing = ship.waits[:12]
    assert all(0.05 * 2**n <= wait <= 0.1 * 2**n for n, wait in enumerate(growing[:4]))
    assert all(1.0 <= wait <= 2.0 for wait in growing[6:])
    assert sum("overloaded (503" in sentence for sentence in ship.said) == 1
    assert ship.said[-1] == f"{faulty.url} takes lines again"


def test_a_batch_that_takes_too_long_is_sent_in_smaller_ones(spool: Spool, faulty: Faulty) -> None:
    release = threading.Event()

    def slow(ids: list[str]) -> tuple[int, list[int]]:
        release.wait(5)
        return (200, [201] * len(ids))

    faulty.plans = [slow]
    fill(spool, 40)
    with shipping(settings(spool, faulty, timeout_s=0.2, batch_lines=40)) as ship:
        until(lambda: len(faulty.requests) >= 2)
        release.set()
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
    assert faulty.requests[:2] == [40, 20]
    assert len(faulty.stored) == 40


def test_a_server_that_answers_but_takes_no_line_is_a_trouble(spool: Spool, faulty: Faulty) -> None:
    faulty.plans = [statuses(200, lambda _: 429)] * 10_000
    fill(spool, 20)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: len(faulty.requests) > 5)
        until(lambda: ship.value("taskscope_shipper_connected") == 0)
        assert sum("takes no line now (e429: " in sentence for sentence in ship.said) == 1
        faulty.plans.clear()
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
        assert ship.value("taskscope_shipper_connected") == 1
    assert len(faulty.stored) == 20


def test_a_shipper_with_nothing_to_ship_is_connected(spool: Spool, faulty: Faulty) -> None:
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: ship.value("taskscope_shipper_connected") == 1)
    assert faulty.requests == []


def test_on_a_disk_that_takes_no_acknowledgement_segments_end_all_the_same(
    spool: Spool, faulty: Faulty
) -> None:
    first = spool.segment
    (spool.folder / f"{first}.ack.new").mkdir()  # what is written there fails, as on a full disk
    lines = fill(spool, 3000)
    spool.close()
    with shipping(settings(spool, faulty, batch_lines=500)) as ship:
        until(lambda: not list(spool.folder.glob("*.seg")))
        assert ship.value("taskscope_logs_duplicates_total") == 0
    assert sorted(faulty.stored.values()) == sorted(lines)
    assert sum("cannot keep what is stored already" in sentence for sentence in ship.said) == 1


def test_dead_letters_that_cannot_be_kept_hold_the_batch(spool: Spool, faulty: Faulty) -> None:
    (spool.folder / FILE_NAME).mkdir()
    faulty.plans = [statuses(200, lambda at: 400 if at == 0 else 201)] * 10_000
    fill(spool, 3)
    with shipping(settings(spool, faulty)) as ship:
        until(lambda: any("nothing is dropped" in sentence for sentence in ship.said))
        assert ship.value("taskscope_spool_size_bytes") == 24
        (spool.folder / FILE_NAME).rmdir()
        until(lambda: ship.value("taskscope_spool_size_bytes") == 0)
    assert json.loads((spool.folder / FILE_NAME).read_text().splitlines()[0])["line"] == '{"n":0}\n'


def test_a_server_that_is_not_there_is_waited_for(spool: Spool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        fill(spool, 3)
        with shipping(ShipSettings(spool=spool.folder, url=url)) as ship:
            until(lambda: ship.value("taskscope_logs_retries_total", reason="unreachable") > 2)
            assert ship.value("taskscope_shipper_connected") == 0
            assert ship.value("taskscope_spool_size_bytes") == 24
    assert sum("cannot be reached" in sentence for sentence in ship.said) == 1


def test_patience_with_a_server_that_never_came_up_ends_in_one_sentence(spool: Spool) -> None:
    fill(spool, 3)
    said: list[str] = []
    settings = ShipSettings(spool=spool.folder, url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Trouble, match=r"cannot be reached .* start Elasticsearch or correct"):
        run(
            settings,
            catalogue=CATALOGUE,
            stop=threading.Event(),
            port=None,
            say=said.append,
            patience_s=0.3,
        )
    assert said == []
    assert sum(path.stat().st_size for path in spool.folder.glob("*.seg")) == 24


def test_a_server_that_was_well_once_is_waited_for_beyond_all_patience(
    spool: Spool, faulty: Faulty
) -> None:
    fill(spool, 1)
    stop, said = threading.Event(), list[str]()
    settings = ShipSettings(spool=spool.folder, url=faulty.url, pause_s=0.05)
    metrics = ShipperMetrics(CATALOGUE, settings)
    shipper = Shipper(
        settings=settings,
        catalogue=CATALOGUE,
        metrics=metrics,
        stop=stop,
        say=said.append,
        patience_s=0.1,
    )
    thread = threading.Thread(target=shipper.run)
    thread.start()
    until(lambda: faulty.stored)
    faulty.plans = [lambda ids: (503, [503] * len(ids))] * 4
    fill(spool, 2)
    until(lambda: len(faulty.stored) == 3)
    stop.set()
    thread.join(10)
    assert shipper.lost is None
    assert any("takes lines again" in sentence for sentence in said)


def test_a_certificate_that_is_none_is_said_and_the_lines_wait(
    spool: Spool, faulty: Faulty, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    fill(spool, 3)
    url = faulty.url.replace("http:", "https:")
    with shipping(ShipSettings(spool=spool.folder, url=url, ca_cert=tmp_path / "ca.pem")) as ship:
        until(lambda: any("ELASTICSEARCH_CA_CERT holds no" in sentence for sentence in ship.said))
        assert ship.value("taskscope_spool_size_bytes") == 24


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
