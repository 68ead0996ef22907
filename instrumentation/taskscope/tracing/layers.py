"""The two layers around whatever makes the server span.

The outer one decides, hides from the instrumentation what must not reach a span, and serves the request without a
trace if it is not sampled or if the instrumentation fails. The inner one shows the app the whole request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import attach, detach

from taskscope.catalogue.builtin import UNMATCHED_ROUTE
from taskscope.context import current_request
from taskscope.routing.route import Routed, path_within, route_template
from taskscope.tracing.decider import Decider
from taskscope.tracing.naming import name_span, note_user
from taskscope.tracing.passage import KEY, Passage, entering

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Inside", "Outside"]

OnError = Callable[[str, BaseException | None], None]
Shown = Callable[["Scope"], Mapping[str, object]]

_NATIVE: Final = "fastapi.telemetry"
"""Where FastAPI >= 0.142 keeps its own telemetry of a request; a mounted app that finds the key adds none."""


class Outside:
    """Outside of the instrumentation: one decision per request, and one span at most.

    app: what makes the server span around the application. plain: the application alone.
    shown: what the instrumentation sees of a scope in place of what is there.
    counted: called with the decision about a WebSocket, which is final; an HTTP request's is so at its end.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        traced: ASGIApp,
        plain: ASGIApp,
        excluded: frozenset[str],
        decider: Decider,
        shown: Shown,
        counted: Callable[[Passage], None],
        failed: OnError,
    ) -> None:
        # FastAPI's own telemetry looks down this chain for the instrumentor, and leaves the app to it.
        self.app = app
        self._traced = traced
        self._plain = plain
        self._excluded = excluded
        self._decider = decider
        self._shown = shown
        self._counted = counted
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or path_within(scope) in self._excluded:
            await self._plain(scope, receive, send)
            return
        passage = self._begin(scope)
        if passage is None:
            await self._plain(scope, receive, send)
        elif passage.sampled:
            await self._trace(passage, scope, receive, send)
        else:
            scope[_NATIVE] = None
            token = attach(passage.context())
            try:
                await self._plain(scope, receive, send)
            finally:
                detach(token)

    def _begin(self, scope: Scope) -> Passage | None:
        try:
            if KEY in scope or _NATIVE in scope:
                _note_outer(scope)
                return None
            passage = self._decider.decide(scope)
            scope[KEY] = passage
            if scope["type"] != "http":
                self._counted(passage)
                return passage
            request = current_request.get()
            if request is not None:
                _note(request, passage)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("tracing", error)
            return None
        return passage

    async def _trace(self, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        # Not looked up later: an app within this one may have a request context of its own by then.
        request = current_request.get() if scope["type"] == "http" else None
        passage.request = request
        # Only then is Tracing.on_end called with it.
        passage.holds = request is not None and getattr(request, "scope", None) is scope
        outer = attach(passage.context())
        token = entering.set(passage)
        try:
            if await self._instrumented(passage, scope, receive, send):
                return
            # The request goes on as one that was not sampled.
            passage.sampled = False
            if request is not None:
                request.sampled = False
            scope[_NATIVE] = None
            await self._plain(scope, receive, send)
        finally:
            passage.request = None  # it holds the scope, which holds the passage
            with suppress(ValueError):  # an abandoned application is closed in another context
                entering.reset(token)
            detach(outer)

    async def _instrumented(
        self, passage: Passage, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Whether the application was reached; an error of the instrumentation before that is counted."""
        sending = _Sending(passage, scope, send, self._failed)
        try:
            passage.hide(scope, self._shown(scope))
            await self._traced(scope, receive, sending.send)
        except Exception as error:
            if passage.entered:
                raise
            self._failed("tracing", error)
        if passage.entered:
            return True
        passage.enter(scope)
        return False


class Inside:
    """Inside of the instrumentation: the scope is whole again, and the span bears what is known at the end.

    records: whether an exception is put on the span here, where the instrumentation does not.
    """

    def __init__(self, app: ASGIApp, *, routed: Routed, records: bool, failed: OnError) -> None:
        self.app = app
        self._routed = routed
        self._records = records
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage = scope.get(KEY)
        if not isinstance(passage, Passage) or passage.entered or not passage.sampled:
            await self.app(scope, receive, send)
            return
        passage.enter(scope)
        scope.setdefault(_NATIVE, None)
        try:
            await self.app(scope, receive, send)
        except BaseException as failure:
            self._finish(scope, passage, failure)
            raise
        self._finish(scope, passage, None)

    def _finish(self, scope: Scope, passage: Passage, failure: BaseException | None) -> None:
        span = passage.span
        if span is None or not span.is_recording():
            return
        try:
            if failure is not None:
                passage.before = len(getattr(span, "events", ()))
            if self._records and isinstance(failure, Exception):
                span.record_exception(failure)
                span.set_status(trace.StatusCode.ERROR, f"{type(failure).__name__}: {failure}")
            if passage.request is not None:
                name_span(passage)
                note_user(passage)
            elif scope["type"] == "websocket":
                route = route_template(self._routed, scope)
                if route != UNMATCHED_ROUTE:
                    span.update_name(f"WS {route}")
                    span.set_attribute("http.route", route)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("tracing", error)


class _Sending:
    """What the instrumentation sends through: before the app ran, only an error page of its own comes by here."""

    __slots__ = ("_failed", "_passage", "_scope", "_send")

    def __init__(self, passage: Passage, scope: Scope, send: Send, failed: OnError) -> None:
        self._passage = passage
        self._scope = scope
        self._send = send
        self._failed = failed

    async def send(self, message: Message) -> None:
        if not self._passage.entered:
            return
        kind = message["type"]
        if kind == "http.response.start":
            self._tell(name_span)
            self._tell(self._agree)
        elif kind == "http.response.body" and not message.get("more_body", False):
            self._tell(note_user)  # the instrumentation ends the span when this has been sent
        await self._send(message)

    def _agree(self, passage: Passage) -> None:
        """FastAPI's own telemetry writes its route at the end: not below Starlette's mounts, where it knows a part."""
        own = self._scope.get(_NATIVE)
        if own is None or passage.request is None or getattr(own, "route", None) is None:
            return
        own.route = passage.request.known_route() or own.route

    def _tell(self, tell: Callable[[Passage], None]) -> None:
        try:
            tell(self._passage)
        except Exception as error:  # noqa: BLE001 - a fault of ours never fails the request
            self._failed("tracing", error)


def _note(request: Any, passage: Passage) -> None:
    request.trace_id = passage.trace_id
    request.span_id = passage.span_id
    request.sampled = passage.sampled


def _note_outer(scope: Scope) -> None:
    """An app around this one traces the request already: its span is this one's too."""
    request = current_request.get()
    passage = scope.get(KEY)
    if request is None:
        return
    if isinstance(passage, Passage):
        _note(request, passage)
        return
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        request.trace_id = trace.format_trace_id(context.trace_id)
        request.span_id = trace.format_span_id(context.span_id)
        request.sampled = bool(context.trace_flags.sampled)
