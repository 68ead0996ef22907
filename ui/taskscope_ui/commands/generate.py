"""`taskscope build`, `check`, `catalogue` and `version`: the catalogue, and all that is made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from taskscope.catalogue import Catalogue
from taskscope_ui import artefacts
from taskscope_ui.commands.options import DEFAULT_APP, App, Into, Json
from taskscope_ui.commands.terminal import plural, say, table

if TYPE_CHECKING:
    from taskscope.catalogue import Metric, Objective

__all__ = ["add_to", "build", "catalogue", "check", "version"]


def add_to(app: typer.Typer) -> None:
    """`app` offers these commands."""
    app.command()(build)
    app.command()(check)
    app.command()(catalogue)
    app.command()(version)


def build(app: App = DEFAULT_APP, into: Into = Path()) -> int:
    """Write boards, rules, runbooks and configuration.

    All are made from a service's catalogue. Nothing is written when a query names a metric or label
    that the catalogue lacks. Files that an earlier build made and none makes now are removed; files of yours stay.

    \b
    Examples:
      taskscope build
      taskscope build --app myservice.telemetry --into deploy
    """
    from taskscope_ui.agreement import disagreements

    declared = Catalogue.load(app)
    rendered = artefacts.collect(declared)
    findings = disagreements(declared, rendered)
    if findings:
        return _report(findings)
    changes = artefacts.write(rendered, into)
    for word, paths in (
        ("created", changes.created),
        ("changed", changes.changed),
        ("removed", changes.removed),
    ):
        for path in paths:
            say(f"{word} {path}")
    say(
        f"{declared.service}: {plural(len(rendered), 'file')} from {app}, "
        + (f"{changes.count} of them new" if changes.count else "all as they were")
    )
    return 0


def check(app: App = DEFAULT_APP, into: Into = Path()) -> int:
    """Compare the generated files with the catalogue.

    Each disagreement is one line. Finds drift, missing files and orphans; queries that name a metric
    or label the catalogue lacks; alerts without a runbook; metrics that no rule or panel asks; recorded
    series that no rule records.
    Exits 0 when all agree, 1 with findings.

    \b
    Examples:
      taskscope check
      taskscope check --app myservice.telemetry --into deploy
    """
    from taskscope_ui.agreement import disagreements

    declared = Catalogue.load(app)
    rendered = artefacts.collect(declared)
    found = artefacts.present(into)
    findings = artefacts.drift(rendered, found)
    # What lies on disk is what production reads, so its queries are judged as well as the renders'.
    findings += disagreements(declared, {**rendered, **found})
    if findings:
        return _report(findings)
    say(f"{declared.service}: {plural(len(rendered), 'generated file')} agree with {app}")
    return 0


def _report(findings: list[artefacts.Finding]) -> int:
    for finding in sorted(set(findings)):
        say(str(finding))
    return 1


def catalogue(app: App = DEFAULT_APP, as_json: Json = False) -> int:
    """Show what a service declares.

    Its metrics with their labels and the bound of each, and its objectives.

    \b
    Examples:
      taskscope catalogue
      taskscope catalogue --app myservice.telemetry --json
    """
    declared = Catalogue.load(app)
    if as_json:
        say(json.dumps(_as_json(declared), indent=2, ensure_ascii=False))
        return 0
    table(
        f"Metrics of {declared.service}",
        ("metric", "series", "kind", "unit", "labels", "owner"),
        [
            (m.name, m.series, m.kind.value, m.unit, _labels(m), m.owner)
            for m in declared.all_metrics
        ],
    )
    if declared.objectives:
        say("")
        table(
            f"Objectives of {declared.service}",
            ("objective", "promise", "target", "over", "bad is"),
            [
                (o.name, o.title, f"{o.target * 100:f} %", f"{o.window.days} days", _bad(o))
                for o in declared.objectives
            ],
        )
    return 0


def version() -> int:
    """Print the versions of taskscope and of Python."""
    import platform
    from importlib.metadata import version as installed

    say(f"taskscope {installed('taskscope')} on Python {platform.python_version()}")
    return 0


def _labels(metric: Metric) -> str:
    """Each label with its bound: the most values it may have."""
    return ", ".join(f"{label.prometheus} (≤ {label.cap})" for label in metric.labels) or "none"


def _bad(objective: Objective) -> str:
    if objective.bad is not None:
        return f"{objective.bad.label} is {' or '.join(objective.bad.values)}"
    return f"longer than {objective.threshold} {objective.metric.unit}"


def _as_json(declared: Catalogue) -> dict[str, object]:
    return {
        "service": declared.service,
        "metrics": [
            {
                "name": m.name,
                "series": m.series,
                "exposed": list(m.exposed),
                "kind": m.kind.value,
                "unit": m.unit,
                "help": m.help,
                "owner": m.owner,
                "subsystem": m.subsystem,
                "job": declared.job(m),
                "labels": [
                    {
                        "name": label.name,
                        "prometheus": label.prometheus,
                        "values": list(label.values),
                        "cap": label.cap,
                    }
                    for label in m.labels
                ],
            }
            for m in declared.all_metrics
        ],
        "objectives": [
            {
                "name": o.name,
                "title": o.title,
                "metric": o.metric.name,
                "target": str(o.target),
                "window_days": o.window.days,
                "bad": _bad(o),
            }
            for o in declared.objectives
        ],
    }
