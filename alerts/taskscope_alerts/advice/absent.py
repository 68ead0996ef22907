"""The words about targets and metrics that are not there, and about the watchdog."""

from __future__ import annotations

from taskscope.catalogue import Catalogue, Target
from taskscope.catalogue.builtin import ACTIVE_REQUESTS, BUILD
from taskscope.catalogue.promql import selector
from taskscope_alerts.advice import first_look
from taskscope_alerts.advice.figures import percent, span
from taskscope_alerts.runbook import Runbook, Step

__all__ = ["all_down", "metrics_absent", "one_down", "watchdog"]


def all_down(catalogue: Catalogue, judged: tuple[Target, ...]) -> Runbook:
    """Nothing of the service answers."""
    jobs = " or ".join(f"`{target.job}`" for target in judged)
    return Runbook(
        meaning=(
            f"No instance of {jobs} has answered Prometheus for a minute, or none is in its target list any more. "
            "Users most likely get 502 from the proxy, or nothing at all. The error ratio does **not** show it: what "
            "is down counts no errors, so the objectives' alerts stay silent."
        ),
        urgency=_outage(catalogue),
        look=_all_down_look(catalogue, judged),
        causes=(
            "A release that does not start: a setting is wrong, a migration fails; the container restarts in a loop.",
            "The database is unreachable and readiness fails on every instance at once.",
            "Killed for memory: `docker inspect` says OOMKilled, or `dmesg` does.",
            "The machine or its network is gone; other jobs of the same machine are down too.",
            "Prometheus lost the way: target list empty, `/metrics` moved, credentials changed. Users are well then.",
        ),
        mitigate=_all_down_mitigate(),
        resolves="At the first scrape that any instance answers, within 30 seconds of its return.",
    )


def _all_down_look(catalogue: Catalogue, judged: tuple[Target, ...]) -> tuple[Step, ...]:
    return (
        Step(
            text="Ask it yourself, as a user would. 502, 503 or 504 is the proxy, which found no instance; no answer "
            "at all is the proxy itself. Below 500, 404 too, the service lives and the scrape is broken: "
            "go to step 3.",
            code='curl -sS -m 5 -o /dev/null -w "%{http_code} in %{time_total} s\\n" "$SERVICE_URL/"',
            language="sh",
        ),
        first_look.containers("What runs, what has exited, and what did it say last?"),
        first_look.targets(
            judged[0].job,
            "Does Prometheus still know its targets? No answer at all means an empty list in "
            "`targets/*.json` beside prometheus.yml; 0 means refused or timed out, and the page "
            "Status → Targets of Prometheus says which.",
        ),
        first_look.log_lines(
            catalogue,
            "The last words before the silence.",
            levels=("warning", "error", "critical"),
        ),
    )


def _all_down_mitigate() -> tuple[Step, ...]:
    return (
        first_look.roll_back("A release came before it: go back to the one that ran."),
        first_look.restart("Otherwise start it again; `NAME` as `docker compose ps` shows it."),
        first_look.doctor(),
        Step(
            text="Not up after 15 minutes? Wake the next on call; say what the last log lines were."
        ),
    )


def _outage(catalogue: Catalogue) -> str:
    lines = [
        f"- {objective.title}: a full outage spends the budget of {objective.window.days} days "
        f"({percent(objective.budget)}) in {span(objective.allowed_seconds())}."
        for objective in catalogue.objectives
    ]
    start = "As bad as it gets: everything fails until it is mended."
    return "\n".join([start, "", *lines]) if lines else start


def one_down(catalogue: Catalogue) -> Runbook:
    """One process does not answer while others do."""
    jobs = ", ".join(f"`{target.job}`" for target in catalogue.targets)
    return Runbook(
        meaning=(
            f"One instance of one job ({jobs}) has not answered Prometheus for two minutes. If it is one of several "
            "instances of the service, the proxy has sent its users to the others and they notice little. If it is "
            "the log shipper, lines wait in the spool and no search finds the newest ones."
        ),
        urgency=(
            "For a working day, as long as the others carry the load: look at their pool and processor below. "
            "The last instance to go is a page of its own, `AllTargetsDown`. A shipper that stays away fills the "
            "spool; only when it is full are lines lost, which `LogLinesDropped` tells."
        ),
        look=(
            Step(
                text="Which instance, and since when?",
                code="\n".join(f'up{{job="{target.job}"}}' for target in catalogue.targets),
                language="promql",
            ),
            first_look.containers("Is its process there, and what did it say last?"),
            first_look.processor(catalogue),
            first_look.youngest(catalogue),
        ),
        causes=(
            "The process ended and nothing starts it again.",
            "It hangs: the port accepts, `/metrics` does not answer within the scrape's time-out.",
            "It was taken away on purpose, but its address is still in the target list.",
            "Its machine is gone, or a firewall stands between.",
        ),
        mitigate=(
            first_look.restart("Start it again; `NAME` as `docker compose ps` shows it."),
            Step(
                text="If it was taken away on purpose, take its address out of the target list; Prometheus rereads "
                "the file by itself."
            ),
            first_look.doctor(),
        ),
        resolves="At the first scrape it answers, or once it has left the target list.",
    )


