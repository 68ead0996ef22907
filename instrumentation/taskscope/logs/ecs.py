"""An event as one line of JSON in Elastic Common Schema: safe, bounded, without secrets.

Whatever a call logs, the result is one line that parses back, at most LINE_BYTES long with its line break,
and only the names of `fields.FIELDS` stand at the top; all other keys stand under `labels`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import islice
from typing import Final, TypeAlias

import msgspec
from opentelemetry import trace

from taskscope.context import current_request
from taskscope.logs.exceptions import ExcInfo, Teller, frames_of, said, stack_of
from taskscope.logs.fields import ECS_VERSION, FIELDS, OWN, FieldType
from taskscope.logs.text import cut, visible
from taskscope.redaction import DEFAULT, FIRST_CARD, REDACTED, Plain, Redaction, Walk

__all__ = ["FIELD_BYTES", "LINE_BYTES", "EcsEncoder", "ExcInfo", "quoted", "timestamp"]

FIELD_BYTES: Final = 2048
"""The most bytes of one value that a call gave."""
LINE_BYTES: Final = 32 * 1024
"""The most bytes of one line, its line break included."""

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

    redact: what is hidden; True for the default, False for nothing. now: nanoseconds since 1970.
    variables: whether the frames of an exception tell their local variables.
    """

    service_name: str
    service_version: str
    environment: str
    instance: str
    redact: Redaction | bool = True
    now: Callable[[], int] = time.time_ns
    variables: bool = False
    words: _Words = field(init=False)
    _json: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)

    def __post_init__(self) -> None:
        redaction = DEFAULT if self.redact is True else self.redact or None
        object.__setattr__(self, "words", _Words(redaction))
        for name in ("service_name", "service_version", "environment", "instance"):
            # What the operating system hands over may hold halves of surrogates, which no line can.
            object.__setattr__(self, name, _shown(getattr(self, name)))

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
        walk = _SafeWalk(self.words)
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
            self._describe(document, exc_info, walk)
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

    def keeps(self, text: str) -> bool:
        """Whether a value's text stands in a line as it is: nothing in it is hidden, spelled out or cut."""
        return _safe(text, self.words.text, FIELD_BYTES) == (text, False)

    def labels(self, key: str) -> bool:
        """Whether a key stands under `labels` as it is, and its value is no secret by that name."""
        return len(key) <= _CONSTANT_CHARS and self.words.planned(key) == (None, key, False)

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

    def _describe(self, document: Document, exc_info: ExcInfo, walk: _SafeWalk) -> None:
        kind, error, _ = exc_info
        document["error.type"] = walk.text(f"{kind.__module__}.{kind.__qualname__}")
        document["error.message"] = walk.message(said(error))
        document["error.stack_trace"] = walk.stack(stack_of(exc_info))
        local = _SafeWalk(self.words).local if self.variables else None
        document["error.frames"] = frames_of(exc_info, Teller(text=walk.text, local=local))

    def _shortened(self, document: Document, labels: Document) -> bytes:
        """The same line within LINE_BYTES: first without the labels that do not fit, then with short texts."""
        document["labels"] = self._fitting(labels)
        line = self._json.encode(document) + b"\n"
        if len(line) <= LINE_BYTES:
            return line
        _cut_all(document, FIELD_BYTES)
        line = self._json.encode(document) + b"\n"
        if len(line) <= LINE_BYTES:
            return line
        document.pop("error.frames", None)
        _cut_all(document, _SHORT_BYTES)
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


class _Words:
    """What one redaction makes of texts, with those kept that come again and again."""

    __slots__ = ("cleaned", "common", "least", "planned", "secret", "text")

    def __init__(self, redaction: Redaction | None) -> None:
        self.text = _same if redaction is None else redaction.text
        self.secret = _nothing_secret if redaction is None else redaction.secret
        self.common = redaction is None or redaction.common
        self.least = FIRST_CARD if redaction is None else redaction.least
        self.cleaned = lru_cache(maxsize=2048)(partial(_cleaned, self.text))
        self.planned = lru_cache(maxsize=2048)(partial(_planned, self.cleaned, self.secret))


