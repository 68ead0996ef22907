"""The shipper against a server that fails in every way: nothing is lost, nothing is dropped in silence."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from taskscope.logs.spool import Spool
from taskscope.testing.engines import free_port
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.deadletters import FILE_NAME
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.shipper import Shipper, ShipperMetrics

from .faulty import (
    CATALOGUE,
    Faulty,
    Plan,
    Ship,
    fill,
    settings,
    shipping,
    statuses,
    until,
)


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


def test_lines_of_ended_segments_wait_for_no_others(tmp_path: Path, faulty: Faulty) -> None:
    folder = tmp_path / "left"
    for _ in range(20):  # as many workers were killed
        spool = Spool(folder, max_bytes=1 << 26, segment_bytes=1 << 16, sync_s=None)
        fill(spool, 3)
        spool.close()
    pauses: list[int] = []
    ship = Ship(ShipSettings(spool=folder, url=faulty.url))

    def stored(ids: list[str]) -> tuple[int, list[int]]:
        pauses.append(len(ship.waits))
        return 200, [201] * len(ids)

    faulty.plans = [stored] * 20
    with ship.running():
        until(lambda: ship.value("taskscope_logs_shipped_total") == 60)
    assert pauses == [0] * 20
