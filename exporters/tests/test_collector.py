"""What is counted, decided without a server: which lines are new, how totals are kept, and what is shown of them."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from taskscope.catalogue import Catalogue
from taskscope.catalogue.metric import OVERFLOW
from taskscope.errors import SettingsError
from taskscope.testing.waiting import until
from taskscope_exporters.logs.aggregates import Counts, counts
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.collected import CollectorMetrics
from taskscope_exporters.logs.collecting import CollectSettings, collect
from taskscope_exporters.logs.marks import MOST_MARKS, Marks, Tip, Window, tips
from taskscope_exporters.logs.tally import MOST_PAIRS, Tally, TallyError, load, save

STREAM = "logs-shop-local"
SHOP = Catalogue(service="shop")


def tip(number: int, generation: int = 1, uuid: str = "", shard: str = "0") -> Tip:
    name = f".ds-{STREAM}-2026.11.24-{generation:06d}"
    return Tip(
        index=name,
        uuid=uuid or f"u{generation}",
        shard=shard,
        number=number,
        generation=generation,
    )


def begun(*found: Tip) -> Marks:
    marks = Marks()
    marks.admit(found)
    return marks


def test_what_is_stored_before_the_first_look_of_all_is_not_counted() -> None:
    assert begun(tip(99)).counted == {"u1/0": 99}


def test_a_stream_that_begins_after_the_first_look_is_counted_from_its_first_line() -> None:
    marks = begun()
    marks.admit([tip(9)])
    assert marks.window(tip(9), upto=9, most=100) == Window(
        key="u1/0", index=tip(9).index, shard="0", above=-1, upto=9
    )


def test_the_index_after_a_rollover_is_counted_from_its_first_line() -> None:
    marks = begun(tip(99))
    marks.admit([tip(99), tip(4, generation=2)])
    assert marks.counted == {"u1/0": 99, "u2/0": -1}


def test_a_copy_of_an_older_index_is_not_counted_again() -> None:
    marks = begun(tip(99), tip(4, generation=2))
    marks.admit([tip(99, uuid="shrunk"), tip(4, generation=2)])
    assert marks.counted["shrunk/0"] == 99
    mounted = Tip(index="restored-x", uuid="r", shard="0", number=7, generation=0)
    marks.admit([tip(99, uuid="shrunk"), mounted])
    assert marks.counted["r/0"] == 7


def test_a_stream_that_was_restored_or_made_anew_is_counted_from_now_on() -> None:
    marks = begun(tip(99, generation=5))
    marks.admit([tip(60, generation=4, uuid="anew")])
    assert marks.counted["anew/0"] == 60
    marks.admit([tip(60, generation=4, uuid="anew"), tip(2, generation=5, uuid="next")])
    assert marks.counted["next/0"] == -1


def test_each_shard_has_a_mark_of_its_own() -> None:
    marks = begun()
    marks.admit([tip(3, shard="0"), tip(8, shard="1")])
    windows = [marks.window(t, upto=99, most=5) for t in (tip(3, shard="0"), tip(8, shard="1"))]
    assert [w.size for w in windows if w is not None] == [4, 5]


def test_the_number_of_marks_is_bounded_and_those_that_live_are_kept() -> None:
    marks = begun(*(tip(1, generation=n) for n in range(1, MOST_MARKS + 50)))
    marks.admit([tip(1, generation=1)])
    assert len(marks.counted) == MOST_MARKS
    assert "u1/0" in marks.counted


def test_only_primaries_that_are_there_are_read() -> None:
    def copy(number: int, *, primary: bool) -> Mapping[str, object]:
        return {"routing": {"primary": primary}, "seq_no": {"global_checkpoint": number}}

    answer = {
        "indices": {
            ".ds-logs-shop-local-2026.11.24-000007": {
                "uuid": "a",
                "shards": {"0": [copy(3, primary=False), copy(5, primary=True)], "1": []},
            },
            "foreign": {"uuid": "b", "shards": {"0": [copy(-2, primary=True)]}},
        }
    }
    assert [(t.key, t.number, t.generation) for t in tips(answer)] == [
        ("a/0", 5, 7),
        ("b/0", -1, 0),
    ]
    assert tips({}) == ()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"responses": []},
        {"responses": [{"status": 503, "error": "shards failed", "timed_out": False}]},
        {"responses": [{"status": 200, "timed_out": True}]},
        {"responses": [{"status": 200, "timed_out": False, "hits": None}]},
        {"responses": ["<html>"]},
    ],
)
def test_an_answer_that_is_none_is_a_trouble_and_no_zero(answer: Mapping[str, object]) -> None:
    with pytest.raises(Trouble):
        counts(answer, [Window(key="k", index="i", shard="0", above=0, upto=1)])


def test_pairs_beyond_the_bound_are_one_and_the_sum_stays() -> None:
    many = Counter({(f"E{n:04d}", "/r"): 2 for n in range(MOST_PAIRS + 100)})
    tally = Tally().plus(Marks(), (Counts(total=0, errors=many),))
    assert len(tally.errors) == MOST_PAIRS + 1
    assert tally.errors[OVERFLOW, OVERFLOW] == 200
    assert tally.errors.total() == 2 * (MOST_PAIRS + 100)


def test_a_tally_is_what_it_was_after_a_restart(tmp_path: Path) -> None:
    tally = Tally(
        marks=Marks(counted={"u/0": 7}, newest=3, began=True),
        lines=Counter({("info", "shop"): 5}),
        errors=Counter({('a"\n', "é"): 2}),
    )
    save(tmp_path / "t.json", STREAM, tally)
    assert load(tmp_path / "t.json", STREAM) == tally
    assert (tmp_path / "t.json").stat().st_mode & 0o777 == 0o600
    assert load(tmp_path / "none.json", STREAM) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', "\x00\x01"])
def test_a_file_that_is_none_of_ours_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(TallyError, match="move it away, and counting begins anew"):
        load(tmp_path / "t.json", STREAM)


def test_the_counts_of_another_stream_are_not_taken_over(tmp_path: Path) -> None:
    save(tmp_path / "t.json", "logs-other-local", Tally())
    with pytest.raises(TallyError, match="logs-other-local"):
        load(tmp_path / "t.json", STREAM)


def test_a_link_in_the_place_of_the_counts_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "t.json").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("{}")
    with pytest.raises(OSError, match="symbolic"):
        load(tmp_path / "t.json", STREAM)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Exposed:
    """A collector's metrics under a clock, and what a scrape of them says."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.metrics = CollectorMetrics(SHOP, stale_s=60, monotonic=self.clock)

    def look(self, errors: Mapping[tuple[str, str], int]) -> None:
        self.metrics.show(Tally(errors=Counter(errors)), behind=0)
        self.metrics.well()

    def value(self, series: str) -> float | None:
        found = [
            line.rpartition(" ")[2]
            for line in generate_latest(self.metrics.registry).decode().splitlines()
            if line.startswith(series)
        ]
        return float(found[0]) if found else None


