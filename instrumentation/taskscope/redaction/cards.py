"""Card numbers: 13 to 19 digits that begin with 2 to 6 and pass the Luhn check."""

from __future__ import annotations

import re
from typing import Final

from taskscope.redaction.named import MARK

__all__ = ["hide_cards", "hide_cards_anywhere"]

# As cards are printed and typed: in one piece, in fours, or 4-6-5. The set stands first, for a quick search.
_CARD: Final = re.compile(
    r"""[2-6]\d{3}(?<![^\W_]\d{4})(?<!\d\.\d{4})
        (?:(?:[ \-]\d{4}){3}(?:[ \-]\d{1,3}(?!\d))?|[ \-]\d{6}[ \-]\d{4,5}|\d{9,15})(?![^\W_])""",
    re.VERBOSE,
)
_ANYWHERE: Final = re.compile(r"(?<!\d)[2-6](?:[ .\-_/\u00a0\u2010-\u2015]{0,3}\d){12,18}")
_TRACK: Final = re.compile(r"%B\d{8,19}\^[^\r\n?]{1,128}\??|;\d{8,19}=\d{4,64}\??")
_FEWEST: Final = 13
_PRINTED: Final = 16


def hide_cards(text: str) -> str:
    """The text without numbers that are card numbers, in the forms that people write them in."""
    kept: list[str] = []
    copied = at = 0
    while found := _CARD.search(text, at):
        digits = [int(sign) for sign in found[0] if sign.isdigit()]
        at = found.start() + 1
        # After four fours may come the three digits of the card's back.
        printed = not found[0].isdigit() and _luhn(digits[:_PRINTED])
        if printed or _luhn(digits):
            kept += text[copied : found.start()], MARK
            copied = at = found.end()
    return "".join((*kept, text[copied:])) if kept else text


def hide_cards_anywhere(text: str) -> str:
    """The same with letters right beside the number and any signs between its digits, and without track data."""
    text = _TRACK.sub(MARK, text)
    kept: list[str] = []
    copied = at = 0
    while found := _ANYWHERE.search(text, at):
        end = _longest_card(text, found)
        at = found.start() + 1
        if end:
            kept += text[copied : found.start()], MARK
            copied = at = end
    return "".join((*kept, text[copied:])) if kept else text


def _longest_card(text: str, found: re.Match[str]) -> int:
    """Where the longest number that passes ends, 0 if none does; a number is not cut within a group of digits."""
    ends = [at + 1 for at in range(found.start(), found.end()) if text[at].isdigit()]
    digits = [int(text[end - 1]) for end in ends]
    for count in range(len(digits), _FEWEST - 1, -1):
        whole = not text[ends[count - 1] : ends[count - 1] + 1].isdigit()
        if whole and _luhn(digits[:count]):
            return ends[count - 1]
    return 0


def _luhn(digits: list[int]) -> bool:
    doubled = (d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2])
    return len(digits) >= _FEWEST and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
