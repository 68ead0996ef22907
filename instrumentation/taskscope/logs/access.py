"""The access line: what the chain would make of a request that was served, straight to bytes.

Each request has one, so it must cost little: what is the same in all of them is written down once, what a caller
may choose (path, address, id) goes through the chain's own functions, and the rest is filled in. A line that is
not plain, because an exception came out, because code bound values of its own to the context, or because it would
be too long, goes through the chain.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec
import structlog
from opentelemetry import trace

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import RequestContext
from taskscope.ended import Ended
from taskscope.logs.ecs import LINE_BYTES, quoted, timestamp
from taskscope.logs.fields import ECS_VERSION
from taskscope.logs.pipeline import LogPipeline

__all__ = ["AccessLines"]

_LOGGER: Final = "taskscope.access"
_MESSAGE: Final = "request served"
_FAILED: Final = frozenset({"server_error", "timeout"})
_GOOD: Final = frozenset({"ok", "client_error"})
_MOST_KEPT: Final = 4096
"""The most answers (method, route, status) that are kept as text; then they are made anew."""
_TRUNCATED: Final = ',"truncated":true'

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
        self._redact = pipeline.encoder.redact
        self._informs = pipeline.level <= logging.INFO
        self._fails = pipeline.level <= logging.ERROR
        self._second = (-1, "")
        self._pid = 0
        self._constant = ("", "")
        self._answers: dict[tuple[str, str, int], tuple[str, bool]] = {}

    def write(self, request: RequestContext, ended: Ended) -> None:
        """One line says how the request ended: stored in the spool, or counted as dropped. Never raises."""
        failed = ended.outcome in _FAILED
        if not (self._fails if failed else self._informs):
            return
        try:
            line = self._line(request, ended, failed)
            if line is None or len(line) > LINE_BYTES:
                self._through_chain(request, ended, failed)
                return
        except Exception as error:  # noqa: BLE001 # logging must not fail the request it tells of
            self._pipeline.unencoded(error)
            return
        self._pipeline.put(line, "error" if failed else "info")

    def _line(self, request: RequestContext, ended: Ended, failed: bool) -> bytes | None:
        """The line, or None if only the chain can write it."""
        if failed and ended.failure is not None:
            return None
        if _BOUND and structlog.contextvars.get_contextvars():
            return None
        asked = (request.method, request.route or UNMATCHED_ROUTE, ended.status)
        answer = self._answers.get(asked) or self._answer(*asked)
        path, cut = quoted(request.path, self._redact)
        cut = cut or answer[1]
        whose = labelled = ""
        client = request.client_address
        if client is not None:
            address, shortened = quoted(client, self._redact)
            whose = f'"client.address":{address},'
            cut = cut or shortened
        own_id = request.client_request_id
        if own_id is not None:
            text, shortened = quoted(own_id, self._redact, keep=False)
            labelled = f'"client_request_id":{text},'
            cut = cut or shortened
        user = "" if request.user is None else f'"user.hash":"{request.user}",'
        outcome = ended.outcome
        return (
            f"{self._beginning(failed)}{_trace(request)}{user}"
            f'"http.request.id":"{request.request_id}",{answer[0]},'
            f'"http.response.body.bytes":{ended.body_bytes},"url.path":{path},{whose}'
            f'"event.duration":{int(ended.seconds * 1e9)},'
            f'"event.outcome":"{"success" if outcome in _GOOD else "failure"}",'
            f'"labels":{{{labelled}"outcome":"{outcome}"{_TRUNCATED if cut else ""}}}}}\n'
        ).encode()

    def _beginning(self, failed: bool) -> str:
        """From the brace to what differs between requests: when, and who writes."""
        if self._pid != self._spool.pid:
            self._write_down(self._spool.pid)
        seconds, rest = divmod(self._now(), 1_000_000_000)
        known, text = self._second
        if seconds != known:
            text = timestamp(seconds * 1_000_000_000)[:19]
            self._second = (seconds, text)
        return f'{{"@timestamp":"{text}.{rest // 1000:06d}Z"{self._constant[failed]}'

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
        self._constant = (
            f',"log.level":"info",{rest},',
            f',"log.level":"error",{rest},',
        )
        self._pid = pid

    def _answer(self, method: str, route: str, status: int) -> tuple[str, bool]:
        """What was asked and the answer's status, as text; whether something was cut off."""
        asked, shortened = quoted(method, self._redact)
        template, cut = quoted(route, self._redact)
        text = (
            f'"http.request.method":{asked},"http.route":{template},'
            f'"http.response.status_code":{status}'
        )
        if len(self._answers) >= _MOST_KEPT:
            self._answers = {}
        self._answers[method, route, status] = answer = (text, cut or shortened)
        return answer

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
        for name, bound in structlog.contextvars.get_contextvars().items():
            event.setdefault(name, bound)
        failure = ended.failure if failed else None
        self._pipeline.emit(
            event,
            level="error" if failed else "info",
            logger=_LOGGER,
            exc_info=None if failure is None else (type(failure), failure, failure.__traceback__),
        )


def _trace(request: RequestContext) -> str:
    span = trace.get_current_span()
    if span is not trace.INVALID_SPAN:
        context = span.get_span_context()
        if context.is_valid:
            return f'"trace.id":"{context.trace_id:032x}","span.id":"{context.span_id:016x}",'
    if request.trace_id is None:
        return ""
    if request.span_id is None:
        return f'"trace.id":"{request.trace_id}",'
    return f'"trace.id":"{request.trace_id}","span.id":"{request.span_id}",'
