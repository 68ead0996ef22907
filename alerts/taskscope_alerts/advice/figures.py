"""Numbers as a person reads them: shares in per cent, spans in days, hours and minutes."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from taskscope.catalogue.promql import number

__all__ = ["percent", "span"]


def percent(share: Decimal) -> str:
    """`0.0144` as `1.44 %`, to three places at most."""
    return f"{number((share * 100).quantize(Decimal('0.001'), rounding=ROUND_HALF_UP))} %"


def span(seconds: Decimal) -> str:
    """A length of time in its two largest units: `2 d 2 h`, `43 min 12 s`."""
    rest = int(seconds.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    words: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words[:2]) or "0 s"
