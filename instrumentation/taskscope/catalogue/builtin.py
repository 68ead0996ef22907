"""The library's own metrics: every service that calls `instrument` has them, none declares them again.

Names are OpenTelemetry's semantic conventions where they exist; the library's own health begins with
`taskscope.`. The `process.*` names are those of prometheus_client's process collector.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue.metric import Across, Kind, Label, Metric

__all__ = [
    "ACTIVE_REQUESTS",
    "AUDIT_FAILED",
    "AUDIT_LINES",
    "BACKGROUND_DURATION",
    "BUILD",
    "BUILTIN",
    "COLLECTOR_DURATION",
    "COLLECTOR_LAG",
    "COLLECTOR_REQUESTS",
    "COLLECTOR_UP",
    "DB_CONNECTIONS",
    "DB_CONNECTIONS_MAX",
    "DB_OPERATION_DURATION",
    "DB_PENDING",
    "DB_TIMEOUTS",
    "DB_WAIT_TIME",
    "EVENT_LOOP_LAG",
    "FILES_SKIPPED",
    "GC_PAUSE",
    "LIBRARY_ERRORS",
    "LIBRARY_TIME",
    "LOG_AGE",
    "LOG_BATCH_DURATION",
    "LOG_DEAD_LETTERS",
    "LOG_DISCARDED",
    "LOG_DROPPED",
    "LOG_DUPLICATES",
    "LOG_ERRORS",
    "LOG_IN_DOUBT",
    "LOG_LEFT_OUT",
    "LOG_LINES",
    "LOG_RETRIES",
    "LOG_SHIPPED",
    "LOG_SHIPPER_UP",
    "LOG_STORED",
    "OUTCOMES",
    "OVERFLOWED",
    "PROCESS_CPU",
    "PROCESS_MAX_FDS",
    "PROCESS_MEMORY",
    "PROCESS_OPEN_FDS",
    "PROCESS_START_TIME",
    "REQUEST_DURATION",
    "RESPONSE_SIZE",
    "SCRAPE_DURATION",
    "SCRAPE_SIZE",
    "SERIES",
    "SPOOL_LIMIT",
    "SPOOL_SIZE",
    "THREADS",
    "TIME_TO_FIRST_BYTE",
    "TRACED",
    "UNMATCHED_ROUTE",
    "WORKERS",
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
    help="Time from the first byte of a request to the last byte of its response; "
    "of an event stream until it opened, where the group STREAMS is declared.",
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
TIME_TO_FIRST_BYTE: Final = Metric(
    name="http.server.response.time_to_first_byte",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time from the first byte of a request to the start of its response, or to its end where there was none.",
    owner="taskscope",
    subsystem="http",
    labels=(_METHOD, _ROUTE),
)
BACKGROUND_DURATION: Final = Metric(
    name="http.server.background_task.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that a background task ran after its response was sent.",
    owner="taskscope",
    subsystem="http",
    labels=(_ROUTE, Label("outcome", values=("ok", "error", "cancelled"))),
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0),
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
DB_PENDING: Final = Metric(
    name="db.client.connection.pending_requests",
    kind=Kind.GAUGE,
    unit="{request}",
    help="Callers that wait for a connection of the database pool now.",
    owner="taskscope",
    subsystem="database",
)
DB_WAIT_TIME: Final = Metric(
    name="db.client.connection.wait_time",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that a caller waited for a connection of the database pool.",
    owner="taskscope",
    subsystem="database",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0),
)
DB_TIMEOUTS: Final = Metric(
    name="db.client.connection.timeouts",
    kind=Kind.COUNTER,
    unit="{timeout}",
    help="Callers that gave up waiting for a connection of the database pool.",
    owner="taskscope",
    subsystem="database",
)
DB_OPERATION_DURATION: Final = Metric(
    name="db.client.operation.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that a database statement took, by operation, role and shard of its database.",
    owner="taskscope",
    subsystem="database",
    labels=(
        Label(
            "db.operation.name", values=("SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT", "_OTHER")
        ),
        Label("role", cap=4, bounded_by="the roles that the service watches: primary and replica"),
        Label("shard", cap=64, bounded_by="the shards that the service watches; 0 without shards"),
        Label("outcome", values=("ok", "error")),
    ),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0),
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
    help="When the process started, in seconds since 1970; of several workers the youngest.",
    owner="taskscope",
    subsystem="runtime",
    across=Across.MAX,
)
THREADS: Final = Metric(
    name="process.thread.count",
    kind=Kind.GAUGE,
    unit="{thread}",
    help="Threads of the process.",
    owner="taskscope",
    subsystem="runtime",
)
EVENT_LOOP_LAG: Final = Metric(
    name="asyncio.event_loop.lag",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="How much later than asked the event loop woke a waiting task, sampled all the time.",
    owner="taskscope",
    subsystem="runtime",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
GC_PAUSE: Final = Metric(
    name="cpython.gc.pause",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time that one run of the garbage collector held the process, by generation.",
    owner="taskscope",
    subsystem="runtime",
    labels=(Label("cpython.gc.generation", values=("0", "1", "2")),),
    buckets=(0.0001, 0.001, 0.01, 0.1, 1.0),
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
        Label("vcs.ref.head.revision", cap=1, bounded_by="one commit runs in a process"),
        Label("process.runtime.version", cap=1, bounded_by="one Python runs in a process"),
    ),
    across=Across.MAX,
)
LIBRARY_ERRORS: Final = Metric(
    name="taskscope.library.errors",
    kind=Kind.COUNTER,
    unit="{error}",
    help="Errors inside the library that were kept from the request.",
    owner="taskscope",
    subsystem="self",
    labels=(
        Label(
            "component",
            values=(
                "middleware",
                "metrics",
                "logs",
                "tracing",
                "probes",
                "exposition",
                "multiprocess",
            ),
        ),
        Label("error.type", cap=32, bounded_by="the kinds of exceptions that were seen; else none"),
    ),
)
LIBRARY_TIME: Final = Metric(
    name="taskscope.library.time",
    kind=Kind.COUNTER,
    unit="s",
    help="Time that the library itself spent within requests.",
    owner="taskscope",
    subsystem="self",
)
SERIES: Final = Metric(
    name="taskscope.metrics.series",
    kind=Kind.GAUGE,
    unit="{series}",
    help="Series that the process holds.",
    owner="taskscope",
    subsystem="self",
)
OVERFLOWED: Final = Metric(
    name="taskscope.metrics.overflowed",
    kind=Kind.COUNTER,
    unit="{observation}",
    help="Observations whose label value went beyond its bound and was folded, by metric and label.",
    owner="taskscope",
    subsystem="self",
    labels=(
        Label("metric", cap=200, bounded_by="the metrics of the catalogue"),
        Label("label", cap=100, bounded_by="the labels of the catalogue"),
    ),
)
SCRAPE_DURATION: Final = Metric(
    name="taskscope.scrape.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time to render the answer to one scrape.",
    owner="taskscope",
    subsystem="self",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
SCRAPE_SIZE: Final = Metric(
    name="taskscope.scrape.size",
    kind=Kind.GAUGE,
    unit="By",
    help="Bytes of the last rendered answer to a scrape, before compression.",
    owner="taskscope",
    subsystem="self",
    across=Across.MAX,
)
WORKERS: Final = Metric(
    name="taskscope.multiprocess.workers",
    kind=Kind.GAUGE,
    unit="{process}",
    help="Worker processes whose series are in this answer.",
    owner="taskscope",
    subsystem="self",
    across=Across.MAX,
)
FILES_SKIPPED: Final = Metric(
    name="taskscope.multiprocess.files_skipped",
    kind=Kind.COUNTER,
    unit="{file}",
    help="Files in the workers' folder that could not be read and were left out, by reason.",
    owner="taskscope",
    subsystem="self",
    labels=(
        Label("reason", values=("empty", "garbage", "foreign", "not_regular", "version", "error")),
    ),
)
TRACED: Final = Metric(
    name="taskscope.tracing.requests",
    kind=Kind.COUNTER,
    unit="{request}",
    help="Requests by what was decided about their trace: kept, passed over, kept late, or over the cap.",
    owner="taskscope",
    subsystem="self",
    labels=(Label("decision", values=("sampled", "unsampled", "late", "capped")),),
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
    help="Lines that could not be written to the spool, by reason and level.",
    owner="taskscope",
    subsystem="logs",
    labels=(
        Label("reason", values=("spool_full", "disk_full", "write_error", "encode_error")),
        Label("log.level", values=LEVELS),
    ),
)
LOG_LEFT_OUT: Final = Metric(
    name="taskscope.logs.left_out",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines left out on purpose, by level: an event's rate limit, or the sample of access lines.",
    owner="taskscope",
    subsystem="logs",
    labels=(
        Label("reason", values=("rate_limit", "sample")),
        Label("log.level", values=LEVELS),
    ),
)
SPOOL_LIMIT: Final = Metric(
    name="taskscope.spool.limit",
    kind=Kind.GAUGE,
    unit="By",
    help="The most bytes that the spool may hold; near it lines below warning are dropped, at it all.",
    owner="taskscope",
    subsystem="logs",
    across=Across.MAX,
)

AUDIT_LINES: Final = Metric(
    name="taskscope.audit.lines",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Audit lines written to their spool, by the outcome of what they tell.",
    owner="taskscope",
    subsystem="logs",
    labels=(Label("event.outcome", values=("success", "failure", "unknown")),),
)
AUDIT_FAILED: Final = Metric(
    name="taskscope.audit.failed",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Audit lines that could not be stored, or not be brought to disk when that was asked, by reason.",
    owner="taskscope",
    subsystem="logs",
    labels=(
        Label(
            "reason",
            values=("spool_full", "disk_full", "write_error", "encode_error", "not_synced"),
        ),
    ),
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
    help="Lines to be sent again that Elasticsearch had already: it refused their id, or said so when asked.",
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
    help="Lines that Elasticsearch can never take, set aside in the dead-letter file, by its kind of error.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
    labels=(Label("error.type", cap=20, bounded_by="the server's kinds of error"),),
)
LOG_DISCARDED: Final = Metric(
    name="taskscope.logs.discarded",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines that Elasticsearch can never take and that found no room in the dead-letter file.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
)
LOG_IN_DOUBT: Final = Metric(
    name="taskscope.logs.in_doubt",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines whose answer was lost: found stored, found missing, or sent again unasked after a rollover.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
    labels=(Label("result", values=("stored", "missing", "unknown")),),
)
LOG_BATCH_DURATION: Final = Metric(
    name="taskscope.logs.batch.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time from a bulk request to its answer.",
    owner="taskscope",
    subsystem="logs",
    target="shipper",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
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

COLLECTOR_UP: Final = Metric(
    name="taskscope.collector.connected",
    kind=Kind.GAUGE,
    unit="{connection}",
    help="1 while the stored lines are counted, 0 while Elasticsearch refuses or does not answer.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
    across=Across.MAX,
)
LOG_STORED: Final = Metric(
    name="taskscope.logs.stored",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines that are in Elasticsearch, counted there as they arrive, by level and dataset.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
    labels=(
        Label("log.level", values=LEVELS),
        Label("event.dataset", cap=16, bounded_by="the services and parts that write the stream"),
    ),
)
LOG_ERRORS: Final = Metric(
    name="taskscope.logs.errors",
    kind=Kind.COUNTER,
    unit="{line}",
    help="Lines of level error or critical that are in Elasticsearch, by the exception's type and the route.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
    labels=(
        Label("error.type", cap=64, bounded_by="the exceptions that were seen; else none"),
        Label("http.route", cap=200, bounded_by="the routes of the service; none outside requests"),
    ),
)
COLLECTOR_LAG: Final = Metric(
    name="taskscope.collector.uncounted",
    kind=Kind.GAUGE,
    unit="{line}",
    help="Lines that are in Elasticsearch and not counted yet.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
    across=Across.MAX,
)
COLLECTOR_REQUESTS: Final = Metric(
    name="taskscope.collector.requests",
    kind=Kind.COUNTER,
    unit="{request}",
    help="Requests that the collector sent to Elasticsearch.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
)
COLLECTOR_DURATION: Final = Metric(
    name="taskscope.collector.look.duration",
    kind=Kind.HISTOGRAM,
    unit="s",
    help="Time of one look at the new lines, with all its requests.",
    owner="taskscope",
    subsystem="logs",
    target="collector",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

BUILTIN: Final = (
    REQUEST_DURATION,
    ACTIVE_REQUESTS,
    RESPONSE_SIZE,
    TIME_TO_FIRST_BYTE,
    BACKGROUND_DURATION,
    DB_CONNECTIONS,
    DB_CONNECTIONS_MAX,
    DB_PENDING,
    DB_WAIT_TIME,
    DB_TIMEOUTS,
    DB_OPERATION_DURATION,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START_TIME,
    THREADS,
    EVENT_LOOP_LAG,
    GC_PAUSE,
    BUILD,
    LIBRARY_ERRORS,
    LIBRARY_TIME,
    SERIES,
    OVERFLOWED,
    SCRAPE_DURATION,
    SCRAPE_SIZE,
    WORKERS,
    FILES_SKIPPED,
    TRACED,
    LOG_LINES,
    LOG_DROPPED,
    LOG_LEFT_OUT,
    SPOOL_LIMIT,
    AUDIT_LINES,
    AUDIT_FAILED,
    LOG_SHIPPER_UP,
    LOG_SHIPPED,
    LOG_DUPLICATES,
    LOG_RETRIES,
    LOG_DEAD_LETTERS,
    LOG_DISCARDED,
    LOG_IN_DOUBT,
    LOG_BATCH_DURATION,
    LOG_AGE,
    SPOOL_SIZE,
    COLLECTOR_UP,
    LOG_STORED,
    LOG_ERRORS,
    COLLECTOR_LAG,
    COLLECTOR_REQUESTS,
    COLLECTOR_DURATION,
)
