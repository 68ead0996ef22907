"""Counts the lines that are in Elasticsearch, for ever: each once, whenever it was written and whenever it came.

One look asks how far each shard has come, and then, in one request, for the lines between what is counted and what
the look before saw: those a search has seen since, or it says how many it lacks and they are asked for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from taskscope.catalogue import Catalogue
from taskscope_exporters.logs.aggregates import Counts, counts, searches
from taskscope_exporters.logs.client import Trouble, connect, translated
from taskscope_exporters.logs.collected import CollectorMetrics
from taskscope_exporters.logs.marks import Marks, Tip, Window, tips
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.tally import Tally, TallyError, load, save
from taskscope_exporters.logs.template import stream_name

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["MOST_LINES", "MOST_WINDOWS", "PATIENT_LOOKS", "Collector"]

MOST_LINES: Final = 2_000_000
"""Lines of one shard that one look counts; what is more waits for the next."""
MOST_WINDOWS: Final = 64
"""Shards with new lines that one look asks."""
PATIENT_LOOKS: Final = 40
"""After so many looks a search that still lacks lines is believed: a number was taken that no line has."""

_LEAST_LINES: Final = 10_000
_FILTER: Final = (
    "indices.*.uuid",
    "indices.*.shards.*.routing.primary",
    "indices.*.shards.*.seq_no.global_checkpoint",
)

Say = Callable[[str], None]
_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class Collector:
    """The counts of one stream; its caller holds the lock of the file's folder.

    file: where the counts are kept over a restart. every_s: seconds from one look to the next.
    say: told one sentence at each change of state. monotonic: seconds.
    """

    settings: ShipSettings
    catalogue: Catalogue
    metrics: CollectorMetrics
    file: Path
    stop: threading.Event
    say: Say
    every_s: float = 15.0
    monotonic: Callable[[], float] = time.monotonic
    _client: Elasticsearch | None = None
    _tally: Tally | None = None
    _seen: dict[str, int] = field(default_factory=dict)
    _held: dict[str, tuple[Window, int]] = field(default_factory=dict)
    _most: int = MOST_LINES
    _trouble: str = ""

    @property
    def stream(self) -> str:
        """The data stream whose lines are counted."""
        return stream_name(self.catalogue.service, self.settings.environment)

    def run(self) -> None:
        """Looks until `stop` is set. Raises nothing: what fails is said, shown by `connected`, and tried again."""
        while not self.stop.is_set():
            began = self.monotonic()
            self.attempt()
            self.stop.wait(max(0.0, self.every_s - (self.monotonic() - began)))
        self._drop_client()

    def attempt(self) -> bool:
        """One look, and whether it went well."""
        began = self.monotonic()
        try:
            self.look()
        except Trouble as trouble:
            if trouble.timed_out:
                self._narrow()
            self._failed(str(trouble))
        except OSError as error:
            self._failed(
                f"{self.file} cannot be written or read: {error.strerror}; mend the folder or free the disk, what is "
                "not counted now is counted then"
            )
        except TallyError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 # whatever it is, the lines stay where they are
            self._failed(f"unexpected {type(error).__name__}: {error!s:.300}; nothing is lost")
        else:
            self._well()
            return True
        finally:
            self.metrics.look_took(self.monotonic() - began)
        return False

    def look(self) -> None:
        """The lines that came are counted, kept on disk and shown. Raises Trouble, TallyError and OSError."""
        tally = self._known()
        found = self._tips()
        marks = Marks(
            counted=dict(tally.marks.counted), newest=tally.marks.newest, began=tally.marks.began
        )
        marks.admit(found)
        windows = self._windows(marks, found)
        whole, counted = self._whole(windows, self._counts(windows) if windows else ())
        grown = tally.plus(marks.advanced(whole), counted)
        if (grown.marks, grown.lines, grown.errors) != (tally.marks, tally.lines, tally.errors):
            save(self.file, self.stream, grown)
        self._tally = grown
        self._seen = {tip.key: tip.number for tip in found}
        self.metrics.show(grown, behind=grown.marks.behind(found))

    def _known(self) -> Tally:
        if self._tally is None:
            kept = load(self.file, self.stream)
            self._tally = Tally() if kept is None else kept
            self.metrics.resume(self._tally)
        return self._tally

    def _tips(self) -> tuple[Tip, ...]:
        def ask(client: Elasticsearch) -> object:
            return client.perform_request(
                "GET",
                f"/{self.stream}/_stats/docs",
                params={
                    "level": "shards",
                    "ignore_unavailable": "true",
                    "filter_path": ",".join(_FILTER),
                },
                headers={"accept": "application/json"},
            ).body

        return tips(cast("dict[str, object]", self._asked(ask)))

    def _windows(self, marks: Marks, found: Sequence[Tip]) -> list[Window]:
        """What is to be counted now; a window that was not whole stays as it was until it is."""
        windows: list[Window] = []
        present = {tip.key for tip in found}
        self._held = {key: held for key, held in self._held.items() if key in present}
        for tip in found:
            if tip.key in self._held:
                windows.append(self._held[tip.key][0])
            # Up to what was seen the look before: a search has had the time to see it too.
            elif window := marks.window(tip, upto=self._seen.get(tip.key, -1), most=self._most):
                windows.append(window)
        return windows[:MOST_WINDOWS]

    def _counts(self, windows: Sequence[Window]) -> tuple[Counts, ...]:
        def ask(client: Elasticsearch) -> object:
            return client.msearch(searches=searches(windows)).body

        return counts(cast("dict[str, object]", self._asked(ask)), windows)

    def _whole(
        self, windows: Sequence[Window], found: Sequence[Counts]
    ) -> tuple[tuple[Window, ...], tuple[Counts, ...]]:
        """The windows of which a search sees every line, with their counts; the others are held for the next look."""
        whole: list[Window] = []
        counted: list[Counts] = []
        for window, count in zip(windows, found, strict=True):
            looks = self._held.get(window.key, (window, 0))[1] + 1
            lacking = window.size - count.total
            if lacking > 0 and looks < PATIENT_LOOKS:
                self._held[window.key] = (window, looks)
                continue
            if lacking > 0:
                self.say(
                    f"{lacking} of {window.size} lines of {window.index} were not seen by a search for {looks} looks; "
                    "counting goes on without them, compare with a count of your own"
                )
            self._held.pop(window.key, None)
            whole.append(window)
            counted.append(count)
        return tuple(whole), tuple(counted)

    def _asked(self, ask: Callable[[Elasticsearch], _T]) -> _T:
        with translated(self.settings):
            if self._client is None:
                self._client = connect(self.settings)
            self.metrics.requests.inc()
            return ask(self._client)

    def _narrow(self) -> None:
        """A search that had not enough time is asked for fewer lines the next time."""
        self._most = max(_LEAST_LINES, self._most // 4)
        self._held.clear()

    def _failed(self, sentence: str) -> None:
        self.metrics.failed()
        self._drop_client()  # the next one reads the login's file again
        if sentence != self._trouble:
            self._trouble = sentence
            self.say(sentence)

    def _well(self) -> None:
        self._most = min(MOST_LINES, self._most * 2)
        self.metrics.well()
        if self._trouble:
            self._trouble = ""
            self.say(
                f"the lines of {self.stream} are counted again; what came meanwhile is counted too"
            )

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
