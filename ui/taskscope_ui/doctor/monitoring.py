"""Whether Prometheus scrapes every target, evaluates every rule, reaches Alertmanager and has every declared series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2

from taskscope.catalogue import Catalogue
from taskscope.catalogue.builtin import LOG_AGE, LOG_DROPPED, LOG_SHIPPER_UP
from taskscope.catalogue.promql import RECORDED, selector
from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.processes import answers
from taskscope_ui.doctor.subject import Subject

__all__ = [
    "check_lines_dropped",
    "check_log_age",
    "check_page_data",
    "check_rules",
    "check_series",
    "check_targets",
]

MOST_LOG_AGE_S: Final = 60
SCRAPED_AFTER_S: Final = 30.0
"""A part that was started so long ago has come up and was scraped."""

HELD_AFTER_S: Final = 75.0
"""By then there are two scrapes, which a rate needs, and rules were evaluated over them."""


async def check_targets(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Targets that Prometheus cannot scrape, and jobs of the catalogue without any target."""
    answer = await _get(subject, client, "/api/v1/targets?state=active")
    if answer is None:
        return []
    found, seen = [], set()
    targets = _targets(subject)
    for target in answer["activeTargets"]:
        job = target["labels"]["job"]
        seen.add(job)
        if target["health"] == "down" and not subject.young(
            _served_by(subject, job), SCRAPED_AFTER_S
        ):
            what = f"Prometheus cannot scrape {target['scrapeUrl']}: {target['lastError'] or 'no answer'}"
            remedy = f"start what serves it, or correct {targets}/{job}.json"
            found.append(Finding(where=f"target {job}", what=what, remedy=remedy))
    for target in subject.catalogue.targets:
        part = _part_of(target.name)
        if (
            target.job not in seen
            and subject.part(part) is not None
            and not subject.young((part, "prometheus"), SCRAPED_AFTER_S)
        ):
            what = "Prometheus has no such target"
            remedy = f"list its address in {targets}/{target.job}.json"
            found.append(Finding(where=f"target {target.job}", what=what, remedy=remedy))
    return found


