"""How long each statement of one SQLAlchemy engine takes: by its first keyword, role, shard and outcome.

The dialect's `do_execute`, `do_executemany`, `do_execute_no_params` and `do_commit` are timed, on the instance:
all that reaches the database goes through them, and they end in an exception when the statement does. What
is measured ends when the database has answered; rows that a server-side cursor fetches later are not part of it.
What SQLAlchemy itself asks at an engine's first connection (version, schema) is among the statements.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, Protocol

from taskscope.catalogue.builtin import DB_OPERATION_DURATION
from taskscope.metrics.instruments import Histogram

__all__ = ["Dialect", "StatementTimer", "operation_of"]

_OTHER: Final = "_OTHER"
_OPERATIONS: Final = frozenset(DB_OPERATION_DURATION.label("db.operation.name").values) - {_OTHER}
_MOST_READ: Final = 4096
"""Characters of a statement that are looked at; where its verb stands behind them, it is _OTHER."""
_MOST_KEPT: Final = 256
_LEADS: Final = {lead: name for name in _OPERATIONS for lead in (name, name.lower())}
"""All these keywords have six letters: most statements are known by a slice and one look."""

_TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*'? | "[^"]*"? | --[^\n]* | /\*.*?(?:\*/|\Z) | [()] | [A-Za-z_][\w$]*""",
    re.VERBOSE | re.DOTALL,
)


def operation_of(statement: str) -> str:
    """The statement's verb if the catalogue lists it, else _OTHER.

    Comments and parentheses before it are passed over. Behind WITH it is the verb of the main statement.
    """
    inside_with = False
    depth = 0
    for match in _TOKEN.finditer(statement[:_MOST_READ]):
        part = match.group().upper()
        if part in "()":
            depth += 1 if part == "(" else -1
        elif part[0] in "'\"-/":  # text, quoted names, comments
            continue
        elif inside_with:
            if depth == 0 and part in _OPERATIONS:
                return part
        elif part == "WITH":
            inside_with, depth = True, 0
        else:
            return part if part in _OPERATIONS else _OTHER
    return _OTHER


class Dialect(Protocol):
    """What is timed of a SQLAlchemy dialect."""

    do_execute: Callable[..., Any]
    do_executemany: Callable[..., Any]
    do_execute_no_params: Callable[..., Any]
    do_commit: Callable[..., Any]


class _Observes(Protocol):
    def observe(self, value: float, /) -> None: ...


class StatementTimer:
    """The series of one engine. A cancelled statement is an error, too: nobody got its answer."""

    __slots__ = ("_durations", "_failed", "_kept", "_role", "_shard", "_succeeded")

    def __init__(
        self,
        durations: Histogram,
        failed: Callable[[str, BaseException | None], None],
        *,
        role: str,
        shard: str,
    ) -> None:
        self._durations = durations
        self._failed = failed
        self._role = role
        self._shard = shard
        self._succeeded: dict[str, _Observes] = {}
        self._kept: dict[str, str] = {}

    def attach(self, dialect: Dialect) -> None:
        """Every statement and commit of this dialect is timed from now on."""
        dialect.do_execute = self._timed(dialect.do_execute)
        dialect.do_executemany = self._timed(dialect.do_executemany)
        dialect.do_execute_no_params = self._timed(dialect.do_execute_no_params)
        dialect.do_commit = self._timed_commit(dialect.do_commit)

    def _timed(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        succeeded = self._succeeded

        def timed(cursor: Any, statement: str, *rest: Any, **named: Any) -> Any:
            started = perf_counter()
            try:
                answer = execute(cursor, statement, *rest, **named)
            except BaseException:
                self._ended(statement, perf_counter() - started, "error")
                raise
            seconds = perf_counter() - started
            try:
                child = succeeded.get(statement[:6])
                if child is None:
                    child = self._find(statement, "ok")
                child.observe(seconds)
            except Exception as error:  # noqa: BLE001 - measuring never fails a statement
                self._failed("probes", error)
            return answer

        return timed

    def _timed_commit(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            started = perf_counter()
            try:
                answer = commit(*given, **named)
            except BaseException:
                self._ended("COMMIT", perf_counter() - started, "error")
                raise
            self._ended("COMMIT", perf_counter() - started, "ok")
            return answer

        return timed

    def _ended(self, statement: str, seconds: float, outcome: str) -> None:
        try:
            self._find(statement, outcome).observe(seconds)
        except Exception as error:  # noqa: BLE001 - measuring never fails a statement
            self._failed("probes", error)

    def _find(self, statement: str, outcome: str) -> _Observes:
        lead = statement[:6]
        operation = _LEADS.get(lead) or self._read(statement)
        child = self._durations.at((operation, self._role, self._shard, outcome))
        if outcome == "ok" and lead in _LEADS:
            self._succeeded[lead] = child
        return child

    def _read(self, statement: str) -> str:
        head = statement[:_MOST_READ]
        operation = self._kept.get(head)
        if operation is None:
            operation = operation_of(head)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[head] = operation
        return operation