def metrics_absent(catalogue: Catalogue) -> Runbook:
    """The target answers, but without what it should show."""
    return Runbook(
        meaning=(
            "Prometheus reaches the job, and what it reads there lacks a series that a sound process of it always "
            "shows. Users may be well or not: **nobody can tell**, since every objective, board and alert over that "
            "job is blind."
        ),
        urgency=(
            "As urgent as what it would have told. Where an objective is judged on that job it pages: an outage that "
            "begins now would wake nobody. Else it is a ticket."
        ),
        look=_metrics_absent_look(catalogue),
        causes=(
            "A release without `taskscope.instrument`, or with `metrics=False`.",
            "A metric was renamed, and the rules were not built again: `taskscope check` says so.",
            "Another program listens on the address in the target list.",
            "A relabelling rule in prometheus.yml drops it.",
        ),
        mitigate=(
            first_look.roll_back("If it began with a release, go back to the one before."),
            Step(
                text="If names have changed on purpose, build the rules again and deploy them together with the "
                "service; then look whether anything still asks for the old name.",
                code="taskscope build\ntaskscope check",
                language="sh",
            ),
            Step(
                text="Until it is mended, watch users by other means: the proxy's log, and a request every minute.",
            ),
        ),
        resolves="At the first scrape that brings the series again.",
    )


def _metrics_absent_look(catalogue: Catalogue) -> tuple[Step, ...]:
    return (
        Step(
            text="What does the process show? INSTANCE as `up` shows it, such as 127.0.0.1:8001; a container's address "
            "is known to the other containers alone. Compare with a sound one; an HTML page or another program's "
            "metrics mean a wrong address in the target list.",
            code='curl -sS -m 5 "http://INSTANCE/metrics" | head -40\n'
            'docker compose exec prometheus wget -q -T 5 -O - "http://INSTANCE/metrics" | head -40   # containers',
            language="sh",
        ),
        Step(
            text="Is it there for some instances, and which versions run?",
            code=f"count by (instance) ({selector(catalogue, ACTIVE_REQUESTS)})\n{selector(catalogue, BUILD)}",
            language="promql",
        ),
        Step(
            text="How many series does each scrape bring? A sudden fall tells when.",
            code="\n".join(
                f'scrape_samples_scraped{{job="{target.job}"}}' for target in catalogue.targets
            ),
            language="promql",
        ),
        first_look.log_lines(
            catalogue, "Did the telemetry say why?", levels=("warning", "error", "critical")
        ),
    )


def watchdog(catalogue: Catalogue) -> Runbook:
    """It always fires; its silence is the alarm."""
    return Runbook(
        meaning=(
            "Nothing is wrong while you see it: this alert fires **always**, to prove that rules are evaluated and "
            "that alerts arrive. Its **absence** is the alarm: then no other alert can reach anybody either."
        ),
        urgency=(
            "None while it fires. When it is missing for 10 minutes, treat it as a page: you are blind. It has no "
            "severity, since it is neither page nor ticket; Alertmanager routes it by its name to the receiver "
            "`watchdog`, which should be a dead-man's switch outside of this stack."
        ),
        look=_watchdog_look(),
        causes=(
            "Prometheus is down, or its disk is full.",
            "A rule file does not load, so Prometheus kept the old ones or did not start.",
            "Alertmanager is down or not in the target list `alertmanagers.json`.",
            "The webhook's address or credential changed.",
        ),
        mitigate=(
            first_look.restart(
                "Start what is down; `NAME` is `prometheus` or `alertmanager`. What happened meanwhile was judged by "
                "nobody: look at the board for it."
            ),
            Step(
                text="If a rule or configuration file was changed last, check it, then go back to the one before.",
                code="promtool check rules rules/*.yml\namtool check-config alertmanager.yml",
                language="sh",
            ),
        ),
        resolves=f"Never for `{catalogue.service}`, and that is right: what resolves is its absence.",
        silence="Do not: a silenced watchdog looks like a broken one, and hides a broken one.",
    )


def _watchdog_look() -> tuple[Step, ...]:
    return (
        Step(
            text="Does Prometheus live, and does it evaluate?",
            code='curl -sS -m 5 "$PROMETHEUS_URL/-/healthy"\n'
            'curl -sS -m 5 "$PROMETHEUS_URL/api/v1/query?query=ALERTS"',
            language="sh",
        ),
        Step(
            text="Does it know an Alertmanager, and does that one hold the alert?",
            code='curl -sS -m 5 "$PROMETHEUS_URL/api/v1/alertmanagers"\n'
            'amtool --alertmanager.url="$ALERTMANAGER_URL" alert query alertname=Watchdog',
            language="sh",
        ),
        Step(
            text="Is it silenced? A silence over all alerts takes this one too.",
            code='amtool --alertmanager.url="$ALERTMANAGER_URL" silence query',
            language="sh",
        ),
        Step(
            text="Do notifications fail on their way out?",
            code='increase(prometheus_notifications_dropped_total{job="prometheus"}[1h])\n'
            'increase(alertmanager_notifications_failed_total{job="alertmanager"}[1h])',
            language="promql",
        ),
    )
