"""`telemetry.audit.record(…)`: one event is one line in the audit spool, redacted as every line is, and chained.

Nothing here raises into a request, unless it is asked to: a service that must not act without a trace says
`required=True` and gets an AuditError where the line is not stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, TextIO, TypeAlias

import msgspec

from taskscope.audit.links import CLOSED, AuditKey, load_audit_key
from taskscope.audit.run import Document, Run, folder_of
from taskscope.context import current_request
from taskscope.errors import AuditError
from taskscope.identity import Identity
from taskscope.logs.ecs import LINE_BYTES, EcsEncoder
from taskscope.logs.spool import Spool, Written
from taskscope.logs.text import visible
from taskscope.once import OncePerMinute

__all__ = ["ACTIONS", "Audit", "Outcome"]

Outcome = Literal["success", "failure", "unknown"]
_Lost: TypeAlias = tuple[str, BaseException | None]


class _Kind(NamedTuple):
    category: str
    types: tuple[str, ...]


ACTIONS: Final[dict[str, _Kind]] = {
    "user.registered": _Kind("iam", ("user", "creation")),
    "user.deleted": _Kind("iam", ("user", "deletion")),
    "user.login": _Kind("authentication", ("start",)),
    "user.logout": _Kind("authentication", ("end",)),
    "user.password.changed": _Kind("iam", ("user", "change")),
    "user.role.changed": _Kind("iam", ("admin", "change")),
    "session.refreshed": _Kind("authentication", ("info",)),
    "session.revoked": _Kind("authentication", ("end",)),
    "task.created": _Kind("database", ("creation",)),
    "task.owner.changed": _Kind("database", ("change",)),
    "task.deleted": _Kind("database", ("deletion",)),
    "logging.changed": _Kind("configuration", ("change",)),
    "key.rotated": _Kind("configuration", ("change",)),
}
"""What the schema's category and types of usual actions are."""

_OTHER: Final = _Kind("process", ("info",))
_LOGGER: Final = "taskscope.audit"
_DAY_S: Final = 86_400.0
# What the chain adds to a line, with something to spare.
_ROOM: Final = 1024
_ACTION_CHARS: Final = 200
_NOT_SYNCED: Final = "not_synced"
_decode: Final = msgspec.json.Decoder(dict[str, object]).decode


