"""`Redaction`: the presets, names and patterns that one service hides, as functions of a text, a name, a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from taskscope.errors import SettingsError
from taskscope.redaction.named import MARK, hide_named, hide_statements
from taskscope.redaction.names import Names, Secret, words_of
from taskscope.redaction.patterns import checked
from taskscope.redaction.presets import PRESETS, SHAPES
from taskscope.redaction.tokens import hide_keys, hide_tokens
from taskscope.redaction.walk import FIRST_CARD, Limits, Plain, Walk

__all__ = ["DEFAULT", "REDACTED", "Redaction", "is_secret_key", "redact", "redact_text"]

REDACTED: Final = MARK
"""What stands where a secret stood."""

_SHORTEST: Final = 6
"""None of the default's shapes is shorter, so shorter text is not searched."""
_ROUNDS: Final = 6
_LAYERS: Final = 4
"""So many times may a secret be percent-encoded, as in a URL that is a parameter of another."""
_MOST_KEYS: Final = 256
_LEAST_OWN: Final = 10**9
"""A smaller number is no identifier of anybody; patterns are not tried on it."""
_Hide = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What is hidden, in lines, spans and whatever else leaves the process.

    presets: names from PRESETS. keys: further names whose values go, such as `customer_no`, however they are
    written. patterns: further regular expressions; what they match is replaced.
    Raises SettingsError for a preset that there is not, a key without letters or digits, and a pattern that is
    wrong or that some text could make slow.
    """

    presets: tuple[str, ...] = ("default",)
    keys: tuple[str, ...] = ()
    patterns: tuple[str | re.Pattern[str], ...] = ()
    secret: Secret = field(init=False, repr=False, compare=False)
    """Whether a value of that name is hidden."""
    _more: tuple[_Hide, ...] = field(init=False, repr=False, compare=False)
    _shortest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        presets, keys = _texts("presets", self.presets), _texts("keys", self.keys)
        patterns = checked(_given(self.patterns))
        _check(presets, keys)
        names = sum((PRESETS[name].names for name in presets), Names())
        shapes = [name for name in SHAPES if any(name in PRESETS[p].shapes for p in presets)]
        more = [hide for name in shapes if (hide := SHAPES[name].hide) is not None]
        for name, value in (
            ("presets", presets),
            ("keys", keys),
            ("patterns", tuple(_given(self.patterns))),
            ("secret", names.test(keys)),
            ("_more", (*more, *(_replacing(pattern) for pattern in patterns))),
            (
                "_shortest",
                _SHORTEST if set(presets) <= {"secrets", "default"} and not patterns else 1,
            ),
        ):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[object, ...]:
        # Settings are handed to processes that were started anew; what was made of the fields cannot be.
        return _made, (self.presets, self.keys, self.patterns)

    @classmethod
    def of(cls, presets: str) -> Redaction:
        """That of presets with commas between, as in `TASKSCOPE_REDACT=pci,gdpr`. Raises SettingsError."""
        return cls(presets=tuple(name.strip() for name in presets.split(",") if name.strip()))

    @property
    def common(self) -> bool:
        """Whether short words and numbers below a card's hold nothing to hide, as with the default."""
        return self._shortest == _SHORTEST

    @property
    def least(self) -> int:
        """The smallest number in which something may have to be hidden."""
        return FIRST_CARD if self.common else _LEAST_OWN

    def text(self, text: str) -> str:
        """The text without what is to be hidden, also where it is encoded as in a URL or form.

        Applying it twice changes nothing more.
        """
        if len(text) < self._shortest:
            return text
        clean = self._once(text)
        if clean == text:
            if "%" not in text and "+" not in text:
                return text
            clean = self._opened(text)
            if clean == text:
                return text
        return self._settled(clean)

    def walk(self, *, limits: Limits | None = None) -> Walk:
        """A walk over one value."""
        return Walk(text=self.text, secret=self.secret, limits=limits or Limits(), least=self.least)

    def redact(self, value: object, *, key: str = "") -> Plain:
        """A plain, bounded copy of `value` without what is to be hidden; `key` is the name it stands under, if any.

        Never raises; depth, items and cycles are bounded by `Limits`.
        """
        walk = self.walk()
        return walk.named(key, value) if key else walk.value(value)

    def _once(self, text: str) -> str:
        if "-" in text:
            text = hide_keys(text)
        if ":" in text or "=" in text or "'" in text or '"' in text or ">" in text or "--" in text:
            text = hide_named(text, self.secret)
        text = hide_tokens(text)
        if "(" in text and (" contains (" in text or "Key (" in text or "alues" in text.lower()):
            text = hide_statements(text, self.secret)
        for hide in self._more:
            text = hide(text)
        return text

    def _opened(self, text: str) -> str:
        """The text, decoded and redacted if a secret shows when it is decoded."""
        opened = text
        for _ in range(_LAYERS):
            further = unquote_plus(opened)
            if further == opened:
                break
            opened = further
            clean = self._once(opened)
            if clean != opened:
                return clean
        return text

    def _settled(self, text: str) -> str:
        """What is left when nothing more is found; what a mark joined together may be a secret's shape again."""
        for _ in range(_ROUNDS):
            again = self._once(text)
            if again == text and ("%" in text or "+" in text):
                again = self._opened(text)
            if again == text:
                return text
            text = again
        return REDACTED


def _made(presets: tuple[str, ...], keys: tuple[str, ...], patterns: tuple[str, ...]) -> Redaction:
    return Redaction(presets=presets, keys=keys, patterns=patterns)


def _texts(what: str, given: object) -> tuple[str, ...]:
    found = tuple(_given(given))
    for each in found:
        if not isinstance(each, str):
            raise SettingsError(f"redact: {what} holds {each!r:.80}; write names as texts")
    return found


def _given(value: object) -> Iterable[str]:
    # A single text is what everybody writes first: each of its letters is not what they mean.
    return (value,) if isinstance(value, str | re.Pattern) else tuple(value)  # type: ignore[return-value,arg-type] # looked at by the reader


def _check(presets: tuple[str, ...], keys: tuple[str, ...]) -> None:
    faults = [
        f"redact: there is no preset {name!r:.80}; take some of {', '.join(PRESETS)}"
        for name in presets
        if name not in PRESETS
    ]
    if not presets:
        faults.append(f"redact: no preset is named; take some of {', '.join(PRESETS)}")
    faults += [
        f"redact: key {key!r:.80} holds no word; write a name such as customer_no"
        for key in keys
        if not words_of(key)
    ]
    if len(keys) > _MOST_KEYS:
        faults.append(f"redact: {len(keys)} keys are too many; take at most {_MOST_KEYS}")
    if faults:
        raise SettingsError("; ".join(faults))


def _replacing(pattern: re.Pattern[str]) -> _Hide:
    return lambda text: pattern.sub(REDACTED, text)


DEFAULT: Final = Redaction()
"""What is hidden where nothing was said."""


def is_secret_key(key: str) -> bool:
    """Whether the default hides a value of that name: `password`, `X-Api-Key`, `db.passwd`, `accessToken`."""
    return DEFAULT.secret(key)


def redact_text(text: str) -> str:
    """The text without what the default hides. Applying it twice changes nothing more."""
    return DEFAULT.text(text)


def redact(value: object, *, key: str = "") -> Plain:
    """A plain, bounded copy of `value` without what the default hides; see `Redaction.redact`."""
    return DEFAULT.redact(value, key=key)
