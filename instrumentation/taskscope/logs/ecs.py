"""An event as one line of JSON in Elastic Common Schema: safe, bounded, without secrets.

Whatever a call logs, the result is one line that parses back, at most LINE_BYTES long with its line break,
and only the names of `fields.FIELDS` stand at the top; all other keys stand under `labels`.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Final, TypeAlias

import msgspec
from opentelemetry import trace

from taskscope.context import current_request
from taskscope.logs.fields import ECS_VERSION, FIELDS, OWN, FieldType
from taskscope.logs.text import cut, cut_middle, visible
from taskscope.redaction import REDACTED, Plain, Walk, is_secret_key, redact_text

__all__ = ["FIELD_BYTES", "LINE_BYTES", "EcsEncoder", "ExcInfo", "quoted", "timestamp"]

FIELD_BYTES: Final = 2048
"""The most bytes of one value that a call gave."""
LINE_BYTES: Final = 32 * 1024
"""The most bytes of one line, its line break included."""

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
Document: TypeAlias = dict[str, Plain]

_MESSAGE_BYTES: Final = 8 * 1024
_STACK_CHARS: Final = 12 * 1024
_LABELS_BYTES: Final = 12 * 1024
# A call with a key for each of its rows must not hold up the process while every one of them is cleaned.
_MOST_KEYS: Final = 256
# Read this much more before redaction, so that a secret that a cut would halve is still recognised.
_MARGIN: Final = 2048
_SHORT_BYTES: Final = 256
_INT64: Final = 2**63
# Texts that a program holds as constants come again and again; longer ones are not worth keeping.
_CONSTANT_CHARS: Final = 64
# A word without signs, too short for a token, a login or a card's number.
_WORD_CHARS: Final = 12
_WORD: Final = re.compile(r"(?!.*eyJ)[A-Za-z0-9_./\-]*")


def _nothing_secret(_: str) -> bool:
    return False


def _same(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class EcsEncoder:
    """Turns events of one service into lines.

    redact: whether secrets are replaced. now: nanoseconds since 1970.
    """

    service_name: str
    service_version: str
    environment: str
    instance: str
    redact: bool = True
    now: Callable[[], int] = time.time_ns
    _json: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)

    def line(
        self,
        event: Mapping[str, object],
        *,
        level: str,
        logger: str,
        exc_info: ExcInfo | None = None,
        created: int | None = None,
    ) -> bytes:
        """One line of JSON with its line break. `event["event"]` is the message; created: nanoseconds."""
        walk = _SafeWalk(redact=self.redact)
        document: Document = {
            "@timestamp": timestamp(self.now() if created is None else created),
            "log.level": level,
            "message": walk.message(event.get("event")),
            "ecs.version": ECS_VERSION,
            "log.logger": walk.constant(logger),
            "service.name": self.service_name,
            "service.version": self.service_version,
            "service.environment": self.environment,
            "service.node.name": self.instance,
            "event.dataset": self.service_name,
            "process.pid": os.getpid(),
        }
        labels: Document = {}
        self._correlate(document, labels, walk)
        if exc_info is not None:
            _describe(document, exc_info, walk)
        for key, value in islice(event.items(), _MOST_KEYS):
            if key != "event":
                known, name, plain = walk.field(key, value)
                (document if _fits(known, plain) else labels)[name] = plain
        if walk.truncated or len(event) > _MOST_KEYS:
            labels["truncated"] = True
        if labels:
            document["labels"] = labels
        line = self._json.encode(document) + b"\n"
        return line if len(line) <= LINE_BYTES else self._shortened(document, labels)

    def _correlate(self, document: Document, labels: Document, walk: _SafeWalk) -> None:
        request = current_request.get()
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            document["trace.id"] = f"{span.trace_id:032x}"
            document["span.id"] = f"{span.span_id:016x}"
        elif request is not None and request.trace_id is not None:
            document["trace.id"] = request.trace_id
            if request.span_id is not None:
                document["span.id"] = request.span_id
        if request is None:
            return
        if request.user is not None:
            document["user.hash"] = request.user
        document["http.request.id"] = request.request_id
        document["http.request.method"] = walk.constant(request.method)
        route = request.known_route()
        if route is not None:
            document["http.route"] = walk.constant(route)
        if request.client_request_id is not None:
            labels["client_request_id"] = walk.text(request.client_request_id)

    def _shortened(self, document: Document, labels: Document) -> bytes:
        """The same line within LINE_BYTES: first without the labels that do not fit, then with short texts."""
        document["labels"] = self._fitting(labels)
        line = self._json.encode(document) + b"\n"
        if len(line) <= LINE_BYTES:
            return line
        for key, value in document.items():
            if isinstance(value, str):
                document[key] = cut(value, _SHORT_BYTES)
        return self._json.encode(document) + b"\n"

    def _fitting(self, labels: Document) -> Document:
        kept: Document = {"truncated": True}
        room = _LABELS_BYTES
        for key, value in labels.items():
            room -= len(self._json.encode({key: value}))
            if room < 0:
                break
            kept[key] = value
        return kept


class _SafeWalk(Walk):
    """A walk that also spells out control characters and cuts every text."""

    __slots__ = ("_hides", "_redact")

    def __init__(self, *, redact: bool) -> None:
        self._hides = redact
        self._redact = redact_text if redact else _same
        super().__init__(text=self.text, secret=is_secret_key if redact else _nothing_secret)

    def text(self, text: str) -> str:
        """A value's text: redacted, on one line, at most FIELD_BYTES."""
        if len(text) <= _WORD_CHARS and _WORD.fullmatch(text):
            return text
        return self._cut(text, FIELD_BYTES)

    def constant(self, text: str) -> str:
        """The same for a text that comes again and again, such as a logger's name."""
        return _cleaned(text, self._hides) if len(text) <= _CONSTANT_CHARS else self.text(text)

    def message(self, value: object) -> str:
        """What a line says; its text is a constant as a rule, and may be longer than a value."""
        if type(value) is str:
            if len(value) <= _CONSTANT_CHARS:
                return _cleaned(value, self._hides)
            return self._cut(value, _MESSAGE_BYTES)
        plain = self.value(value)
        return plain if isinstance(plain, str) else str(plain)

    def field(self, key: object, value: object) -> tuple[FieldType | None, str, Plain]:
        """A value that a call gave under a key: the field it may fill, its name under `labels`, its plain copy."""
        if type(key) is str and len(key) <= _CONSTANT_CHARS:
            known, name, secret = _planned(key, self._hides)
        else:
            known, name = None, self.key(key) or "_"
            secret = self._hides and is_secret_key(name)
        if known is FieldType.LONG and type(value) is int and -_INT64 <= value < _INT64:
            return known, name, value  # nanoseconds and bytes may look like a card's number
        if secret and value is not None and not isinstance(value, bool):
            return known, name, REDACTED
        return known, name, self.value(value)

    def stack(self, text: str) -> str:
        """A stack trace: redacted, with its line breaks, both ends kept."""
        short = cut_middle(text, _STACK_CHARS)
        self.truncated = self.truncated or short is not text
        return visible(self._redact(short), lines=True)

    def _cut(self, text: str, limit: int) -> str:
        short, truncated = _safe(text, self._redact, limit)
        self.truncated = self.truncated or truncated
        return short


