"""What a scrape gets: the rendered series, shared by scrapes that come within a second of each other.

Thread-safe and without an event loop, so that the app's own `/metrics` and the admin port give one answer.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic, perf_counter
from typing import Final

from taskscope.catalogue.builtin import SCRAPE_DURATION, SCRAPE_SIZE
from taskscope.metrics.instruments import Instruments

__all__ = ["CLASSIC", "OPENMETRICS", "Format", "Scrapes", "formatted", "gzips"]

_SHARED_S: Final = 1.0
_GOOD_S: Final = 10.0
_HEADER_BYTES: Final = 1024
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Format:
    """One of the two texts that Prometheus reads."""

    openmetrics: bool
    content_type: str


CLASSIC: Final = Format(False, "text/plain; version=0.0.4; charset=utf-8")
OPENMETRICS: Final = Format(True, "application/openmetrics-text; version=1.0.0; charset=utf-8")


@dataclass(slots=True)
class _Kept:
    lock: Lock = field(default_factory=Lock)
    made_at: float = 0.0
    body: bytes | None = None
    zipped: bytes | None = None


class Scrapes:
    """Answers of one registry, each kept for a second.

    render: makes the whole exposition of a format; takes as long as it takes, in the caller's thread.
    A rendering that fails is counted, and the last good answer is given while it is at most 10 s old.
    """

    def __init__(
        self,
        render: Callable[[bool], bytes],
        instruments: Instruments,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._render = render
        self._now = now
        self._failed = instruments.failed
        self._duration = instruments.histogram(SCRAPE_DURATION)
        self._size = instruments.gauge(SCRAPE_SIZE)
        self._kept = {CLASSIC: _Kept(), OPENMETRICS: _Kept()}

    def fresh(self, wanted: Format, *, zipped: bool) -> bytes | None:
        """The answer that was made within the last second; None if there is none."""
        kept = self._kept[wanted]
        if kept.body is None or self._now() - kept.made_at >= _SHARED_S:
            return None
        return kept.zipped if zipped else kept.body

    def answer(self, wanted: Format, *, zipped: bool) -> bytes:
        """The answer, made anew if the last one is older than a second. Raises what the rendering raised."""
        kept = self._kept[wanted]
        with kept.lock:
            if kept.body is None or self._now() - kept.made_at >= _SHARED_S:
                self._renew(kept, wanted)
            if zipped and kept.zipped is None:
                kept.zipped = gzip.compress(kept.body or b"", _GZIP_LEVEL, mtime=0)
            return (kept.zipped if zipped else kept.body) or b""

    def _renew(self, kept: _Kept, wanted: Format) -> None:
        began, started = self._now(), perf_counter()
        try:
            body = self._render(wanted.openmetrics)
        except Exception as error:
            self._failed("exposition", error)
            if kept.body is None or began - kept.made_at >= _GOOD_S:
                raise
            return
        kept.body, kept.zipped, kept.made_at = body, None, began  # as old as what it tells
        try:
            self._duration.observe(perf_counter() - started)
            self._size.set(len(body))
        except Exception as error:  # noqa: BLE001 - what measures the scrape never fails it
            self._failed("exposition", error)


def formatted(accept: str) -> Format:
    """What an Accept header asks for: OpenMetrics where it is named and not ranked below the classic text.

    Versions and escapings in it are the caller's words: all names are within the legacy character set.
    """
    ranks = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept[:_HEADER_BYTES].split(","):
        kind, _, parameters = part.partition(";")
        kind = kind.strip().lower()
        if kind in ranks:
            ranks[kind] = max(ranks[kind], _quality(parameters))
    asked = ranks["application/openmetrics-text"]
    return OPENMETRICS if asked > 0 and asked >= ranks["text/plain"] else CLASSIC


def gzips(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for part in accept_encoding[:_HEADER_BYTES].split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return _quality(parameters) > 0
    return False


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(text), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
