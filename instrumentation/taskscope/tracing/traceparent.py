"""The caller's word about its trace: `traceparent` and `tracestate`, read strictly and in bounded time.

W3C Trace Context, level 2. What is not well formed is as if it had not been sent, and is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

__all__ = ["LONGEST_PARENT", "LONGEST_STATE", "RANDOM", "SAMPLED", "Remote", "remote_of"]

LONGEST_PARENT: Final = 256
"""A `traceparent` of more bytes is not looked at; version 00 has 55."""
LONGEST_STATE: Final = 512
"""A `tracestate` of more bytes, its lines together, is dropped: the standard asks for no more."""
SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""The bits of the trace flags that are understood; others are not passed on."""

_MOST_MEMBERS: Final = 32
_LENGTH_00: Final = 55
_PARENT: Final = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?:-[!-~]*)?"
)
_MEMBER: Final = re.compile(
    r"((?:[a-z][a-z0-9_*/-]{0,255})|(?:[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}))"
    r"=([ -+\--<>-~]{0,255}[!-+\--<>-~])"
)


class Remote(NamedTuple):
    """The span of the caller. trace_id, span_id: 32 and 16 lower-case hexadecimal digits, not all zero."""

    trace_id: str
    span_id: str
    flags: int
    state: tuple[tuple[str, str], ...] = ()

    def context(self) -> SpanContext:
        """The same for OpenTelemetry."""
        return SpanContext(
            int(self.trace_id, 16),
            int(self.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(self.flags),
            trace_state=TraceState(list(self.state)) if self.state else None,
        )


def remote_of(headers: Collection[tuple[bytes, bytes]]) -> Remote | None:
    """The caller's span as an ASGI request's headers tell it; None if they do not, or not well."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"traceparent":
            if found is not None:  # two of them are none
                return None
            found = value
    remote = _parent(found) if found is not None else None
    if remote is None:
        return None
    state = [value for name, value in headers if name == b"tracestate"]
    return remote._replace(state=_state(state)) if state else remote


def _parent(text: bytes) -> Remote | None:
    match = _PARENT.fullmatch(text) if len(text) <= LONGEST_PARENT else None
    if match is None:
        return None
    version, trace_id, span_id, flags = match.group("version", "trace", "span", "flags")
    if version == b"ff" or (version == b"00" and len(text) != _LENGTH_00):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    known = int(flags, 16) & (SAMPLED | RANDOM)
    return Remote(trace_id.decode("ascii"), span_id.decode("ascii"), known)


def _state(lines: list[bytes]) -> tuple[tuple[str, str], ...]:
    if sum(map(len, lines)) > LONGEST_STATE:
        return ()
    texts = [part.strip(" \t") for part in b",".join(lines).decode("latin-1").split(",")]
    members = [_MEMBER.fullmatch(text) for text in texts if text]
    pairs = tuple([(match[1], match[2]) for match in members if match is not None])
    sound = len(pairs) == len(members) <= _MOST_MEMBERS and len(dict(pairs)) == len(pairs)
    return pairs if sound else ()
