"""One run: the chain that one process writes, from a first line that names what came before to a closing line."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from taskscope.audit.heads import (
    Head,
    HeadFile,
    boot_id,
    forget,
    read_heads,
    taking_turns,
    unclaimed,
)
from taskscope.audit.links import CLOSED, FIRST, OPENED, AuditKey, Claim, claims_as_values
from taskscope.logs.ecs import LINE_BYTES
from taskscope.logs.spool import ERRORS, Spool, Written

__all__ = ["Document", "Run", "folder_of"]

Document: TypeAlias = dict[str, object]

_encode: Final = msgspec.json.Encoder().encode


class Run:
    """A chain that goes on. Not safe for threads: its holder sees to it that one line follows the other.

    make: a document for an action of the trail's own. told: each error that was kept from the caller.
    """

    def __init__(
        self,
        spool: Spool,
        key: AuditKey,
        *,
        make: Callable[[str], Document],
        told: Callable[[BaseException], None],
    ) -> None:
        self.chain = uuid.uuid4().hex
        self.closed = False
        self._spool = spool
        self._key = key
        self._make = make
        self._told = told
        self._sequence = 0
        self._previous = FIRST
        self._head: HeadFile | None = None

    def begin(self) -> Written:
        """What became of the first line. It names each run of the folder that has ended and that no other one names.

        Raises OSError if the folder cannot be used.
        """
        folder = self._spool.folder
        folder.mkdir(mode=0o700, exist_ok=True)
        boot = boot_id()
        with taking_turns(folder) as alone:
            ended = unclaimed(read_heads(folder, boot=boot)) if alone else []
            # It claims them before it says so: a death in between must not let another run say the same.
            names = [head.claim.chain for head in ended]
            self._head = HeadFile(folder, self.chain, claims=names, boot=boot)
            try:
                written = self._open(ended)
                if written is Written.STORED:
                    forget(folder, ended)
                else:
                    self._head.remove()
            except BaseException:
                self.leave()
                raise
        return written

    def _open(self, ended: list[Head]) -> Written:
        claims: tuple[Claim, ...] = tuple(head.claim for head in ended)
        document = self._make(OPENED)
        document["audit.predecessors"] = claims_as_values(claims)
        return self.append(document)

    def append(self, document: Document) -> Written:
        """What became of the line, which is the chain's next if it was stored. Raises ValueError if it is too long."""
        document["audit.chain"] = self.chain
        document["audit.sequence"] = self._sequence
        document["audit.previous"] = self._previous
        document["audit.key"] = self._key.name
        document["audit.hash"] = hash_ = self._key.hash(document)
        line = _encode(document) + b"\n"
        if len(line) > LINE_BYTES:
            raise ValueError(f"an audit line of {len(line)} bytes; {LINE_BYTES} are the most")
        written = self._spool.write(line, urgent=ERRORS)
        if written is Written.STORED:
            sequence, self._sequence, self._previous = self._sequence, self._sequence + 1, hash_
            try:
                if self._head is not None:
                    self._head.put(sequence, hash_)
            except OSError as error:  # the line is there; the next run will know of one less
                self._told(error)
        return written

    def close(self) -> Written:
        """What became of the closing line; the run has ended in any case."""
        try:
            return self.append(self._make(CLOSED))
        finally:
            self.leave()

    def leave(self) -> None:
        """The run ends without a closing line, as when its process dies."""
        self.closed = True
        if self._head is not None:
            with contextlib.suppress(OSError):
                self._head.let_go()


def folder_of(spool: Path) -> Path:
    """Where audit lines wait: a spool of their own inside the service's."""
    return spool / "audit"
