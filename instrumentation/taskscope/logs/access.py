"""The access line: what the chain would make of a request that was served, straight to bytes.

Each request has one, so it must cost little: what is the same in all of them is written down once, what comes
again (routes, paths, addresses) is kept as text, what a caller may choose goes through the chain's own functions,
and the rest is filled in. A line that is not plain goes through the chain: an exception came out, code bound
values of its own to the context, or something is so long that it is cut.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from opentelemetry import trace
from structlog.contextvars import get_contextvars

from taskscope.catalogue.builtin import OUTCOMES, UNMATCHED_ROUTE
from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.logs.ecs import LINE_BYTES, quoted, timestamp
from taskscope.logs.fields import ECS_VERSION
from taskscope.logs.pipeline import LogPipeline
from taskscope.logs.spool import Written

__all__ = ["MOST_KEPT", "AccessLines"]

MOST_KEPT: Final = 2048
"""The most answers (method, route, status), paths and addresses, of each, that are kept as text."""

_LOGGER: Final = "taskscope.access"
_MESSAGE: Final = "request served"
_FAILED: Final = frozenset({"server_error", "timeout"})
_WELL: Final = "ok"
_GOOD: Final = frozenset({"ok", "client_error"})
_KEPT_CHARS: Final = 128
_STORED: Final = Written.STORED
_BILLION: Final = 1_000_000_000
_ID: Final = b"x-request-id"
# Only its spans may still be open around a request that has ended; to look for one costs a tenth of the line.
_SPANS: Final = "opentelemetry.sdk.trace"

# structlog keeps a variable for each name that was ever bound: without any there is nothing to merge. The name is
# private: where it is gone, the context is searched for each line.
_BOUND: Final[object] = getattr(structlog.contextvars, "_CONTEXT_VARS", {"": None})


class AccessLines:
    """Writes the access lines of one application through its pipeline."""

    def __init__(self, pipeline: LogPipeline) -> None:
        self._pipeline = pipeline
        self._spool = pipeline.spool
        self._encoder = pipeline.encoder
        self._now = pipeline.encoder.now
        self._direct = pipeline.direct
        self._store = pipeline.spool.write
        self._stored = pipeline.counting("info")
        self._second = (-1, "")
        self._begun = (-1, b"")
        self._pid = 0
        self._constant = ("", "")
        self._answers: dict[tuple[str, str, int], str] = {}
        self._paths: dict[str, str] = {}
        self._clients: dict[str | None, str] = {None: ',"event.duration":'}
        self._usual = b""
        self._asked: dict[str, bytes] = {}
        self._callers: dict[str | None, bytes] = {}

    def write(self, request: RequestContext, ended: Ended) -> None:
        """One line says how the request ended: stored in the spool, or counted as dropped. Never raises."""
        failed = ended.outcome in _FAILED
        if self._pipeline.level > (logging.ERROR if failed else logging.INFO):
            return
        try:
            if not self._pipeline.sample.keeps(request, ended):
                self._pipeline.left_out("sample", "info")
                return
            line = None if failed and ended.failure is not None else self._line(request, ended)
            if line is None or len(line) > LINE_BYTES:
                self._through_chain(request, ended, failed)
                return
        except Exception as error:  # noqa: BLE001 # logging must not fail the request it tells of
            self._pipeline.unencoded(error, "error" if failed else "info")
            return
        self._pipeline.put(line, "error" if failed else "info")

    def text_of(self, method: str, route: str, status: int) -> bytes:
        """What each line of such an answer says of it, up to the body's bytes; empty where only `write` can tell."""
        return self._answer(method, route, status).encode()

    def served(  # noqa: C901 - a frame costs as much as a step
        self,
        request: RequestContext | None,
        request_id: bytes,
        scope: Mapping[str, Any],
        text: bytes,
        seconds: float,
        body_bytes: int,
    ) -> bool:
        """As `write`, of a request that was answered well, at less cost; false if only `write` can tell.

        request: if anybody has asked for it; it bears the trace and the user. text: as by `text_of`, not empty.
        Never raises.
        """
        pipeline = self._pipeline
        if pipeline.level > logging.INFO:
            return True
        try:
            if pipeline.sample.share < 1.0 or (_BOUND and get_contextvars()):
                return False
            for name, _ in scope["headers"]:
                if name == _ID:
                    return False
            caller, asked_path = scope.get("client"), scope["path"]
            path = self._asked.get(asked_path) or self._ask(asked_path)
            client = self._callers.get(caller[0] if caller else None) or self._call(caller)
            if not (path and client):
                return False
            if self._pid != self._spool.pid:
                self._write_down(self._spool.pid)
            who = b""
            if request is not None or _SPANS in sys.modules:
                who = _who(request).encode()
            now = self._now()
            second, begun = self._begun
            if now // _BILLION != second:
                begun = timestamp(now)[:19].encode()
                self._begun = (now // _BILLION, begun)
            line = _LINE % (
                begun,
                now // 1000 % 1_000_000,
                self._usual,
                who,
                request_id,
                text,
                body_bytes,
                path,
                client,
                int(seconds * 1e9),
            )
        except Exception as error:  # noqa: BLE001 # logging must not fail the request it tells of
            pipeline.unencoded(error)
            return True
        if len(line) > LINE_BYTES:
            return False
        if not self._direct:
            pipeline.put(line, "info")
            return True
        try:  # as `put`, in fewer frames
            written = self._store(line)
            if written is not _STORED:
                pipeline.unwritten(written, "info")
                return True
            self._stored()
        except Exception as error:  # noqa: BLE001 # as above
            pipeline.failed(error)
        return True

    def _ask(self, path: str) -> bytes:
        quoted_path = self._path(path)
        text = f',"url.path":{quoted_path}'.encode() if quoted_path else b""
        if text and len(path) <= _KEPT_CHARS:
            if len(self._asked) >= MOST_KEPT:
                self._asked = {}
            self._asked[path] = text
        return text

    def _call(self, caller: Sequence[Any] | None) -> bytes:
        address = caller[0] if caller else None
        text = (self._clients.get(address) or self._client(address)).encode()
        if text and (address is None or len(address) <= _KEPT_CHARS):
            if len(self._callers) >= MOST_KEPT:
                self._callers = {}
            self._callers[address] = text
        return text

    def _line(self, request: RequestContext, ended: Ended) -> bytes | None:
        """The line, or None if only the chain can write it."""
        if _BOUND and get_contextvars():
            return None
        request_id, method, asked_path, own_id, address = request.asked()
        asked = (method, request.route or UNMATCHED_ROUTE, ended.status)
        answer = self._answers.get(asked) or self._answer(*asked)
        path = self._paths.get(asked_path) or self._path(asked_path)
        client = self._clients.get(address) or self._client(address)
        end = _ENDS.get(ended.outcome, "")
        if end and own_id is not None:
            end = self._with_id(own_id, end)
        if not (answer and path and client and end):
            return None
        if self._pid != self._spool.pid:
            self._write_down(self._spool.pid)
        seconds, rest = divmod(self._now(), 1_000_000_000)
        at, text = self._second
        if seconds != at:
            text = timestamp(seconds * 1_000_000_000)[:19]
            self._second = (seconds, text)
        known = request.trace_id or request.user or _SPANS in sys.modules
        if ended.outcome == _WELL and self._pipeline.sample.text:
            end = self._pipeline.sample.weighed(request, ended.seconds) + end
        return (
            f'{{"@timestamp":"{text}.{rest // 1000:06d}Z{self._constant[ended.outcome in _FAILED]}'
            f'{_who(request) if known else ""}"http.request.id":"{request_id}"{answer}'
            f'{ended.body_bytes},"url.path":{path}{client}{int(ended.seconds * 1e9)}{end}'
        ).encode()

    def _write_down(self, pid: int) -> None:
        encoder = self._encoder
        same = {
            "message": _MESSAGE,
            "ecs.version": ECS_VERSION,
            "log.logger": _LOGGER,
            "service.name": encoder.service_name,
            "service.version": encoder.service_version,
            "service.environment": encoder.environment,
            "service.node.name": encoder.instance,
            "event.dataset": encoder.service_name,
            "process.pid": pid,
        }
        rest = msgspec.json.encode(same).decode()[1:-1]
        self._constant = (f'","log.level":"info",{rest},', f'","log.level":"error",{rest},')
        self._usual = self._constant[0].encode()
        self._pid = pid

    def _answer(self, method: str, route: str, status: int) -> str:
        """What was asked, the answer's status, and up to its bytes; empty if something was cut off."""
        asked, template = self._quoted(method), self._quoted(route)
        if not asked or not template:
            return ""
        text = (
            f',"http.request.method":{asked},"http.route":{template}'
            f',"http.response.status_code":{status},"http.response.body.bytes":'
        )
        if len(self._answers) >= MOST_KEPT:
            self._answers = {}
        self._answers[method, route, status] = text
        return text

    def _path(self, path: str) -> str:
        text = self._quoted(path)
        if text and len(path) <= _KEPT_CHARS:
            if len(self._paths) >= MOST_KEPT:
                self._paths = {}
            self._paths[path] = text
        return text

    def _client(self, address: str | None) -> str:
        """The caller's address, if there is one, and up to the duration; empty if something was cut off."""
        quoted_address = self._quoted(address or "")
        if not quoted_address:
            return ""
        text = f',"client.address":{quoted_address},"event.duration":'
        if address is not None and len(address) <= _KEPT_CHARS:
            if len(self._clients) >= MOST_KEPT:
                self._clients = {None: self._clients[None]}
            self._clients[address] = text
        return text

    def _with_id(self, client_request_id: str, end: str) -> str:
        text = self._quoted(client_request_id)
        before, opening, after = end.partition("{")
        return f'{before}{opening}"client_request_id":{text},{after}' if text else ""

    def _quoted(self, text: str) -> str:
        """The text as JSON, made safe as every value of a line is; empty if it was cut off."""
        shown, cut = quoted(text, self._encoder.words)
        return "" if cut else shown

    def _through_chain(self, request: RequestContext, ended: Ended, failed: bool) -> None:
        event: dict[str, object] = {
            "event": _MESSAGE,
            "http.request.method": request.method,
            "http.response.status_code": ended.status,
            "http.route": request.route or UNMATCHED_ROUTE,
            "http.response.body.bytes": ended.body_bytes,
            "url.path": request.path,
            "event.duration": int(ended.seconds * 1e9),
            "event.outcome": "success" if ended.outcome in _GOOD else "failure",
            "outcome": ended.outcome,
        }
        if request.client_address is not None:
            event["client.address"] = request.client_address
        weight = self._pipeline.sample.weight(request, ended)
        if weight != 1.0:
            event["sample.weight"] = weight
        for name, bound in get_contextvars().items():
            event.setdefault(name, bound)
        failure = ended.failure if failed else None
        self._pipeline.emit(
            event,
            level="error" if failed else "info",
            logger=_LOGGER,
            exc_info=None if failure is None else (type(failure), failure, failure.__traceback__),
        )


def _end(outcome: str) -> str:
    word = "success" if outcome in _GOOD else "failure"
    return f',"event.outcome":"{word}","labels":{{"outcome":"{outcome}"}}}}\n'


_ENDS: Final = {outcome: _end(outcome) for outcome in OUTCOMES}
_LINE: Final = b'{"@timestamp":"%b.%06dZ%b%b"http.request.id":"%b"%b%d%b%b%d' + _ENDS["ok"].encode()
"""The line of a request that was answered well."""


def _who(request: RequestContext | None) -> str:
    """The trace, of an enclosing span if one is open still, and the user."""
    text = ""
    span = trace.get_current_span()
    context = span.get_span_context() if span is not trace.INVALID_SPAN else None
    if context is not None and context.is_valid:
        text = f'"trace.id":"{context.trace_id:032x}","span.id":"{context.span_id:016x}",'
    elif request is not None and request.trace_id is not None:
        text = f'"trace.id":"{request.trace_id}",'
        if request.span_id is not None:
            text += f'"span.id":"{request.span_id}",'
    return (
        text if request is None or request.user is None else f'{text}"user.hash":"{request.user}",'
    )
