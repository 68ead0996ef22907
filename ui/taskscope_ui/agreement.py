"""Whether rules, boards and runbooks agree with the catalogue: every query, every alert, every metric.

Read by `taskscope build`, which writes nothing that disagrees, and by `taskscope check`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from taskscope.catalogue import Catalogue
from taskscope.catalogue.links import runbook_path
from taskscope.catalogue.promql import RECORDED
from taskscope_ui.artefacts import Finding

__all__ = ["Query", "disagreements"]

_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\s*\)\Z", re.DOTALL)
_ALERTS = PurePosixPath("alerts")
_LONGEST = 20_000
_DEEPEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression: where it stands, and what its board defines.

    from_board: rates span `$__rate_interval` there. raw: counters may be read as they are.
    """

    where: str
    expr: str
    variables: Mapping[str, str] = field(default_factory=dict)
    from_board: bool = False
    instant: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    path: str
    name: str
    expr: str
    alert: bool


def disagreements(catalogue: Catalogue, files: Mapping[str, str]) -> list[Finding]:
    """Everything in `files` (text by path relative to the project) that does not fit the catalogue.

    Every query names series and labels that exist; every alert has its runbook; every metric is asked by
    a rule or a panel; every recorded series of the contract is recorded, and no other.
    """
    findings: list[Finding] = []
    rules = _rules(files, findings)
    queries = [Query(where=f"{r.path}: {r.name}", expr=r.expr) for r in rules]
    queries += _board_queries(files, findings)
    findings += [_too_deep(query) for query in queries if not _parsable(query.expr)]
    queries = [query for query in queries if _parsable(query.expr)]
    findings += _lint(catalogue, queries)
    findings += _without_runbook(rules, files)
    findings += _never_asked(catalogue, queries)
    findings += _recorded(catalogue, rules)
    return sorted(set(findings))


def _parsable(expr: str) -> bool:
    """Whether the parser can be asked: it has no bound of its own, and takes the process with it."""
    return len(expr) <= _LONGEST and expr.count("(") <= _DEEPEST and expr.count("-") <= _DEEPEST


def _too_deep(query: Query) -> Finding:
    return Finding(
        where=query.where,
        what=f"is longer than {_LONGEST} characters, or has more than {_DEEPEST} brackets",
        remedy="cut the query into recorded series",
    )


def _lint(catalogue: Catalogue, queries: list[Query]) -> Iterator[Finding]:
    from taskscope.testing.promql import lint

    for query in queries:
        sentences = lint(
            catalogue,
            query.where,
            query.expr,
            variables=query.variables,
            instant=query.instant,
            raw_ok=query.raw,
            rate_interval=query.from_board,
        )
        for sentence in sentences:
            what, _, remedy = sentence.removeprefix(f"{query.where}: ").rpartition("; ")
            yield Finding(where=query.where, what=what or remedy, remedy=remedy)


def _without_runbook(rules: list[_Rule], files: Mapping[str, str]) -> Iterator[Finding]:
    for rule in rules:
        book = str(_ALERTS / "runbooks" / runbook_path(rule.name))
        if rule.alert and not files.get(book, "").strip():
            yield Finding(
                where=rule.path,
                what=f"alert {rule.name} has no runbook",
                remedy=f"render {book}, or drop the alert",
            )


def _never_asked(catalogue: Catalogue, queries: list[Query]) -> Iterator[Finding]:
    asked = set().union(*(_selected(query) for query in queries))
    for metric in catalogue.all_metrics:
        if asked.isdisjoint(metric.exposed):
            yield Finding(
                where=catalogue.service,
                what=f"metric {metric.name} is asked by no rule or panel",
                remedy=f"give {metric.series} a panel or a rule, or stop declaring it",
            )


def _selected(query: Query) -> set[str]:
    from taskscope.testing.promql import selected_series

    try:
        return selected_series(query.expr, query.variables)
    except (KeyError, ValueError):
        return set()  # lint has its sentence about it


def _recorded(catalogue: Catalogue, rules: list[_Rule]) -> Iterator[Finding]:
    recorded = {rule.name: rule.path for rule in rules if not rule.alert}
    for series in RECORDED:
        judged_by_objective = series.startswith("slo:")
        if series not in recorded and (catalogue.objectives or not judged_by_objective):
            yield Finding(
                where=catalogue.service,
                what=f"series {series} is recorded by no rule",
                remedy="add a recording rule, or take the name out of the catalogue's RECORDED",
            )
    for series, path in recorded.items():
        if series not in RECORDED:
            yield Finding(
                where=path,
                what=f"records {series}, which the catalogue's RECORDED does not name",
                remedy="name it there with its labels, or correct it",
            )


def _rules(files: Mapping[str, str], findings: list[Finding]) -> list[_Rule]:
    """Every rule of every rules file; a file that cannot be read becomes a finding."""
    import yaml

    rules: list[_Rule] = []
    for path, text in files.items():
        if not (path.startswith("alerts/generated/") and path.endswith(".rules.yml")):
            continue
        try:
            groups = yaml.safe_load(text)["groups"]
            for entry in (rule for group in groups for rule in group["rules"]):
                name = str(entry.get("alert") or entry["record"])
                rules.append(
                    _Rule(path=path, name=name, expr=str(entry["expr"]), alert="alert" in entry)
                )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError):
            findings.append(_unreadable(path, "rules file"))
    return rules


def _board_queries(files: Mapping[str, str], findings: list[Finding]) -> list[Query]:
    queries: list[Query] = []
    for path, text in files.items():
        if not (path.startswith("dashboards/generated/") and path.endswith(".json")):
            continue
        try:
            queries += _queries_of(path, json.loads(text))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError):
            findings.append(_unreadable(path, "board"))
    return queries


def _unreadable(path: str, kind: str) -> Finding:
    return Finding(
        where=path, what=f"cannot be read as a {kind}", remedy="run `taskscope build`, or delete it"
    )


def _queries_of(path: str, board: dict[str, object]) -> Iterator[Query]:
    templating = board.get("templating")
    listed = templating.get("list", []) if isinstance(templating, dict) else []
    variables = {str(v["name"]): ".*" for v in listed}
    for variable in listed:
        yield from _variable_query(path, variable, variables)
    for title, target in _targets(board, ""):
        yield Query(
            where=f"{path}: {title}",
            expr=str(target["expr"]),
            variables=variables,
            from_board=True,
            instant=bool(target.get("instant")),
        )


def _variable_query(
    path: str, variable: dict[str, object], variables: Mapping[str, str]
) -> Iterator[Query]:
    query = variable.get("query")
    text = str(query.get("query", "")) if isinstance(query, dict) else str(query or "")
    found = _LABEL_VALUES.match(text.strip())
    if found:
        # As an aggregate by that label it is PromQL, and the label is checked with the series.
        yield Query(
            where=f"{path}: variable {variable['name']}",
            expr=f"count by ({found['label']}) ({found['selector']})",
            variables=variables,
            raw=True,
        )


def _targets(node: object, title: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every object with an `expr`, with the title of the panel it stands in."""
    if isinstance(node, dict):
        title = str(node.get("title") or title)
        if isinstance(node.get("expr"), str):
            yield str(node.get("name") or title), node
        for value in node.values():
            yield from _targets(value, title)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, title)