class _SafeWalk(Walk):
    """A walk that also spells out control characters and cuts every text."""

    __slots__ = ("_words",)

    def __init__(self, words: _Words) -> None:
        self._words = words
        super().__init__(text=self.text, secret=words.secret, least=words.least)

    def text(self, text: str) -> str:
        """A value's text: redacted, on one line, at most FIELD_BYTES."""
        if len(text) <= _WORD_CHARS and self._words.common and _WORD.fullmatch(text):
            return text
        return self._cut(text, FIELD_BYTES)

    def constant(self, text: str) -> str:
        """The same for a text that comes again and again, such as a logger's name."""
        return self._words.cleaned(text) if len(text) <= _CONSTANT_CHARS else self.text(text)

    def message(self, value: object) -> str:
        """What a line says; its text is a constant as a rule, and may be longer than a value."""
        if type(value) is str:
            if len(value) <= _CONSTANT_CHARS:
                return self._words.cleaned(value)
            return self._cut(value, _MESSAGE_BYTES)
        plain = self.value(value)
        return plain if isinstance(plain, str) else str(plain)

    def field(self, key: object, value: object) -> tuple[FieldType | None, str, Plain]:
        """A value that a call gave under a key: the field it may fill, its name under `labels`, its plain copy."""
        if type(key) is str and len(key) <= _CONSTANT_CHARS:
            known, name, secret = self._words.planned(key)
        else:
            known, name = None, self.key(key) or "_"
            secret = self._words.secret(name)
        if known is FieldType.LONG and type(value) is int and -_INT64 <= value < _INT64:
            return known, name, value  # nanoseconds and bytes may look like a card's number
        if secret and value is not None and not isinstance(value, bool):
            return known, name, REDACTED
        return known, name, self.value(value)

    def local(self, name: str, value: object) -> Plain:
        """A variable's plain copy, by its name."""
        return self.field(name, value)[2]

    def stack(self, text: str) -> str:
        """A stack trace: redacted, with its line breaks, both ends kept."""
        if len(text) <= _STACK_CHARS:
            return visible(self._words.text(text), lines=True)
        self.truncated = True
        return visible(_two_ends(text, self._words.text), lines=True)

    def _cut(self, text: str, limit: int) -> str:
        short, truncated = _safe(text, self._words.text, limit)
        self.truncated = self.truncated or truncated
        return short


def _safe(text: str, redact: Callable[[str], str], limit: int) -> tuple[str, bool]:
    if len(text) <= limit + _MARGIN:
        clean = visible(redact(text))
        short = cut(clean, limit)
        return short, short is not clean
    # What redaction made short would let the end be seen, where a secret may be cut in two.
    clean = visible(redact(text[: limit + _MARGIN])[: -_MARGIN // 2])
    return cut(clean, limit), True


def _two_ends(text: str, redact: Callable[[str], str]) -> str:
    """Both ends of a stack trace, redacted before they are cut: the cut may go through a secret."""
    head, tail = _STACK_CHARS // 3, _STACK_CHARS - _STACK_CHARS // 3
    first = redact(text[: head + _MARGIN])[: -_MARGIN // 2][:head]
    last = redact(text[-(tail + _MARGIN) :])
    if len(last) < tail + _MARGIN // 2:
        last = last.partition("\n")[2] if "\n" in last[:_MARGIN] else last[_MARGIN:]
    last = last[-tail:]
    return f"{first}\n[… {len(text) - len(first) - len(last)} characters …]\n{last}"


def quoted(text: str, words: _Words) -> tuple[str, bool]:
    """A value's text as JSON, made safe as every value of a line is, and whether something was cut off."""
    short, truncated = _safe(text, words.text, FIELD_BYTES)
    return msgspec.json.encode(short).decode(), truncated


def _shown(text: str) -> str:
    try:
        return visible(text)
    except Exception:  # noqa: BLE001 # a fault of ours must not keep a service from its start
        return text.encode("ascii", "backslashreplace").decode()


def _cut_all(document: Document, limit: int) -> None:
    for key, value in document.items():
        if isinstance(value, str):
            document[key] = cut(value, limit)


def _cleaned(redact: Callable[[str], str], text: str) -> str:
    return visible(redact(text))


def _planned(
    cleaned: Callable[[str], str], secret: Callable[[str], bool], key: str
) -> tuple[FieldType | None, str, bool]:
    """What a key stands for: the field it may fill, its clean name, whether it names a secret."""
    known = FIELDS.get(key) if key not in OWN else None
    # Elasticsearch refuses an empty key in a flattened field.
    return known, cleaned(key) or "_", secret(key)


def _fits(known: FieldType | None, plain: Plain) -> bool:
    """Whether a plain value may fill the field; if not it stands under `labels`."""
    if known is None:
        return False
    if known is FieldType.LONG:
        return type(plain) is int
    if known is FieldType.DOUBLE:
        return type(plain) in (int, float)
    return type(plain) is str


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-02T03:04:05.678901Z`."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
