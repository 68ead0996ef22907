"""OpenTelemetry traces of one service: a provider of our own and exactly one server span per sampled request.

`traceparent`, `hops`, `bucket`, `ids` and `decider` decide; `passage` is the decision about one request; `layers`
stand around what makes the span, `instrumentor` or `native`; `late` writes the span of a request that was passed
over and failed, `guarded` holds that of one that was not until its close, and `corrected` completes it. Read by
`wiring`.
"""

from taskscope.tracing.service import Path, Tracing, exemplar

__all__ = ["Path", "Tracing", "exemplar"]
