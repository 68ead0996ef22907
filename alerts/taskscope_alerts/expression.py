"""PromQL laid out one operand a line, so that a review reads a rule and a diff shows what changed in it."""

from __future__ import annotations

import textwrap

__all__ = ["all_of", "any_of", "binary", "enclosed"]


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
