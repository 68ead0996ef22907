"""Text that is safe in a log: nothing in it can forge a line, steer a terminal or grow without bound."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["cut", "cut_middle", "visible"]

# C0, DEL, C1, line and paragraph separator, the bidirectional overrides, and halves of surrogate pairs.
_UNSAFE: Final = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ONE_LINE: Final = re.compile(f"[{_UNSAFE}]")
_MANY_LINES: Final = re.compile(f"(?![\n\t])[{_UNSAFE}]")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with every control character spelled out, as `\\x1b` or `\\n`; the result is valid Unicode.

    lines: whether line breaks and tabs stay, as in a stack trace; JSON escapes them.
    """
    if text.isprintable():
        return text
    return (_MANY_LINES if lines else _ONE_LINE).sub(_spell, text)


def _spell(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def cut(text: str, limit: int) -> str:
    """The text's beginning, at most `limit` bytes of UTF-8, never half a character."""
    if len(text) * 4 <= limit:
        return text
    packed = text[:limit].encode("utf-8", "surrogatepass")
    if len(packed) <= limit:
        return text[:limit]
    return packed[:limit].decode("utf-8", "ignore")


def cut_middle(text: str, limit: int) -> str:
    """The text's two ends, at most about `limit` characters: in a stack trace both tell more than the middle."""
    if len(text) <= limit:
        return text
    head = limit // 3
    return f"{text[:head]}\n[… {len(text) - limit} characters …]\n{text[-(limit - head) :]}"
