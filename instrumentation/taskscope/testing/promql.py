"""PromQL held against a catalogue: which series exist, and what is wrong with a query.

For the tests of rules, boards and pages, a service's own included. Needs promql-parser (Prometheus's grammar).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.testing.promql_series import FOREIGN, Series, known_series

__all__ = [
    "FOREIGN",
    "RATE_INTERVAL",
    "Series",
    "known_series",
    "lint",
    "selected_series",
    "substitute",
]

RATE_INTERVAL: Final = "61s"
"""What stands for `$__rate_interval` while a query is parsed: a range that nobody types."""

_GRAFANA: Final[dict[str, str]] = {
    "__rate_interval": RATE_INTERVAL,
    "__interval": "59s",
    "__interval_ms": "59000",
    "__range": "3601s",
    "__range_s": "3601",
    "__range_ms": "3601000",
}
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")


def substitute(expr: str, variables: Mapping[str, str]) -> str:
    """`expr` with Grafana's own variables and those given put in. Raises KeyError naming an unknown one."""

    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        return variables[name] if name in variables else _GRAFANA[name]

    return _VARIABLE.sub(value, expr)


def lint(
    catalogue: Catalogue,
    where: str,
    expr: str,
    *,
    variables: Mapping[str, str] | None = None,
    instant: bool = False,
    raw_ok: bool = False,
    rate_interval: bool = False,
) -> list[str]:
    """What is wrong with a query, one sentence a finding, each beginning with `where`; empty when clean.

    variables: the board's variables and a value for each, usually a pattern such as `.*`.
    raw_ok: a counter may be read without rate or increase. rate_interval: a board's query, whose rates
    must span `$__rate_interval`, unless it is `instant` and says its own range.
    """
    from taskscope.testing.promql_checks import findings

    try:
        text = substitute(expr, variables or {})
    except KeyError as error:
        return [f"{where}: variable ${error.args[0]} is not defined; declare it or write its value"]
    return [
        f"{where}: {finding}"
        for finding in findings(
            text,
            known_series(catalogue),
            raw_ok=raw_ok,
            span=RATE_INTERVAL if rate_interval and not instant else None,
        )
    ]


def selected_series(expr: str, variables: Mapping[str, str] | None = None) -> set[str]:
    """The names of all series that a query selects. Raises ValueError if it does not parse."""
    from taskscope.testing.promql_checks import series_of

    return series_of(substitute(expr, variables or {}))
