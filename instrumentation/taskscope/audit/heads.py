"""How far each run has come: a small file beside the lines, so that the next run can name the last hash of this one.

A head is written after its line. What dies in between leaves a head that is one line behind, never one that says more
than was written. Whoever begins a run takes all heads whose process is gone, and names them in its first line; a head
that is taken already, by whatever run, is never taken twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskscope.audit.links import FIRST, Claim

__all__ = ["Head", "HeadFile", "boot_id", "forget", "read_heads", "taking_turns", "unclaimed"]

_NAME: Final = re.compile(r"([0-9a-f]{32})\.head\Z")
_TEXT: Final = re.compile(
    rb"(-?\d{1,20}) +([0-9a-f]{64}) ([0-9a-f-]{1,40}) *\n((?:[0-9a-f]{32}\n)*)\Z"
)
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LONGEST: Final = 16_384
_TURN_S: Final = 0.5
_LOOK_S: Final = 0.002
_MOST_CLAIMS: Final = 64
_UNKNOWN_BOOT: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a run had come. alive: whether its process still writes. claims: the runs that it takes up."""

    claim: Claim
    alive: bool
    claims: tuple[str, ...] = ()


class HeadFile:
    """The head of the run that this process writes; its lock ends with the process, however that dies."""

    def __init__(self, folder: Path, chain: str, *, claims: Sequence[str], boot: str) -> None:
        """The head stands at -1. Raises OSError."""
        self._path = folder / f"{chain}.head"
        self._boot = boot or _UNKNOWN_BOOT
        draft = folder / f"{chain}.head.new"
        self._fd = os.open(draft, _MAKE, 0o600)
        try:
            # Locked before it has the name by which others find it.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = self._line(-1, FIRST) + "".join(f"{claimed}\n" for claimed in claims).encode()
            _write_all(self._fd, text)
            draft.rename(self._path)
        except OSError:
            self.let_go()
            draft.unlink(missing_ok=True)
            raise

    def put(self, sequence: int, hash_: str) -> None:
        """The run has come so far. Raises OSError."""
        os.pwrite(self._fd, self._line(sequence, hash_), 0)

    def let_go(self) -> None:
        """This process writes the run no more; the head stays for the run after it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """There was no such run."""
        self._path.unlink(missing_ok=True)
        self.let_go()

    def _line(self, sequence: int, hash_: str) -> bytes:
        # Always as long, so that it is written over in one piece.
        return f"{sequence:<20} {hash_} {self._boot:<36}\n".encode()


def read_heads(folder: Path, *, boot: str | None = None) -> list[Head]:
    """The folder's heads, none if there is no folder; boot: what the machine's run is called, if not what it says.

    Raises OSError if the folder cannot be read.
    """
    boot = boot_id() if boot is None else boot
    try:
        names = sorted(filter(_NAME.match, os.listdir(folder)))  # noqa: PTH208 # names are all that is asked
    except FileNotFoundError:
        return []
    found = [_read(folder / name, name.removesuffix(".head"), boot) for name in names]
    return [head for head in found if head is not None]


def unclaimed(heads: Sequence[Head]) -> list[Head]:
    """Those whose process is gone and that no other run has taken up."""
    taken = {chain for head in heads for chain in head.claims}
    free = [head for head in heads if not head.alive and head.claim.chain not in taken]
    return free[:_MOST_CLAIMS]


def forget(folder: Path, heads: Sequence[Head]) -> None:
    """The heads are named in a line by now; their files, and what they had taken up, are gone. Never raises OSError."""
    for chain in (each for head in heads for each in (head.claim.chain, *head.claims)):
        with contextlib.suppress(OSError):
            (folder / f"{chain}.head").unlink(missing_ok=True)


@contextmanager
def taking_turns(folder: Path) -> Iterator[bool]:
    """Whether nobody else takes heads within it; false if somebody has for half a second. Raises OSError."""
    fd = os.open(folder / "chain.lock", _LOCK, 0o600)
    try:
        yield _locked(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, text: bytes) -> None:
    if os.write(fd, text) != len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked(fd: int) -> bool:
    end = time.monotonic() + _TURN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_S)
        else:
            return True


def boot_id() -> str:
    """What the machine's run since it was switched on is called; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path, chain: str, boot: str) -> Head | None:
    """The head in that file; None if it is none, or gone by now."""
    try:
        fd = os.open(path, _READ)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid != os.geteuid() and os.geteuid():
            return None
        alive = _is_written(fd)
        found = _TEXT.match(os.pread(fd, _LONGEST, 0))
    except OSError:
        return None
    finally:
        os.close(fd)
    if found is None:
        return None
    claim = Claim(
        chain=chain,
        sequence=int(found[1]),
        hash=found[2].decode(),
        sure=found[3].decode() == boot,
    )
    return Head(claim=claim, alive=alive, claims=tuple(found[4].decode().split()))


def _is_written(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