def _safe(text: str, redact: Callable[[str], str], limit: int) -> tuple[str, bool]:
    near = text if len(text) <= limit + _MARGIN else text[: limit + _MARGIN]
    clean = visible(redact(near))
    short = cut(clean, limit)
    return short, short is not clean or near is not text


def quoted(text: str, redact: bool) -> tuple[str, bool]:
    """A value's text as JSON, made safe as every value of a line is, and whether something was cut off."""
    short, truncated = _safe(text, redact_text if redact else _same, FIELD_BYTES)
    return msgspec.json.encode(short).decode(), truncated


@lru_cache(maxsize=2048)
def _cleaned(text: str, redact: bool) -> str:
    return visible(redact_text(text) if redact else text)


@lru_cache(maxsize=2048)
def _planned(key: str, redact: bool) -> tuple[FieldType | None, str, bool]:
    """What a key stands for: the field it may fill, its clean name, whether it names a secret."""
    known = FIELDS.get(key) if key not in OWN else None
    # Elasticsearch refuses an empty key in a flattened field.
    return known, _cleaned(key, redact) or "_", redact and is_secret_key(key)


def _fits(known: FieldType | None, plain: Plain) -> bool:
    """Whether a plain value may fill the field; if not it stands under `labels`."""
    if known is None:
        return False
    if known is FieldType.LONG:
        return type(plain) is int
    return type(plain) is str


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-02T03:04:05.678901Z`."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _describe(document: Document, exc_info: ExcInfo, walk: _SafeWalk) -> None:
    kind, error, trace_back = exc_info
    document["error.type"] = walk.text(f"{kind.__module__}.{kind.__qualname__}")
    document["error.message"] = walk.message(_said(error))
    document["error.stack_trace"] = walk.stack(_stack(kind, error, trace_back))


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 # an exception's own text may fail
        return "[unreadable]"


def _stack(
    kind: type[BaseException], error: BaseException, trace_back: TracebackType | None
) -> str:
    """The frames without local variables: those hold what nobody meant to log."""
    try:
        return "".join(
            traceback.TracebackException(kind, error, trace_back, capture_locals=False).format()
        )
    except Exception:  # noqa: BLE001 # as above
        return "[unreadable]"
