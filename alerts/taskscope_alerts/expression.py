"""PromQL laid out one operand a line, so that a review reads a rule and a diff shows what changed in it."""

from __future__ import annotations

import textwrap

__all__ = ["all_of", "any_of", "binary", "enclosed", "risen"]


def binary(left: str, operator: str, right: str) -> str:
    """Two operands with the operator on a line of its own."""
    return f"{left}\n{operator}\n{right}"


def enclosed(expr: str) -> str:
    """The expression in brackets, indented by two."""
    return f"(\n{textwrap.indent(expr, '  ')}\n)"


def all_of(*conditions: str) -> str:
    """PromQL that answers with the first condition's value where every condition holds."""
    return "\nand\n".join(conditions)


def any_of(*conditions: str) -> str:
    """PromQL that answers where at least one condition holds; each is put in brackets."""
    if len(conditions) == 1:
        return conditions[0]
    return "\nor\n".join(enclosed(condition) for condition in conditions)


def risen(counter: str, window: str, *, born: str = "") -> str:
    """How much each series of a counter rose in `window`, at least: one that is new counts 1 by being there.

    counter: a selector of series that appear with what they count, so that `increase` does not see their first
    event. born: a narrower one of those that do, where others are there from the start. A series that was not
    scraped for less than an hour is not new.
    """
    new = born or counter
    appeared = (
        f"present_over_time({new}[{window}])\nunless\npresent_over_time({new}[1h] offset {window})"
    )
    return f"increase({counter}[{window}]) > 0\nor\n{enclosed(appeared)}"
