"""Secrets that stand under their name within a text: `password=…`, `"token": "…"`, `Cookie: …`, `--api-key …`."""

from __future__ import annotations

import re
from typing import Final

from taskscope.redaction.names import Secret

__all__ = ["MARK", "hide_named", "hide_statements"]

MARK: Final = "[redacted]"

# A run of a name's signs is read once, from its start; then comes what leads to a value.
_NAME: Final = re.compile(
    r"""(?<![\w.\-\[\]$])(?P<dash>--)?(?P<name>[\w.\-\[\]$]++)
        (?:\\{0,7}["']?\]?[\s+]{0,4}(?:[=-]>|={1,3}|:=?)(?:[\s+]|%20){0,4}
        |\\{0,7}["'][\s+]{0,4},(?:[\s+]|%20){0,4}
        |[ ]{1,4}(?=[bBnNrRuU]?\\{0,7}["'])
        |>(?=[^\s<])
        |(?(dash)[ ]{1,4}(?![\-\s])|(?!)))""",
    re.VERBOSE,
)
_SCHEME: Final = re.compile(
    r"[\"']?(?:bearer|basic|digest|token|apikey)\s{1,4}(?=\S)", re.IGNORECASE
)
_NOTHING: Final = re.compile(
    r"(?:none|null|nil|undefined|true|false)(?=[\s,;)\]}&\"']|\Z)", re.IGNORECASE
)
_QUOTED: Final = re.compile(
    r"""[bBnNrRuUfF]{0,2}(?:"(?:[^"\\]|\\.|"")*+(?:"|\\?\Z)|'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z))""",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(r"[bBnNrRuUfF]{0,2}(?P<end>\\{1,7}[\"'])")
_BARE: Final = re.compile(
    r"""(?:[^\s"'&,;)\]}]|[,;)\]}](?![\w.\-"']{0,64}\s?[=:]|[\s"'&,;)\]}]|\Z))++"""
)
_LINE: Final = re.compile(r"[^\r\n]++")
_MOST_INNER: Final = 32
_SIGN_CHARS: Final = 24
_PART: Final = re.compile(
    r""""(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|[\[({]|[\])}]""", re.DOTALL
)
_OPENING: Final = "[({"
_QUOTES: Final = ('"', "'", "\\")
_WHOLE_LINE: Final = re.compile(r"(?:authorization|cookies?)\Z", re.IGNORECASE)
_LONGEST: Final = 256
_ECHOES: Final = frozenset({"input", "input_value"})


def hide_named(text: str, secret: Secret) -> str:
    """The text without the values that stand under a name which `secret` knows.

    What a validation error echoes (`input`) and the parameters that SQLAlchemy prints are such values too.
    """
    echoes = "input_type=" in text or ("loc" in text and "input" in text)
    kept: list[str] = []
    copied = at = 0
    while found := _NAME.search(text, at):
        name, at = found["name"], found.end()
        hides = secret(name[-_LONGEST:]) or (echoes and name in _ECHOES) or name == "[parameters"
        if not hides and text[found.start() - 1 : found.start()] == "\\":
            # Its first letter may be the n of a line break that is spelled out.
            hides = secret(name[1:][-_LONGEST:]) or name[1:] == "[parameters"
        if not hides:
            continue
        end = _whole_end(text, at, _end_of_value(text, at, name), secret)
        if end > at:
            kept += text[copied:at], MARK
            copied = at = end
    return "".join((*kept, text[copied:])) if kept else text


def _whole_end(text: str, at: int, end: int, secret: Secret) -> int:
    """The end of a value and of all whose names stand in it: what looked like one may be two, by a lost quotation."""
    place = at
    for _ in range(_MOST_INNER):
        while inner := _NAME.search(text, place, end + _SIGN_CHARS):
            place = inner.end()
            if inner.start() >= end:
                return end
            if secret(inner["name"][-_LONGEST:]):
                break
        else:
            return end
        end = max(end, _end_of_value(text, place, inner["name"]))
    return len(text)


def _end_of_value(text: str, at: int, name: str) -> int:
    """Where the value that begins at `at` ends; `at` itself if there is nothing to hide."""
    if text.startswith(MARK, at) or _NOTHING.match(text, at):
        return at
    if escaped := _ESCAPED.match(text, at):
        closed = re.compile(r"(?<!\\)" + re.escape(escaped["end"])).search(text, escaped.end())
        return closed.end() if closed else len(text)
    if quoted := _QUOTED.match(text, at):
        return quoted.end()
    if _WHOLE_LINE.search(name):
        line = _LINE.match(text, at)
        return line.end() if line else at
    if text[at : at + 1] in _OPENING and at < len(text):
        return _end_of_brackets(text, at)
    if scheme := _SCHEME.match(text, at):
        at = scheme.end()
        if text.startswith(MARK, at):
            return at + len(MARK)
        quoted = _QUOTED.match(text, at)
        if quoted:
            return quoted.end()
    bare = _BARE.match(text, at)
    return bare.end() if bare else at


def _end_of_brackets(text: str, at: int) -> int:
    depth = 0
    for part in _PART.finditer(text, at):
        if part[0] in _OPENING:
            depth += 1
        elif part[0] in "])}":
            depth -= 1
            if depth == 0:
                return part.end()
    return len(text)


_ROW: Final = re.compile(r"(Failing row contains )\((?!\[redacted\]\))[^\r\n]*")
_KEY: Final = re.compile(r"(Key \([^)\r\n]{1,256}\)=)\((?!\[redacted\]\))[^\r\n]*\)")
_INSERT: Final = re.compile(
    r"(?:insert|replace)\s{1,8}into\s[^()]{1,256}\((?P<columns>[^()]{1,4096})\)\s{0,8}values\s{0,8}",
    re.IGNORECASE,
)
_AND_MORE: Final = re.compile(r"\s{0,8},\s{0,8}(?=\()")


def hide_statements(text: str, secret: Secret) -> str:
    """The text without the rows that a database repeats, and those of an INSERT that names a secret column."""
    if "row contains" in text or "Key (" in text:
        text = _KEY.sub(rf"\1({MARK})", _ROW.sub(rf"\1({MARK}).", text))
    kept: list[str] = []
    copied = at = 0
    while found := _INSERT.search(text, at):
        at = found.end()
        if not any(secret(name.strip(' "`\t\r\n')) for name in found["columns"].split(",")):
            continue
        if not text.startswith("(", at) or text.startswith(f"({MARK})", at):
            continue
        kept += text[copied:at], f"({MARK})"
        at = _end_of_brackets(text, at)
        while more := _AND_MORE.match(text, at):
            at = _end_of_brackets(text, more.end())
        copied = at
    return "".join((*kept, text[copied:])) if kept else text
