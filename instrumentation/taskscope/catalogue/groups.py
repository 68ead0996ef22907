"""Metrics of subsystems that not every service has; one that has them adds the group to its own.

    Catalogue(service="shop", metrics=(*CACHE, *JOBS, ORDERS))

Read by the probes and by the middleware, which observe what the service's catalogue declares.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue.metric import Kind, Label, Metric

__all__ = [
    "BEACON_REFUSED",
    "BROWSER_ERRORS",
    "CACHE",
    "CACHE_DURATION",
    "CACHE_REQUESTS",
    "CLOSE_CLASSES",
    "GROUPS",
    "HTTP_CLIENT",
    "HTTP_CLIENT_DURATION",
    "JOBS",
    "JOB_AGE",
    "JOB_DELIVERED",
    "JOB_DURATION",
    "JOB_PUBLISHED",
    "JOB_PUBLISH_DURATION",
    "JOB_SETTLED",
    "LAYOUT_SHIFT",
    "STREAMS",
    "STREAM_BYTES",
    "STREAM_DURATION",
    "STREAM_MESSAGES",
    "STREAM_OPEN",
    "TTL_CLASSES",
    "WEB_VITALS",
    "WEB_VITAL_DURATION",
]

_ROUTE: Final = Label("http.route")
_PROTOCOL: Final = Label("protocol", values=("websocket", "sse"))
_DIRECTION: Final = Label("direction", values=("received", "sent"))
_OUTCOME: Final = Label("outcome", values=("ok", "error"))

CLOSE_CLASSES: Final = (
    "normal",
    "going_away",
    "protocol_error",
    "policy",
    "server_error",
    "application",
    "abnormal",
    "refused",
)
"""How a stream ended. WebSocket (RFC 6455 §7.4): 1000, and 1005 for a close frame without a code; 1001; 1002, 1003,
1007, 1009, 1010; 1008; 1011 to 1014; 3000 to 4999; no close frame (1006); refused before it was accepted. An event
stream ends normal, or going_away when its client left, or server_error."""

STREAM_OPEN: Final = Metric(
    name="http.server.stream.open",
    kind=Kind.GAUGE,
    unit="{connection}",
    help="WebSocket connections and event streams that are open now.",
    owner="taskscope",
    subsystem="http",
    labels=(_ROUTE, _PROTOCOL),
)
STREAM_MESSAGES: Final = Metric(
    name="http.server.stream.messages",
    kind=Kind.COUNTER,
    unit="{message}",
    help="Messages over WebSocket connections and events of event streams, each way.",
    owner="taskscope",
    subsystem="http",
    labels=(_ROUTE, _PROTOCOL, _DIRECTION),
)
STREAM_BYTES: Final = Metric(
    name="http.server.stream.io",
    kind=Kind.COUNTER,
    unit="By",
    help="Bytes of those messages and events, each way, as the application sees them.",
    owner="taskscope",
    subsystem="http",
    labels=(_ROUTE, _PROTOCOL, _DIRECTION),
)
STREAM_DURATION: Final = Metric(
    name="http.server.stream.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="How long WebSocket connections and event streams lived, by how they ended.",
    owner="taskscope",
    subsystem="http",
    labels=(_ROUTE, _PROTOCOL, Label("close", values=CLOSE_CLASSES)),
    buckets=(0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0),
)
STREAMS: Final = (STREAM_OPEN, STREAM_MESSAGES, STREAM_BYTES, STREAM_DURATION)

TTL_CLASSES: Final = ("none", "seconds", "minutes", "hours", "days")
"""For how long an entry is kept: for ever, or below 60 s, 1 h, 1 day, or longer."""

_CACHE_NAME: Final = Label(
    "cache.name", cap=32, bounded_by="the caches that the service's code names"
)
CACHE_REQUESTS: Final = Metric(
    name="cache.requests",
    kind=Kind.COUNTER,
    unit="{request}",
    help="Operations on a cache by what came of them.",
    owner="taskscope",
    subsystem="cache",
    labels=(
        _CACHE_NAME,
        Label("ttl.class", values=TTL_CLASSES),
        Label("result", values=("hit", "miss", "write", "error", "timeout")),
    ),
)
CACHE_DURATION: Final = Metric(
    name="cache.operation.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that an operation on a cache took.",
    owner="taskscope",
    subsystem="cache",
    labels=(_CACHE_NAME, Label("operation", values=("read", "write", "delete", "other"))),
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
CACHE: Final = (CACHE_REQUESTS, CACHE_DURATION)

_QUEUE: Final = Label(
    "messaging.destination.name",
    cap=64,
    bounded_by="the queues and exchanges that the service's code names",
)
JOB_PUBLISHED: Final = Metric(
    name="messaging.client.sent.messages",
    kind=Kind.COUNTER,
    unit="{message}",
    help="Messages that were published, by destination and outcome.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE, _OUTCOME),
)
JOB_PUBLISH_DURATION: Final = Metric(
    name="messaging.client.operation.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time until the broker confirmed a published message.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE,),
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
JOB_DELIVERED: Final = Metric(
    name="messaging.client.consumed.messages",
    kind=Kind.COUNTER,
    unit="{message}",
    help="Messages that were delivered, and whether for the first time.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE, Label("redelivered", values=("false", "true"))),
)
JOB_SETTLED: Final = Metric(
    name="messaging.client.settled.messages",
    kind=Kind.COUNTER,
    unit="{message}",
    help="Delivered messages by how the consumer settled them.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE, Label("result", values=("ack", "requeue", "dead_letter"))),
)
JOB_AGE: Final = Metric(
    name="messaging.message.age",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Age of a message when it was delivered.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE,),
    buckets=(0.01, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)
JOB_DURATION: Final = Metric(
    name="messaging.process.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that a handler took for a message.",
    owner="taskscope",
    subsystem="jobs",
    labels=(_QUEUE, Label("outcome", values=("ok", "error", "cancelled"))),
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0),
)
JOBS: Final = (
    JOB_PUBLISHED,
    JOB_PUBLISH_DURATION,
    JOB_DELIVERED,
    JOB_SETTLED,
    JOB_AGE,
    JOB_DURATION,
)

HTTP_CLIENT_DURATION: Final = Metric(
    name="http.client.request.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time from sending a request to another service until its response's headers came.",
    owner="taskscope",
    subsystem="http_client",
    labels=(
        Label("http.request.method"),
        Label("server.address", cap=32, bounded_by="the services that this one calls"),
        Label("http.response.status_code"),
        Label(
            "outcome",
            values=("ok", "client_error", "server_error", "timeout", "unreachable", "cancelled"),
        ),
    ),
)
HTTP_CLIENT: Final = (HTTP_CLIENT_DURATION,)

WEB_VITAL_DURATION: Final = Metric(
    name="browser.web_vital.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Web vitals that are times, as browsers report them, by the page's route.",
    owner="taskscope",
    subsystem="browser",
    labels=(_ROUTE, Label("vital", values=("lcp", "inp", "fcp", "ttfb"))),
    buckets=(0.05, 0.1, 0.2, 0.5, 0.8, 1.8, 2.5, 3.0, 4.0, 10.0, 30.0),
)
LAYOUT_SHIFT: Final = Metric(
    name="browser.web_vital.layout_shift",
    kind=Kind.HISTOGRAM,
    unit="1",
    help="Cumulative layout shift of a page as browsers report it, by the page's route.",
    owner="taskscope",
    subsystem="browser",
    labels=(_ROUTE,),
    buckets=(0.01, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0),
)
BROWSER_ERRORS: Final = Metric(
    name="browser.errors",
    kind=Kind.COUNTER,
    unit="{error}",
    help="Script errors as browsers report them, by the page's route.",
    owner="taskscope",
    subsystem="browser",
    labels=(_ROUTE,),
)
BEACON_REFUSED: Final = Metric(
    name="browser.beacon.refused",
    kind=Kind.COUNTER,
    unit="{beacon}",
    help="Reports of browsers that were not counted, by reason.",
    owner="taskscope",
    subsystem="browser",
    labels=(Label("reason", values=("size", "rate", "syntax", "name", "value", "origin")),),
)
WEB_VITALS: Final = (WEB_VITAL_DURATION, LAYOUT_SHIFT, BROWSER_ERRORS, BEACON_REFUSED)

GROUPS: Final = (*STREAMS, *CACHE, *JOBS, *HTTP_CLIENT, *WEB_VITALS)
"""All groups; what a service declares that gave no catalogue of its own."""
