"""The checks behind `taskscope.testing.promql.lint`, each a function over the parsed query.

Imported only by that module, so that nothing else needs promql-parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import promql_parser as ast

from taskscope.catalogue import Kind
from taskscope.testing.promql_series import Series

__all__ = ["findings", "series_of"]

_RISING: Final = frozenset({"rate", "irate", "increase", "resets"})
_MOVING: Final = frozenset({"delta", "idelta", "deriv", "predict_linear"})
_NEED_NO_RATE: Final = frozenset(
    {"absent", "absent_over_time", "present_over_time", "count_over_time", "changes", "timestamp"}
)
_COUNTING: Final = frozenset({"count", "group"})
_NAMELESS: Final = frozenset({"vector", "scalar", "time", "absent", "absent_over_time"})
_META = re.compile(r"[.*+?()\[\]{}^$\\]")


@dataclass(frozen=True, slots=True)
class _Node:
    """An expression and those around it, outermost first."""

    expr: ast.Expr
    parents: tuple[ast.Expr, ...]


def _children(expr: ast.Expr) -> Iterator[ast.Expr]:
    if isinstance(expr, ast.BinaryExpr):
        yield from (expr.lhs, expr.rhs)
    elif isinstance(expr, ast.AggregateExpr):
        yield expr.expr
        if isinstance(expr.param, ast.Expr):
            yield expr.param
    elif isinstance(expr, ast.Call):
        yield from (arg for arg in expr.args if isinstance(arg, ast.Expr))
    elif isinstance(expr, (ast.ParenExpr, ast.UnaryExpr, ast.SubqueryExpr)):
        yield expr.expr


def _walk(expr: ast.Expr, parents: tuple[ast.Expr, ...] = ()) -> Iterator[_Node]:
    yield _Node(expr, parents)
    for child in _children(expr):
        yield from _walk(child, (*parents, expr))


def _selector(expr: ast.Expr) -> ast.VectorSelector | None:
    if isinstance(expr, ast.MatrixSelector):
        return expr.vector_selector
    return expr if isinstance(expr, ast.VectorSelector) else None


def _name(selector: ast.VectorSelector) -> str | None:
    named = (m.value for m in selector.matchers.matchers if m.name == "__name__")
    return selector.name or next(named, None)


def series_of(expr: str) -> set[str]:
    """The names of all series that `expr` selects. Raises ValueError if it does not parse."""
    selectors = (_selector(node.expr) for node in _walk(ast.parse(expr)))
    return {name for s in selectors if s is not None and (name := _name(s)) is not None}


def findings(
    expr: str, known: Mapping[str, Series], *, raw_ok: bool, span: str | None
) -> list[str]:
    """All findings of one query, each once, in the order of the query.

    span: the range that every rate must have, or None for any.
    """
    try:
        tree = ast.parse(expr)
    except ValueError as error:
        return [f"does not parse: {error}; correct the query {expr}"]
    out: list[str] = []
    for node in _walk(tree):
        selector = _selector(node.expr)
        if selector is not None:
            out += _check_selector(node, selector, known, raw_ok=raw_ok, span=span)
        elif isinstance(node.expr, ast.AggregateExpr):
            out += _check_grouping(node.expr, known)
        elif isinstance(node.expr, ast.BinaryExpr):
            out += _check_matching(node.expr, known)
        elif isinstance(node.expr, ast.Call):
            out += _check_call(node.expr, known)
    return list(dict.fromkeys(out))


def _check_selector(
    node: _Node,
    selector: ast.VectorSelector,
    known: Mapping[str, Series],
    *,
    raw_ok: bool,
    span: str | None,
) -> Iterator[str]:
    name = _name(selector)
    if name is None:
        yield "a selector names no metric; begin it with the metric's name"
        return
    series = known.get(name)
    if series is None:
        close = get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]}" if close else "declare it"
        yield f"metric {name} is not in the catalogue; {remedy}"
        return
    yield from _check_matchers(selector, series)
    yield from _check_kind(node, series, raw_ok=raw_ok)
    function = _function(node)
    if (
        span is not None
        and function in _RISING
        and isinstance(node.expr, ast.MatrixSelector)
        and ast.display_duration(node.expr.range) != ast.display_duration(ast.parse_duration(span))
    ):
        yield f"{function}({name}[…]) has a fixed range; write [$__rate_interval]"


def _check_matchers(selector: ast.VectorSelector, series: Series) -> Iterator[str]:
    if selector.matchers.or_matchers:
        yield f"{series.name}: `or` inside braces is not PromQL; use a pattern or two selectors"
    names = {matcher.name for matcher in selector.matchers.matchers}
    for matcher in selector.matchers.matchers:
        if matcher.name == "__name__":
            continue
        if matcher.name not in series.labels:
            yield _unknown_label(series.name, matcher.name, series.labels)
        elif listed := series.values.get(matcher.name):
            yield from _check_value(series.name, matcher, listed)
    if series.scope not in names:
        yield (
            f"{series.name} is selected without a {series.scope} matcher; "
            f'add {series.scope}="…", or it mixes in other services'
        )


def _unknown_label(series: str, label: str, labels: tuple[str, ...]) -> str:
    return f"{series} has no label {label}; it has {', '.join(labels) or 'none'}"


def _check_value(series: str, matcher: ast.Matcher, listed: tuple[str, ...]) -> Iterator[str]:
    if matcher.op in (ast.MatchOp.Equal, ast.MatchOp.NotEqual):
        wrong = [] if matcher.value in listed else [matcher.value]
        if matcher.op == ast.MatchOp.NotEqual and matcher.value == "":
            wrong = []
    elif not _META.search(matcher.value):
        wrong = [value for value in matcher.value.split("|") if value not in listed]
    else:
        pattern = re.compile(matcher.value)
        wrong = [] if any(pattern.fullmatch(value) for value in listed) else [matcher.value]
    for value in wrong:
        yield (
            f"{series}: no {matcher.name} is {value!r}; it is one of "
            f"{', '.join(value for value in listed if value != '__overflow__')}"
        )


def _function(node: _Node) -> str | None:
    """The function whose argument the selector is, through parentheses and a subquery."""
    for parent in reversed(node.parents):
        if isinstance(parent, ast.Call):
            return parent.func.name
        if not isinstance(parent, (ast.ParenExpr, ast.SubqueryExpr)):
            return None
    return None


def _check_kind(node: _Node, series: Series, *, raw_ok: bool) -> Iterator[str]:
    function = _function(node)
    if series.kind is Kind.GAUGE and function in _RISING:
        yield f"{function}() over the gauge {series.name}; take delta() or deriv(), or its value"
    if series.kind is not Kind.COUNTER:
        return
    if function in _MOVING:
        yield f"{function}() over the counter {series.name}; take rate() or increase()"
    elif not raw_ok and function not in _RISING | _NEED_NO_RATE and not _only_counted(node):
        yield f"the counter {series.name} is shown raw; take rate() or increase() of it"


def _only_counted(node: _Node) -> bool:
    parent = next((p for p in reversed(node.parents) if not isinstance(p, ast.ParenExpr)), None)
    return isinstance(parent, ast.AggregateExpr) and str(parent.op) in _COUNTING


def _labels(expr: ast.Expr, known: Mapping[str, Series]) -> set[str]:
    """The labels that the expression's result may carry."""
    selector = _selector(expr)
    if selector is not None:
        series = known.get(_name(selector) or "")
        return set(series.labels) if series else {m.name for m in selector.matchers.matchers}
    if isinstance(expr, ast.AggregateExpr):
        return _labels_of_aggregate(expr, known)
    if isinstance(expr, ast.Call):
        return _labels_of_call(expr, known)
    return set().union(*(_labels(child, known) for child in _children(expr)))


