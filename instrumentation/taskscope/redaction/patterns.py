"""Patterns of a service's own: taken only if no text can make them slow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from taskscope.errors import SettingsError
from taskscope.redaction.named import MARK

__all__ = ["MOST_PATTERNS", "MOST_STEPS", "checked"]

MOST_STEPS: Final = 10_000
"""The most steps that one pattern may take at one character of a text, in the worst of texts."""
MOST_PATTERNS: Final = 32
"""The most patterns of one redaction."""
_LONGEST: Final = 1_000
_ENDLESS: Final = 2**31
_REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})


class _Work(NamedTuple):
    """ways: in how many ways a part can match, each of which may be tried. steps: what all of that takes."""

    ways: int = 1
    steps: int = 1

    def capped(self) -> _Work:
        return _Work(min(self.ways, _ENDLESS), min(self.steps, _ENDLESS))


def checked(patterns: Iterable[str | re.Pattern[str]]) -> tuple[re.Pattern[str], ...]:
    """The patterns, compiled. Raises SettingsError with a sentence for each that is wrong, slow or hides nothing."""
    given = tuple(patterns)
    faults: list[str] = []
    compiled: list[re.Pattern[str]] = []
    if len(given) > MOST_PATTERNS:
        raise SettingsError(
            f"redact: {len(given)} patterns are too many; take at most {MOST_PATTERNS} and join some with |"
        )
    for pattern in given:
        try:
            compiled.append(_compiled(pattern))
        except ValueError as fault:
            shown = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
            faults.append(f"redact: pattern {shown!r:.80} {fault}")
    if faults:
        raise SettingsError("; ".join(faults))
    return tuple(compiled)


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    text, flags = (
        (pattern.pattern, pattern.flags) if isinstance(pattern, re.Pattern) else (pattern, 0)
    )
    if not isinstance(text, str):
        raise ValueError("is no text; write it as a str")  # noqa: TRY004 # one kind for all faults
    if len(text) > _LONGEST:
        raise ValueError(f"is {len(text)} characters long; take at most {_LONGEST}")
    try:
        compiled = re.compile(text, flags)
        # The one place that knows how a pattern is read; there is no public one.
        tree = re._parser.parse(text, flags)  # type: ignore[attr-defined] # as above
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"cannot be read: {error}; mend it") from error
    if _sequence(tree).steps > MOST_STEPS:
        raise ValueError(
            f"may take more than {MOST_STEPS} steps at each character; give repeats smaller bounds, or write "
            "them as {1,20}+ so that they give nothing back"
        )
    if compiled.search(""):
        raise ValueError("matches a text of nothing; let it ask for one character at least")
    if compiled.search(MARK):
        raise ValueError(f"matches the mark {MARK} itself; let it ask for more, such as a prefix")
    return compiled


def _sequence(parts: Iterable[tuple[Any, Any]]) -> _Work:
    ways, steps = 1, 0
    for part in parts:
        work = _part(*part)
        steps += ways * work.steps
        ways *= work.ways
        ways, steps = _Work(ways, steps).capped()
    return _Work(ways, max(1, steps))


def _part(kind: object, value: Any) -> _Work:
    name = str(kind)
    if name in _REPEATS:
        work = _repeat(*value)
        return _Work(1, work.steps) if name == "POSSESSIVE_REPEAT" else work
    if name == "BRANCH":
        return _either(value[1])
    if name == "SUBPATTERN":
        return _sequence(value[-1])
    if name == "ATOMIC_GROUP":
        return _Work(1, _sequence(value).steps)
    if name in ("ASSERT", "ASSERT_NOT"):
        return _Work(1, _sequence(value[1]).steps)
    if name == "GROUPREF_EXISTS":
        return _either([branch for branch in value[1:] if branch is not None])
    return _Work()


def _either(branches: Iterable[Iterable[tuple[Any, Any]]]) -> _Work:
    works = [_sequence(branch) for branch in branches]
    return _Work(sum(w.ways for w in works), sum(w.steps for w in works)).capped()


def _repeat(least: int, most: int, parts: Iterable[tuple[Any, Any]]) -> _Work:
    if most == re._constants.MAXREPEAT:  # type: ignore[attr-defined] # as above
        raise ValueError("repeats without an upper bound; write {1,200} in place of + or *")
    inner = _sequence(parts)
    if inner.ways == 1:
        return _Work(most - least + 1, max(1, most * inner.steps)).capped()
    ways, steps, paths = 0, 0, 1
    for count in range(most + 1):
        ways += paths if count >= least else 0
        steps += paths * inner.steps
        paths *= inner.ways
        if steps > MOST_STEPS:
            return _Work(_ENDLESS, _ENDLESS)
    return _Work(ways, steps)