@pytest.fixture
def exposed() -> Exposed:
    return Exposed()


KEY = 'taskscope_logs_errors_total{error_type="KeyError",http_route="/a"}'


def test_a_new_series_is_seen_at_zero_before_it_counts(exposed: Exposed) -> None:
    exposed.look({("KeyError", "/a"): 3})
    assert exposed.value(KEY) == 0
    exposed.look({("KeyError", "/a"): 3})
    assert exposed.value(KEY) == 3


def test_every_level_is_there_from_the_start_at_zero(exposed: Exposed) -> None:
    exposed.look({})
    series = 'taskscope_logs_stored_total{event_dataset="shop",log_level="critical"}'
    assert exposed.value(series) == 0
    assert exposed.value('taskscope_logs_errors_total{error_type="none",http_route="none"}') == 0


def test_what_an_earlier_run_has_shown_is_shown_again_at_once(exposed: Exposed) -> None:
    exposed.metrics.resume(Tally(errors=Counter({("KeyError", "/a"): 41})))
    exposed.look({("KeyError", "/a"): 42})
    assert exposed.value(KEY) == 42


def test_counts_of_a_failing_look_are_gone_and_not_frozen(exposed: Exposed) -> None:
    exposed.look({("KeyError", "/a"): 3})
    exposed.metrics.failed()
    assert exposed.value("taskscope_collector_connected") == 0
    assert exposed.value("taskscope_logs_") is None
    assert exposed.value("taskscope_collector_uncounted") is None
    assert exposed.value("taskscope_collector_requests_total") == 0
    exposed.look({("KeyError", "/a"): 3})
    assert exposed.value("taskscope_collector_connected") == 1
    assert exposed.value(KEY) == 3


def test_counts_of_a_look_that_hangs_are_gone_too(exposed: Exposed) -> None:
    exposed.look({})
    exposed.clock.now += 61
    assert exposed.value("taskscope_collector_connected") == 0
    assert exposed.value("taskscope_logs_") is None


@pytest.mark.parametrize("every_s", [0.0, 0.5, 301.0, float("nan")])
def test_a_pause_that_is_none_is_refused(every_s: float) -> None:
    with pytest.raises(SettingsError, match="give 1 to 300 seconds"):
        CollectSettings(every_s=every_s)


def test_settings_come_from_the_environment() -> None:
    found = CollectSettings.from_environ(
        {"ELASTICSEARCH_URL": "http://es:9200", "COLLECTOR_FOLDER": "/counts"}
    )
    assert (found.elasticsearch.url, found.folder) == ("http://es:9200", Path("/counts"))
    assert CollectSettings.from_environ({}).folder == Path(".taskscope/collector")


def test_a_second_collector_of_a_folder_waits(tmp_path: Path) -> None:
    held = os.open(tmp_path / f"{STREAM}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    said: list[str] = []
    stop = threading.Event()
    words = {"catalogue": SHOP, "stop": stop, "port": None, "say": said.append}
    thread = threading.Thread(
        target=collect, args=(CollectSettings(folder=tmp_path),), kwargs=words
    )
    thread.start()
    try:
        until(lambda: said)
        assert said == [f"another collector works in {tmp_path}; this one waits to take over"]
        assert not (tmp_path / f"{STREAM}.json").exists()
    finally:
        stop.set()
        thread.join(10)
        os.close(held)


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="set COLLECTOR_FOLDER to one that this user may write"):
        collect(
            CollectSettings(folder=tmp_path / "file"),
            catalogue=SHOP,
            stop=threading.Event(),
            port=None,
        )