async def check_rules(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Rules that fail, rules that are not loaded, and an Alertmanager that Prometheus does not know."""
    answer = await _get(subject, client, "/api/v1/rules")
    if answer is None:
        return []
    rules = [rule for group in answer["groups"] for rule in group["rules"]]
    found = [
        Finding(
            where=f"rule {rule['name']}",
            what=f"cannot be evaluated: {rule.get('lastError') or 'unknown reason'}",
            remedy="correct the expression, run `taskscope build`, and restart the stack",
        )
        for rule in rules
        if rule.get("health") == "err"
    ]
    absent = sorted(set(RECORDED) - {rule["name"] for rule in rules})
    if absent:
        what = f"Prometheus has not loaded {len(absent)} rules, {absent[0]} among them"
        found.append(
            Finding(where="rules", what=what, remedy="run `taskscope build` and restart the stack")
        )
    if subject.part("alertmanager") is None or subject.young(
        ("alertmanager", "prometheus"), SCRAPED_AFTER_S
    ):
        return found
    managers = await _get(subject, client, "/api/v1/alertmanagers")
    if managers is not None and not managers["activeAlertmanagers"]:
        remedy = f"list its address in {_targets(subject)}/alertmanagers.json"
        found.append(
            Finding(
                where="alertmanager",
                what="Prometheus knows none, so no alert leaves it",
                remedy=remedy,
            )
        )
    return found


async def check_series(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Metrics that the catalogue declares and Prometheus does not hold, of those that are there from the start."""
    names = {
        metric.exposed[0]: metric
        for metric in subject.catalogue.all_metrics
        if metric.starts_at_zero
    }
    wanted = "|".join(sorted(names))
    answer = await _query(subject, client, f'count by (__name__, job) ({{__name__=~"{wanted}"}})')
    if answer is None:
        return []
    held = {(row["metric"]["__name__"], row["metric"]["job"]) for row in answer}
    down = await _jobs_down(subject, client)
    absent = [
        metric
        for name, metric in names.items()
        if (name, subject.catalogue.job(metric)) not in held
        and subject.catalogue.job(metric) not in down
    ]
    return [
        Finding(
            where=f"series {metric.series}",
            what="is declared in the catalogue and absent in Prometheus",
            remedy=f"make the instrument for {metric.name} in the process of job {subject.catalogue.job(metric)}",
        )
        for metric in absent
        if subject.part(_part_of(metric.target)) is not None
        and not subject.young((_part_of(metric.target), "prometheus"), HELD_AFTER_S)
    ]


async def check_log_age(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Lines that wait longer than a minute, and a shipper that Elasticsearch turns away."""
    found = []
    catalogue: Catalogue = subject.catalogue
    connected = await _query(subject, client, selector(catalogue, LOG_SHIPPER_UP))
    if connected is None or subject.young(("shipper", "elasticsearch"), SCRAPED_AFTER_S):
        return []
    if connected and float(connected[0]["value"][1]) == 0:
        what = "Elasticsearch refuses its lines or does not answer; they wait on disk"
        found.append(Finding(where="shipper", what=what, remedy=f"read {_log(subject, 'shipper')}"))
    age = await _query(subject, client, selector(catalogue, LOG_AGE))
    if age and float(age[0]["value"][1]) > MOST_LOG_AGE_S:
        what = f"the oldest line waits for {float(age[0]['value'][1]):.0f} s; {MOST_LOG_AGE_S} is the most"
        found.append(Finding(where="logs", what=what, remedy=f"read {_log(subject, 'shipper')}"))
    return found


async def check_lines_dropped(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Lines that the service could not write to its spool in the last five minutes."""
    source = selector(subject.catalogue, LOG_DROPPED)
    dropped = await _query(subject, client, f"sum by (reason) (increase({source}[5m])) > 0")
    return [
        Finding(
            where="logs",
            what=f"lines were dropped in the last 5 minutes, reason {row['metric']['reason']}",
            remedy=f"make room in {subject.folder / 'spool'} and see that the shipper runs",
        )
        for row in dropped or ()
    ]


async def check_page_data(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """The page runs and would show nothing."""
    name = "service:http_requests:rate5m"
    if subject.part("page") is None or subject.young(("api-1", "prometheus"), HELD_AFTER_S):
        return []
    answer = await _query(subject, client, f'{name}{{service="{subject.catalogue.service}"}}')
    if answer is None or answer:
        return []
    what = f"Prometheus holds no {name}, so it has nothing to show"
    remedy = (
        "see that the service is scraped, its rules are loaded and somebody asks it for anything"
    )
    return [Finding(where="page", what=what, remedy=remedy)]


def _targets(subject: Subject) -> str:
    return str(subject.folder / "prometheus" / "targets")


def _log(subject: Subject, name: str) -> str:
    part = subject.part(name)
    return str(part.log) if part is not None and part.log else f"the log of {name}"


def _served_by(subject: Subject, job: str) -> tuple[str, ...]:
    """The parts that serve a job's targets."""
    names = [_part_of(target.name) for target in subject.catalogue.targets if target.job == job]
    return ("api-1", "api-2") if "api-1" in names else (*names, job)


def _part_of(target: str) -> str:
    return {"service": "api-1"}.get(target, target)


async def _jobs_down(subject: Subject, client: httpx2.AsyncClient) -> set[str]:
    answer = await _query(subject, client, "sum by (job) (up) == 0")
    return {row["metric"]["job"] for row in answer or ()}


async def _query(subject: Subject, client: httpx2.AsyncClient, expression: str) -> list[Any] | None:
    answer = await _get(subject, client, "/api/v1/query", {"query": expression})
    return None if answer is None else list(answer["result"])


async def _get(
    subject: Subject,
    client: httpx2.AsyncClient,
    path: str,
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    part = subject.part("prometheus")
    if part is None or not answers(part):
        return None  # told by the check of processes
    try:
        response = await client.get(part.url.rstrip("/") + path, params=dict(parameters or {}))
        body = response.json()
    except (httpx2.HTTPError, ValueError):
        return None  # told by the check of answers
    return dict(body["data"]) if body.get("status") == "success" else None
