"""The ordinary line, straight to bytes: what the encoder would make of it, at a fraction of its price.

Ordinary is an event without an exception whose keys and values stand in the line as they are: numbers, words, short
texts in which nothing is hidden, spelled out or cut. What was seen to be so is remembered, what is not so goes
through the encoder.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec
from opentelemetry import trace

from taskscope.context import RequestContext, current_request
from taskscope.logs.ecs import LINE_BYTES, EcsEncoder, timestamp
from taskscope.logs.fields import ECS_VERSION, FIELDS, OWN, FieldType

__all__ = ["MOST_KEPT", "PlainLines"]

MOST_KEPT: Final = 4096
"""The most texts, and of keys, that are remembered."""

_KEPT_CHARS: Final = 64
_MOST_FIELDS: Final = 64
# Above, a number may be long enough for what is hidden in one.
_SMALL: Final = 10**9
_BILLION: Final = 1_000_000_000
_NOT_LABELS: Final = frozenset({"event", "exc_info"})
_SPANS: Final = "opentelemetry.sdk.trace"


class PlainLines:
    """Makes the ordinary lines of one service. Safe for threads: what is remembered is only ever found or not.

    pid: of the process that logs; `forked` tells the child's.
    """

    __slots__ = (
        "_encode",
        "_encoder",
        "_labels",
        "_now",
        "_quoted",
        "_rest",
        "_second",
        "_small",
        "_texts",
    )

    def __init__(self, encoder: EcsEncoder, *, pid: int) -> None:
        self._encoder = encoder
        self._now = encoder.now
        self._encode = msgspec.json.Encoder().encode
        self._second: tuple[int, bytes] = (-1, b"")
        self._labels: set[str] = set()
        self._texts: set[str] = set()
        self._quoted: dict[str, bytes] = {}
        self._rest = b""
        self._small = min(_SMALL, encoder.words.least)
        self.forked(pid)

    def forked(self, pid: int) -> None:
        """Lines tell this process's id; a head that was made before does not."""
        encoder = self._encoder
        same = {
            "ecs.version": ECS_VERSION,
            "service.name": encoder.service_name,
            "service.version": encoder.service_version,
            "service.environment": encoder.environment,
            "service.node.name": encoder.instance,
            "event.dataset": encoder.service_name,
            "process.pid": pid,
        }
        self._rest = self._encode(same)[1:-1]

    def head(self, level: str, logger: str, message: str) -> bytes | None:
        """What all lines of an event have in common; None if the encoder must write them."""
        if not (self._unchanged(message) and self._unchanged(logger)):
            return None
        known = self._encode({"log.level": level, "message": message, "log.logger": logger})
        return b'Z",%b,%b' % (known[1:-1], self._rest)

    def line(
        self, head: bytes, fields: dict[str, object], created: int | None = None
    ) -> bytes | None:
        """One line of JSON with its line break; None if the encoder must write it. created: nanoseconds."""
        request = current_request.get()
        who = b"" if request is None and _SPANS not in sys.modules else self._who(request, fields)
        if who is None:
            return None
        above = b""
        if not self._labels.issuperset(fields):
            split = self._split(fields)
            if split is None:
                return None
            above, fields = split
        if not self._all_plain(fields):
            return None
        nanoseconds = self._now() if created is None else created
        at = self._second
        if nanoseconds // _BILLION != at[0]:
            at = self._begun(nanoseconds)
        line = b'{"@timestamp":"%b.%06d%b%b%b%b}\n' % (
            at[1],
            nanoseconds // 1000 % 1_000_000,
            head,
            who,
            above,
            b',"labels":%b' % self._encode(fields) if fields else b"",
        )
        return line if len(line) <= LINE_BYTES else None

    def _all_plain(self, fields: dict[str, object]) -> bool:
        texts, small = self._texts, self._small
        for value in fields.values():
            kind = type(value)
            if kind is str:
                if value not in texts and not self._unchanged(value):  # type: ignore[arg-type] # it is a text
                    return False
            elif kind is int:
                if not -small < value < small:  # type: ignore[operator] # it is an integer
                    return False
            elif kind is float:
                if value - value != 0.0:  # type: ignore[operator] # infinite, or no number
                    return False
            elif kind is not bool and value is not None:
                return False
        return True

    def _begun(self, nanoseconds: int) -> tuple[int, bytes]:
        self._second = at = (nanoseconds // _BILLION, timestamp(nanoseconds)[:19].encode())
        return at

    def _unchanged(self, text: str) -> bool:
        """Whether the text stands in a line as it is."""
        if text in self._texts:
            return True
        if not self._encoder.keeps(text):
            return False
        if len(text) <= _KEPT_CHARS:
            if len(self._texts) >= MOST_KEPT:
                self._texts.clear()
            self._texts.add(text)
        return True

    def _split(self, fields: dict[str, object]) -> tuple[bytes, dict[str, object]] | None:
        """The fields that stand at the top of the line, as JSON, and those that stand under `labels`."""
        if len(fields) > _MOST_FIELDS:
            return None
        known, small = self._labels, self._small
        labels: dict[str, object] = {}
        above = b""
        for key, value in fields.items():
            if key in known or self._is_label(key):
                labels[key] = value
                continue
            kind = FIELDS.get(key) if key not in OWN else None
            if kind is FieldType.KEYWORD and type(value) is str and self._unchanged(value):
                above += b",%b:%b" % (self._encode(key), self._encode(value))
            elif kind is FieldType.LONG and type(value) is int and -small < value < small:
                above += b",%b:%d" % (self._encode(key), value)
            else:
                return None
        return above, labels

    def _is_label(self, key: str) -> bool:
        """Whether the key stands under `labels` as it is, and hides no value."""
        if len(key) > _KEPT_CHARS or key in _NOT_LABELS or not self._encoder.labels(key):
            return False
        if len(self._labels) >= MOST_KEPT:
            self._labels.clear()
        self._labels.add(key)
        return True

    def _who(self, request: RequestContext | None, fields: dict[str, object]) -> bytes | None:
        """The trace, the request, its route and user, or None if one of them is not plain."""
        span = trace.get_current_span() if _SPANS in sys.modules else trace.INVALID_SPAN
        context = span.get_span_context() if span is not trace.INVALID_SPAN else None
        text = b""
        if context is not None and context.is_valid:
            text = b',"trace.id":"%032x","span.id":"%016x"' % (context.trace_id, context.span_id)
        elif request is not None and request.trace_id is not None:
            text = b',"trace.id":"%b"' % request.trace_id.encode()
            if request.span_id is not None:
                text += b',"span.id":"%b"' % request.span_id.encode()
        if request is None:
            return text
        if request.user is not None:
            text += b',"user.hash":"%b"' % request.user.encode()
        request_id, method, _, own_id, _ = request.asked()
        if own_id is not None:
            if not self._unchanged(own_id):
                return None
            fields["client_request_id"] = own_id
        asked, route = self._quoted.get(method) or self._quote(method), request.known_route()
        template = b"" if route is None else self._quoted.get(route) or self._quote(route)
        if asked is None or template is None:
            return None
        return b'%b,"http.request.id":"%b","http.request.method":%b%b%b' % (
            text,
            request_id.encode(),
            asked,
            b',"http.route":' if template else b"",
            template,
        )

    def _quote(self, text: str) -> bytes | None:
        if not self._unchanged(text):
            return None
        if len(self._quoted) >= MOST_KEPT:
            self._quoted.clear()
        self._quoted[text] = found = self._encode(text)
        return found
