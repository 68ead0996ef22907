"""The words about an event loop that something holds."""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import EVENT_LOOP_LAG, GC_PAUSE, REQUEST_DURATION, THREADS
from taskscope.catalogue.promql import selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["loop"]


def loop(catalogue: Catalogue) -> Runbook:
    """Something computes or blocks on the event loop."""
    return Runbook(
        meaning=(
            "All requests of one process share one event loop, and something holds it for a quarter of a second or "
            "longer, again and again. Every request that is under way there waits along, whatever its route: users see "
            "slowness without a pattern, and health checks begin to fail."
        ),
        urgency=(
            "A ticket by itself; a latency budget alert with it is most likely its effect: begin here. If the lag "
            "comes near the health check's time-out, the supervisor will soon restart a process that is not dead."
        ),
        look=_look(catalogue),
        causes=(
            "A blocking call in an `async def` endpoint: `requests`, `time.sleep`, a synchronous driver, a large file.",
            "Long computing there: a large JSON, a password hash, a picture, a regular expression that runs away.",
            "A processor without a free core: the loop is ready and gets no turn.",
            "The garbage collector over very many objects.",
            "Memory on swap.",
        ),
        mitigate=(
            Step(
                text="One route is behind it: declare its endpoint with `def` instead of `async def`, so that it runs "
                "in a thread, or hand the blocking part to `asyncio.to_thread`."
            ),
            first_look.roll_back("If it began with a release, go back to the one before."),
            first_look.add_instance("No core is free: add an instance on another machine."),
            Step(
                text="Try the remedy before the release: `PYTHONASYNCIODEBUG=1` names every callback that holds the "
                "loop for longer than 0.1 s; send the route that you suspect."
            ),
        ),
        resolves="When at most one wake-up in a hundred of the last five minutes came 0.25 s late.",
    )


def _look(catalogue: Catalogue) -> tuple[Step, ...]:
    lag = selector(catalogue, EVENT_LOOP_LAG, part="bucket")
    spent = selector(catalogue, REQUEST_DURATION, part="sum")
    (generation,) = GC_PAUSE.label_names
    return (
        Step(
            text="One instance, or all? One: what was it asked that others were not? All: a release or the traffic.",
            code=f"histogram_quantile(0.99, sum by (instance, le) (rate({lag}[5m])))",
            language="promql",
        ),
        Step(
            text="Which routes took the time while it lasted? The one that rose first holds the loop, the others wait.",
            code=f"topk(10, sum by (instance, http_route) (rate({spent}[5m])))",
            language="promql",
        ),
        first_look.processor(catalogue),
        Step(
            text="Is it the collector, or too many threads? Seconds of collecting for each second, and threads.",
            code=f"sum by (instance, {generation}) (rate({selector(catalogue, GC_PAUSE, part='sum')}[5m]))\n"
            f"{selector(catalogue, THREADS)}",
            language="promql",
        ),
        first_look.log_lines(
            catalogue,
            "The slowest requests.",
            levels=("info", "warning", "error", "critical"),
            slowest=True,
        ),
        first_look.youngest(catalogue),
    )
