"""The library's own metrics: every service that calls `instrument` has them, none declares them again.

Names are OpenTelemetry's semantic conventions where they exist; the library's own health begins with
`taskscope.`. The `process.*` names are those of prometheus_client's process collector.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue.metric import Kind, Label, Metric

__all__ = [
    "ACTIVE_REQUESTS",
    "BUILD",
    "BUILTIN",
    "DB_CONNECTIONS",
    "DB_CONNECTIONS_MAX",
    "LIBRARY_ERRORS",
    "LOG_AGE",
    "LOG_DEAD_LETTERS",
    "LOG_DROPPED",
    "LOG_DUPLICATES",
    "LOG_LINES",
    "LOG_RETRIES",
    "LOG_SHIPPED",
    "LOG_SHIPPER_UP",
    "OUTCOMES",
    "PROCESS_CPU",
    "PROCESS_MAX_FDS",
    "PROCESS_MEMORY",
    "PROCESS_OPEN_FDS",
    "PROCESS_START_TIME",
    "REQUEST_DURATION",
    "RESPONSE_SIZE",
    "SPOOL_SIZE",
    "UNMATCHED_ROUTE",
]

OUTCOMES: Final = ("ok", "client_error", "server_error", "cancelled", "disconnected", "timeout")
UNMATCHED_ROUTE: Final = "unmatched"
"""The route of every request that no route of the service answers."""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_METHOD = Label("http.request.method")
_ROUTE = Label("http.route")
_STATUS = Label("http.response.status_code")
_OUTCOME = Label("outcome", values=OUTCOMES)

REQUEST_DURATION: Final = Metric(
    name="http.server.request.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time from the first byte of a request to the last byte of its response.",
    owner="taskscope",
    subsystem="http",
    labels=(_METHOD, _ROUTE, _STATUS, _OUTCOME),
)
ACTIVE_REQUESTS: Final = Metric(
    name="http.server.active_requests",
    kind=Kind.GAUGE,
    unit="{request}",
    help="Requests that are being served now.",
    owner="taskscope",
    subsystem="http",
)
RESPONSE_SIZE: Final = Metric(
    name="http.server.response.body.size",
    kind=Kind.HISTOGRAM,
    unit="By",
    help="Bytes of response bodies as sent, after compression.",
    owner="taskscope",
    subsystem="http",
    labels=(_METHOD, _ROUTE),
    buckets=(128.0, 512.0, 2048.0, 8192.0, 32768.0, 131072.0, 524288.0, 2097152.0),
)

DB_CONNECTIONS: Final = Metric(
    name="db.client.connection.count",
    kind=Kind.GAUGE,
    unit="{connection}",
    help="Connections of the database pool by state.",
    owner="taskscope",
    subsystem="database",
    labels=(Label("db.client.connection.state", values=("used", "idle")),),
)
DB_CONNECTIONS_MAX: Final = Metric(
    name="db.client.connection.max",
    kind=Kind.GAUGE,
    unit="{connection}",
    help="The most connections the database pool may open.",
    owner="taskscope",
    subsystem="database",
)

PROCESS_CPU: Final = Metric(
    name="process.cpu",
    kind=Kind.COUNTER,
    unit="s",
    help="Processor time spent by the process, user and system.",
    owner="taskscope",
    subsystem="runtime",
)
PROCESS_MEMORY: Final = Metric(
    name="process.resident_memory",
    kind=Kind.GAUGE,
    unit="By",
    help="Memory the process holds in RAM.",
    owner="taskscope",
    subsystem="runtime",
)
PROCESS_OPEN_FDS: Final = Metric(
    name="process.open_fds",
    kind=Kind.GAUGE,
    unit="{file}",
    help="File descriptors the process has open.",
    owner="taskscope",
    subsystem="runtime",
)
PROCESS_MAX_FDS: Final = Metric(
    name="process.max_fds",
    kind=Kind.GAUGE,
    unit="{file}",
    help="File descriptors the process may open.",
    owner="taskscope",
    subsystem="runtime",
)
PROCESS_START_TIME: Final = Metric(
    name="process.start_time",
    kind=Kind.GAUGE,
    unit="s",
    help="When the process started, in seconds since 1970.",
    owner="taskscope",
    subsystem="runtime",
)

BUILD: Final = Metric(
    name="taskscope.build.info",
    kind=Kind.GAUGE,
    unit="{build}",
    help="Always 1; its labels tell the service's version and the library's.",
    owner="taskscope",
    subsystem="self",
    labels=(
        Label("service.version", cap=1, bounded_by="one version runs in a process"),
        Label("taskscope.version", cap=1, bounded_by="one version runs in a process"),
    ),
)
LIBRARY_ERRORS: Final = Metric(
    name="taskscope.library.errors",
    kind=Kind.COUNTER,
    unit="{error}",
    help="Errors inside the library that were kept from the request.",
    owner="taskscope",
    subsystem="self",
    labels=(Label("component", values=("middleware", "metrics", "logs", "tracing", "probes")),),
)

LOG_LINES: Final = Metric(
    name="taskscope.logs.lines",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines written to the spool by level.",
    owner="taskscope",
    subsystem="logs",
    labels=(Label("log.level", values=LEVELS),),
)
LOG_DROPPED: Final = Metric(
    name="taskscope.logs.dropped",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines that could not be written to the spool, by reason.",
    owner="taskscope",
    subsystem="logs",
    labels=(Label("reason", values=("spool_full", "write_error", "encode_error")),),
)

LOG_SHIPPER_UP: Final = Metric(
    name="taskscope.shipper.connected",
    kind=Kind.GAUGE,
    unit="{connection}",
    help="1 while Elasticsearch took the last batch, 0 while it refuses or does not answer.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
LOG_SHIPPED: Final = Metric(
    name="taskscope.logs.shipped",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines that Elasticsearch has stored.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
LOG_DUPLICATES: Final = Metric(
    name="taskscope.logs.duplicates",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines sent again that Elasticsearch had already and refused by their id.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
LOG_RETRIES: Final = Metric(
    name="taskscope.logs.retries",
    kind=Kind.COUNTER,
    unit="{batch}",
    help="Batches that had to be sent again, by reason.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
    labels=(Label("reason", values=("unreachable", "overloaded", "refused")),),
)
LOG_DEAD_LETTERS: Final = Metric(
    name="taskscope.logs.dead_letters",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines that Elasticsearch can never take, set aside in the dead-letter file.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
LOG_AGE: Final = Metric(
    name="taskscope.logs.oldest_line.age",
    kind=Kind.GAUGE,
    unit="s",
    help="Age of the oldest line that Elasticsearch has not stored yet; 0 when all are.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
SPOOL_SIZE: Final = Metric(
    name="taskscope.spool.size",
    kind=Kind.GAUGE,
    unit="By",
    help="Bytes of lines on disk that Elasticsearch has not stored yet.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)

BUILTIN: Final = (
    REQUEST_DURATION,
    ACTIVE_REQUESTS,
    RESPONSE_SIZE,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START_TIME,
    BUILD,
    LIBRARY_ERRORS,
    LOG_LINES,
    LOG_DROPPED,
    LOG_SHIPPER_UP,
    LOG_SHIPPED,
    LOG_DUPLICATES,
    LOG_RETRIES,
    LOG_DEAD_LETTERS,
    LOG_AGE,
    SPOOL_SIZE,
)
