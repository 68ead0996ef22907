"""A walk over any value that makes a plain, bounded copy without its secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from taskscope.redaction.named import MARK

__all__ = ["FIRST_CARD", "Limits", "Plain", "Walk"]

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
"""A value as JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a value is read: nesting, items of one container, values in all, characters of a key."""

    depth: int = 6
    items: int = 64
    values: int = 512
    key: int = 128


_LIMITS: Final = Limits()
_T = TypeVar("_T")
_DEEP: Final = "[too deep]"
_CYCLE: Final = "[cycle]"
_UNREADABLE: Final = "[unreadable]"
_INT64: Final = 63
FIRST_CARD: Final = 10**12
"""Of bare numbers only those with a card's 13 digits or more can be a secret: nothing below is searched."""
_LAST_CARD: Final = 10.0**19
_MARGIN: Final = 2048
_MOST_BYTES: Final = 64 * 1024
_NAME_KEYS: Final = ("name", "key", "header")
"""Where forms, HAR files and Kubernetes write what a `value` is of."""


class Walk:
    """One walk over a value; makes a plain copy without its secrets.

    text: what is done to every string and key. secret: whether a name hides its value. least: the smallest number
    that is looked at as a text is.
    `truncated` is true afterwards if anything was left out.
    """

    __slots__ = ("_least", "_limits", "_open", "_secret", "_text", "_values", "truncated")

    def __init__(
        self,
        *,
        text: Callable[[str], str],
        secret: Callable[[str], bool],
        limits: Limits = _LIMITS,
        least: int = FIRST_CARD,
    ) -> None:
        self._text = text
        self._secret = secret
        self._limits = limits
        self._least = least
        self._values = 0
        self._open: set[int] = set()
        self.truncated = False

    def named(self, key: str, value: object) -> Plain:
        """The plain copy of a value that stands under `key`. Never raises."""
        if value is None or isinstance(value, bool):
            return value
        return MARK if self._secret(key) else self.value(value)

    def value(self, value: object, depth: int = 0) -> Plain:
        """The plain copy of a value. Never raises: what cannot be read says so."""
        self._values += 1
        if self._values > self._limits.values:
            self.truncated = True
            return "[too many]"
        if type(value) is str:
            return self._text(value)
        if value is None or value is True or value is False:
            return value
        try:
            return self._other(value, depth)
        except Exception:  # noqa: BLE001 # any object may come, and its methods may do anything
            return _UNREADABLE

    def key(self, key: object) -> str:
        """A key as text, cut to the limit. Never raises."""
        try:
            text = _string(key)
        except Exception:  # noqa: BLE001 # as above
            return _UNREADABLE
        limit = self._limits.key
        if len(text) <= limit:
            return self._text(text)
        self.truncated = True
        # Read beyond the cut, so that a secret that it would halve is still recognised.
        return self._text(text[: limit + _MARGIN])[:limit]

    def _other(self, value: object, depth: int) -> Plain:
        if isinstance(value, Enum):
            return self.value(value.value, depth)
        if isinstance(value, int):
            return self._number(int.__index__(value))
        if isinstance(value, float):
            return self._float(float.__add__(value, 0.0))
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._container(value, depth)
        return self._text(_string(value))

    def _number(self, number: int) -> Plain:
        if number.bit_length() > _INT64:
            return f"[an integer of {number.bit_length()} bits]"
        if -self._least < number < self._least:
            return number
        text = str(number)
        return number if self._text(text) == text else MARK

    def _float(self, number: float) -> Plain:
        if number - number != 0:
            return str(number)
        if abs(number) >= FIRST_CARD and number < _LAST_CARD and self._hides(number):
            return MARK
        return number

    def _hides(self, number: float) -> bool:
        whole = str(int(number))
        return number == int(number) and self._text(whole) != whole

    def _container(
        self,
        value: Mapping[object, object]
        | list[object]
        | tuple[object, ...]
        | set[object]
        | frozenset[object],
        depth: int,
    ) -> Plain:
        if id(value) in self._open:
            self.truncated = True
            return _CYCLE
        if depth >= self._limits.depth:
            self.truncated = True
            return _DEEP
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            return self._sequence(value, depth + 1)
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, Plain]:
        copy: dict[str, Plain] = {}
        told = _told(value, self._secret)
        for key, inside in self._first(value.items()):
            name = self.key(key)
            hidden = (name == told or self._secret(name)) and not isinstance(inside, bool | None)
            copy[name] = MARK if hidden else self.value(inside, depth)
        return copy

    def _sequence(self, value: Iterable[object], depth: int) -> list[Plain]:
        items = list(self._first(value))
        # ("authorization", "Bearer …") is how headers come from ASGI and from HTTP clients.
        if len(items) == 2 and isinstance(items[0], str | bytes):
            name = self.key(items[0])
            if self._secret(name) and isinstance(items[1], str | bytes):
                return [name, MARK]
        return [self.value(item, depth) for item in items]

    def _first(self, items: Iterable[_T]) -> Iterable[_T]:
        for count, item in enumerate(items):
            if count >= self._limits.items or self._values >= self._limits.values:
                self.truncated = True
                return
            yield item


def _told(value: Mapping[object, object], secret: Callable[[str], bool]) -> str | None:
    """The key of the mapping whose value is a secret that another of its values names, if there is one.

    A validation error repeats under `input` what was sent, whole.
    """
    if "input" in value and "loc" in value:
        return "input"
    if "value" not in value:
        return None
    names = [value[key] for key in _NAME_KEYS if key in value]
    return (
        "value" if any(isinstance(n, str | bytes) and secret(_string(n)) for n in names) else None
    )


def _string(value: object) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value[:_MOST_BYTES]).decode("utf-8", "backslashreplace")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str.__str__(str(value))