def _labels_of_aggregate(expr: ast.AggregateExpr, known: Mapping[str, Series]) -> set[str]:
    inner, operator = _labels(expr.expr, known), str(expr.op)
    if operator in ("topk", "bottomk", "limitk"):
        return inner
    made = {expr.param.val} if isinstance(expr.param, ast.StringLiteral) else set()
    if expr.modifier is None:
        return made
    named = set(expr.modifier.labels)
    by = expr.modifier.type == ast.AggModifierType.By
    return (inner & named if by else inner - named) | made


def _labels_of_call(expr: ast.Call, known: Mapping[str, Series]) -> set[str]:
    name = expr.func.name
    if name in _NAMELESS:
        if not name.startswith("absent"):
            return set()
        selector = _selector(expr.args[0])
        equal = selector.matchers.matchers if selector is not None else []
        return {matcher.name for matcher in equal if matcher.op == ast.MatchOp.Equal}
    inner = set().union(*(_labels(child, known) for child in _children(expr)))
    if name in ("label_replace", "label_join") and isinstance(expr.args[1], ast.StringLiteral):
        inner.add(expr.args[1].val)
    return inner - {"le"} if name == "histogram_quantile" else inner


def _check_grouping(expr: ast.AggregateExpr, known: Mapping[str, Series]) -> Iterator[str]:
    if expr.modifier is None or not _all_known(expr.expr, known):
        return
    labels = _labels(expr.expr, known)
    word = "by" if expr.modifier.type == ast.AggModifierType.By else "without"
    for label in expr.modifier.labels:
        if label not in labels:
            has = ", ".join(sorted(labels)) or "no label"
            yield f"{word} ({label}): nothing below has that label; there is {has}"


def _check_matching(expr: ast.BinaryExpr, known: Mapping[str, Series]) -> Iterator[str]:
    matching = expr.modifier.matching if expr.modifier else None
    if matching is None or not (_all_known(expr.lhs, known) and _all_known(expr.rhs, known)):
        return
    left, right = _labels(expr.lhs, known), _labels(expr.rhs, known)
    on = matching.type == ast.LabelModifierType.Include
    has = left & right if on else left | right
    for label in matching.labels:
        if label not in has:
            word = "on" if on else "ignoring"
            yield f"{word} ({label}): {'not both sides have' if on else 'no side has'} that label; name one of theirs"


def _all_known(expr: ast.Expr, known: Mapping[str, Series]) -> bool:
    # An unknown metric is reported by itself; guesses about its labels would only add noise.
    selectors = (_selector(node.expr) for node in _walk(expr))
    return all(_name(s) in known for s in selectors if s is not None)


def _check_call(expr: ast.Call, known: Mapping[str, Series]) -> Iterator[str]:
    name = expr.func.name
    inside = [node.expr for argument in _children(expr) for node in _walk(argument)]
    if name in _RISING and any(isinstance(inner, ast.AggregateExpr) for inner in inside):
        yield f"{name}() of an aggregate hides counter resets; aggregate after the {name}"
    if name != "histogram_quantile":
        return
    buckets = expr.args[1]
    if _all_known(buckets, known) and "le" not in _labels(buckets, known):
        yield "histogram_quantile() over something without le; keep le in the by (…), over …_bucket"
    if not any(isinstance(inner, ast.Call) and inner.func.name in _RISING for inner in inside):
        yield "histogram_quantile() without rate() answers for all time; take the rate of the buckets"
