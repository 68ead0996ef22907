"""What a Redis command does to a cache, what its answer says, and for how long what it writes is kept.

Pure: names and values in, words of the catalogue out. Read by the cache probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from taskscope.catalogue.groups import TTL_CLASSES

__all__ = ["Command", "command_of", "hits_and_misses", "ttl_class_of", "writes_of"]

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0
_NONE, _SECONDS, _MINUTES, _HOURS, _DAYS = TTL_CLASSES

Arguments = Sequence[object]
"""The command as it is sent, its name first."""

Judge = Callable[[Arguments, object], tuple[int, int]]
"""Hits and misses of a command and its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. operation: as the catalogue says. judge: of a read. sets_ttl: it may say for how long the entry
    is kept; by others that stays as it was. per_entry: how many arguments each written entry takes; 0: one entry.
    """

    operation: str
    judge: Judge | None = None
    sets_ttl: bool = False
    per_entry: int = 0


def _present(_: Arguments, answer: object) -> tuple[int, int]:
    return (0, 1) if answer is None else (1, 0)


def _filled(_: Arguments, answer: object) -> tuple[int, int]:
    return (1, 0) if answer else (0, 1)


def _each_present(_: Arguments, answer: object) -> tuple[int, int]:
    entries = answer if isinstance(answer, list | tuple) else ()
    misses = sum(entry is None for entry in entries)
    return len(entries) - misses, misses


def _each_true(_: Arguments, answer: object) -> tuple[int, int]:
    entries = answer if isinstance(answer, list | tuple) else ()
    hits = sum(bool(entry) for entry in entries)
    return hits, len(entries) - hits


def _counted(arguments: Arguments, answer: object) -> tuple[int, int]:
    asked = len(arguments) - 1
    hits = min(int(answer), asked) if isinstance(answer, int) else 0
    return hits, asked - hits


_OTHER: Final = Command(operation="other")
_DELETE: Final = Command(operation="delete")
_ADJUST: Final = Command(operation="write")
_REPLACE: Final = Command(operation="write", sets_ttl=True)
_REPLACE_EACH: Final = Command(operation="write", sets_ttl=True, per_entry=2)
_READ: Final = Command(operation="read", judge=_present)
_READ_AND_KEEP: Final = Command(operation="read", judge=_present, sets_ttl=True)
_READ_WHOLE: Final = Command(operation="read", judge=_filled)
_READ_EACH: Final = Command(operation="read", judge=_each_present)

_NAMES: Final = (
    (_READ_AND_KEEP, "GETEX"),
    (_READ, "GET GETDEL HGET LINDEX ZSCORE ZRANK JSON.GET"),
    (_READ_WHOLE, "GETRANGE HGETALL HKEYS HVALS SMEMBERS LRANGE ZRANGE SISMEMBER HEXISTS"),
    (_READ_EACH, "MGET HMGET ZMSCORE JSON.MGET"),
    (Command(operation="read", judge=_each_true), "SMISMEMBER"),
    (Command(operation="read", judge=_counted), "EXISTS"),
    (_REPLACE, "SET SETEX PSETEX SETNX GETSET EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST"),
    (_REPLACE_EACH, "MSET MSETNX"),
    (
        _ADJUST,
        "APPEND SETRANGE SETBIT INCR INCRBY INCRBYFLOAT DECR DECRBY LPUSH RPUSH LPUSHX RPUSHX LSET",
    ),
    (_ADJUST, "HSET HMSET HSETNX HINCRBY HINCRBYFLOAT SADD ZADD ZINCRBY PFADD JSON.SET"),
    (_DELETE, "DEL UNLINK HDEL SREM ZREM LREM LTRIM FLUSHDB FLUSHALL"),
)
_COMMANDS: Final[dict[object, Command]] = {
    name: command for command, names in _NAMES for name in names.split()
}
_AFTER_S: Final = frozenset({"SETEX", "EXPIRE"})
_AFTER_MS: Final = frozenset({"PSETEX", "PEXPIRE"})
_AT_S: Final = frozenset({"EXPIREAT"})
_AT_MS: Final = frozenset({"PEXPIREAT"})
_OPTIONS: Final = frozenset({"EX", "PX", "EXAT", "PXAT", "KEEPTTL"})


def command_of(name: object) -> Command:
    """The command of that name, in any case, as text or bytes; what is not known is `other`."""
    found = _COMMANDS.get(name)
    return found if found is not None else _COMMANDS.get(_text(name), _OTHER)


def hits_and_misses(command: Command, arguments: Arguments, answer: object) -> tuple[int, int]:
    """How many of the entries that a read asked for were there, and how many were not."""
    return command.judge(arguments, answer) if command.judge is not None else (0, 0)


def writes_of(command: Command, arguments: Arguments) -> int:
    """How many entries a write sets."""
    if command.operation != "write":
        return 0
    return (len(arguments) - 1) // command.per_entry if command.per_entry else 1


def ttl_class_of(command: Command, arguments: Arguments, *, now: float, otherwise: str) -> str:
    """The class of the time for which the command's entry is kept.

    now: seconds since 1970. otherwise: where the command does not say: reads, and writes that keep the entry's time.
    Raises ValueError or OverflowError for a time that is no number.
    """
    if not command.sets_ttl:
        return otherwise
    if len(arguments) < 3:
        return _NONE if _text(arguments[0]) == "PERSIST" else otherwise
    name = _text(arguments[0])
    if name in _AFTER_S:
        return _class_of(_number(arguments[2]))
    if name in _AFTER_MS:
        return _class_of(_number(arguments[2]) / 1000)
    if name in _AT_S:
        return _class_of(_number(arguments[2]) - now)
    if name in _AT_MS:
        return _class_of(_number(arguments[2]) / 1000 - now)
    if name in {"SET", "GETEX"}:
        return _option_class(name, arguments, now, otherwise)
    return _NONE


def _option_class(name: str, arguments: Arguments, now: float, otherwise: str) -> str:
    place = 3 if name == "SET" else 2
    while place < len(arguments):
        option = _text(arguments[place])
        if option == "KEEPTTL":
            return otherwise
        if option == "PERSIST":
            return _NONE
        if option in _OPTIONS and place + 1 < len(arguments):
            number = _number(arguments[place + 1]) / (1000 if option[0] == "P" else 1)
            return _class_of(number - now if option.endswith("AT") else number)
        place += 1
    return _NONE if name == "SET" else otherwise


def _class_of(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return _SECONDS
    if seconds < _HOUR_S:
        return _MINUTES
    return _HOURS if seconds < _DAY_S else _DAYS


def _text(word: object) -> str:
    text = word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)
    return text.upper()


def _number(word: object) -> float:
    return float(word if isinstance(word, int | float) else _text(word))