class Audit:
    """The audit trail of one service's process. Safe for threads and forks; its folder is made with the first line.

    spool: the service's spool folder, in which the trail has one of its own. max_bytes: the most that waits there;
    no other line takes its room. key: what the lines are sealed with, by default a key in that folder.
    identity: what makes a user's hash of a user's id. on_line: called with the outcome of each line that was stored,
    on_fail with the reason of each that was not: `spool_full`, `disk_full`, `write_error`, `encode_error`, or
    `not_synced` where only its way to the disk failed. on_error: with each exception kept from the caller.
    """

    def __init__(
        self,
        *,
        spool: Path,
        encoder: EcsEncoder,
        max_bytes: int,
        segment_bytes: int,
        key: bytes | None = None,
        identity: Callable[[], Identity | None] = lambda: None,
        on_line: Callable[[str], None] = lambda _: None,
        on_fail: Callable[[str], None] = lambda _: None,
        on_error: Callable[[BaseException], None] = lambda _: None,
        complaints: TextIO | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder_of(spool)
        self._encoder = encoder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max_bytes)
        self._given = key
        self._identity = identity
        self._on_line = on_line
        self._on_fail = on_fail
        self._on_error = on_error
        self._complaints = complaints
        self._monotonic = monotonic
        self._once = OncePerMinute(monotonic=monotonic)
        self._lock = threading.RLock()
        self._within = False
        self._spool: Spool | None = None
        self._key: AuditKey | None = None
        self._run: Run | None = None
        self._began = 0.0
        self._closed = False
        _begin_again_in_children(self)

    def record(
        self,
        action: str,
        /,
        *,
        outcome: Outcome = "success",
        category: str | None = None,
        types: tuple[str, ...] | None = None,
        user: str | None = None,
        target: str | None = None,
        reason: str | None = None,
        required: bool = False,
        durable: bool = False,
        **fields: object,
    ) -> bool:
        """Whether the event is a line in the audit spool now, with the request's ids, user and client.

        action: such as `user.login`. outcome: `success`, `failure` or `unknown`. category, types: of Elastic Common
        Schema, by default those of ACTIONS. user: the id of who acts, where `set_user` has not told; only its hash is
        kept. target: what is acted upon. durable: whether the line must outlive a loss of power before this returns,
        which takes as long as the disk does; `arecord` waits elsewhere. More fields stand under `labels`.
        Raises AuditError if `required` and the line is not stored; else nothing.
        """
        kind = ACTIONS.get(action, _OTHER)
        given: dict[str, object] = {**fields, "event.reason": reason, "target": target}
        event = {name: value for name, value in given.items() if value is not None}
        action = str(action)[:_ACTION_CHARS]
        wanted = _Kind(category or kind.category, kind.types if types is None else types)
        make = partial(self._document, action, outcome, wanted, user, event)
        lost = self._stored(make, outcome, durable)
        if lost is None:
            return True
        why, error = lost
        self._failed(action, why, error)
        if required:
            raise AuditError(
                f"audit {self._shown(action)}: the line is not stored ({why}{self._because(error)}); free the disk, or "
                f"mend {self.folder}, and ask again"
            ) from error
        return False

    async def arecord(self, action: str, /, **how: object) -> bool:
        """The same as `record`, in a thread: for what is durable, so that the event loop does not wait for the disk."""
        return await asyncio.to_thread(self.record, action, **how)  # type: ignore[arg-type] # as `record` takes it

    def close(self) -> None:
        """The run has its closing line, and all lines are on disk; later ones are not stored. Never raises."""
        with self._lock:
            self._closed = True
            run, self._run = self._run, None
            if run is not None:
                self._end(run)
            if self._spool is not None:
                self._spool.close()

    def reopen(self) -> None:
        """Lines are taken again after `close`, as a new run; nothing happens if it is open."""
        with self._lock:
            self._closed = False
            if self._spool is not None:
                self._spool.reopen()

    def _stored(self, make: Callable[[], Document], outcome: str, durable: bool) -> _Lost | None:
        """None if the line is stored, or the reason and the error why it is not."""
        try:
            with self._lock:
                lost = self._once_at_a_time(make)
        except Exception as error:  # noqa: BLE001 # no event fails what it tells of
            return Written.WRITE_ERROR.value, error
        if lost is not None:
            return lost
        with contextlib.suppress(Exception):  # a counter that fails must not fail the request
            self._on_line(outcome)
        if durable and self._spool is not None and not self._spool.sync():
            return _NOT_SYNCED, self._spool.last_error
        return None

    def _once_at_a_time(self, make: Callable[[], Document]) -> _Lost | None:
        """The same; a signal handler in the midst of a line must not tear the chain by one of its own."""
        if self._within:
            raise RuntimeError("an audit line within another")
        self._within = True
        try:
            return self._append(make)
        finally:
            self._within = False

    def _append(self, make: Callable[[], Document]) -> _Lost | None:
        """The same; the line is made once its run goes on, so that the run's first line is the older one."""
        if self._closed:
            raise RuntimeError("it is closed; record before the service's telemetry is closed")
        run = self._going()
        written = run if isinstance(run, Written) else None
        if isinstance(run, Run):
            try:
                document = make()
            except Exception as error:  # noqa: BLE001 # as above
                return "encode_error", error
            written = self._written(run, document)
        if written is None or written is Written.STORED:
            return None
        return written.value, None if self._spool is None else self._spool.last_error

    def _written(self, run: Run, document: Document) -> Written:
        try:
            return run.append(document)
        except BaseException:
            # Perhaps the line is there and its number not yet told: another run goes on.
            self._run = None
            run.leave()
            raise

    def _going(self) -> Run | Written:
        """The run that goes on, or why there is none. One is ended after a day, so that none is endless."""
        now = self._monotonic()
        if self._run is not None and now - self._began >= _DAY_S:
            run, self._run = self._run, None
            self._end(run)
        if self._run is not None:
            return self._run
        if self._spool is None:
            self._spool = Spool(
                self.folder,
                max_bytes=self._max_bytes,
                segment_bytes=self._segment_bytes,
                failed=self._told,
            )
        if self._key is None:
            given = self._given
            self._key = load_audit_key(self.folder) if given is None else AuditKey(given)
        run = Run(self._spool, self._key, make=self._own, told=self._told)
        written = run.begin()
        if written is not Written.STORED:
            return written
        self._run, self._began = run, now
        return run

    def _end(self, run: Run) -> None:
        """The run has its closing line, if there is room for it. Never raises an Exception."""
        try:
            written = run.close()
        except Exception as error:  # noqa: BLE001 # closing must not fail the service's shutdown
            self._failed(CLOSED, "encode_error", error)
        else:
            if written is not Written.STORED:
                self._failed(CLOSED, written.value, None)

    def _own(self, action: str) -> Document:
        # In a context of its own: it belongs to no request, though one may have brought it about.
        return Context().run(self._document, action, "success", _OTHER, None, {})

    def _document(
        self,
        action: str,
        outcome: str,
        kind: _Kind,
        user: str | None,
        event: dict[str, object],
    ) -> Document:
        """The line as values, all but its place in the chain."""
        request = current_request.get()
        if request is not None and request.client_address is not None:
            event["client.address"] = request.client_address
        event["event"] = action
        level = "info" if outcome == "success" else "warning"
        line = self._encoder.line(event, level=level, logger=_LOGGER)
        if len(line) > LINE_BYTES - _ROOM:
            event = {"event": action, "truncated": True}
            line = self._encoder.line(event, level=level, logger=_LOGGER)
        document = _decode(line)
        identity = None if user is None else self._identity()
        if identity is not None and user is not None:
            document["user.hash"] = identity.hashed(str(user))
        document["event.kind"] = "event"
        document["event.category"] = [kind.category]
        document["event.type"] = [*kind.types]
        document["event.action"] = document["message"]
        document["event.outcome"] = outcome
        return document

    def _failed(self, action: str, reason: str, error: BaseException | None) -> None:
        with contextlib.suppress(Exception):
            self._on_fail(reason)
        if error is not None:
            self._told(error)
        count = self._once.turn(reason)
        if count and self._complaints is not None:
            with contextlib.suppress(Exception):
                self._complaints.write(
                    f"taskscope: {count} audit line(s) not stored ({reason}), the last one "
                    f"{self._shown(action)}{self._because(error)}; free the disk, or mend {self.folder}\n"
                )
                self._complaints.flush()

    def _shown(self, text: str) -> str:
        try:
            return visible(self._encoder.words.text(str(text)[:200]))
        except Exception:  # noqa: BLE001 # what makes a text safe may be what failed
            return "of an action that cannot be told"

    def _because(self, error: BaseException | None) -> str:
        if error is None:
            return ""
        return f": {getattr(error, 'strerror', None) or self._shown(str(error)) or type(error).__name__}"

    def _told(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):
            self._on_error(error)

    def forked(self) -> None:
        """In a forked child: the run is its parent's; the first line of the child begins one of its own."""
        self._lock = threading.RLock()
        self._within = False
        if self._run is not None:
            self._run.leave()
            self._run = None


def _begin_again_in_children(audit: Audit) -> None:
    # Hooks cannot be taken back; a weak reference lets a closed trail go.
    reference = weakref.ref(audit)

    def in_child() -> None:
        found = reference()
        if found is not None:
            found.forked()

    os.register_at_fork(after_in_child=in_child)
