"""The workers' folder, opened without trusting what stands in it.

Everything is opened relative to the folder's own descriptor, never through a symlink, never blocking on a FIFO,
and looked at again once it is open. Files are read with `pread`, not mapped: one that is cut short meanwhile gives
few bytes, where a map would end the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final

from taskscope.errors import MultiprocessError
from taskscope.multiprocess.layout import BadFileError

__all__ = [
    "MAX_ENTRIES",
    "NAME",
    "SERVICE",
    "draft_name",
    "fold_name",
    "is_held",
    "listed",
    "new_file",
    "open_folder",
    "opened",
    "read",
    "skipped_name",
    "try_exclusive",
    "worker_name",
]

MAX_ENTRIES: Final = 10_000
"""The most names of the folder that are looked at."""
NAME: Final = re.compile(
    r"(?P<service>[a-z][a-z0-9-]{0,31})\."
    r"(?:(?P<id>[0-9a-f]{32})\.(?P<what>cells|draft)|fold|skipped)\Z"
)
SERVICE: Final = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of the file: without it the sum would fall now, and rise again at the next scrape."""
_OPEN: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN


def worker_name(service: str, id_: bytes) -> str:
    """What a worker's file is called."""
    return f"{service}.{id_.hex()}.cells"


def draft_name(service: str, id_: bytes) -> str:
    """What a file is called until it is whole."""
    return f"{service}.{id_.hex()}.draft"


def fold_name(service: str) -> str:
    """What the file that dead workers are folded into is called."""
    return f"{service}.fold"


def skipped_name(service: str) -> str:
    """What the list of files that were counted as left out is called."""
    return f"{service}.skipped"


def open_folder(path: Path, *, create: bool = False) -> int:
    """A descriptor of the folder, which is ours alone. Raises MultiprocessError if it is not, or not there."""
    try:
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, _FOLDER)
    except OSError as error:
        raise MultiprocessError(
            f"{path}: the workers' folder cannot be opened ({error.strerror}); "
            "name a folder that the service may create and that is no symlink"
        ) from error
    found = os.fstat(folder)
    if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return folder
    os.close(folder)
    if found.st_uid != os.geteuid():
        raise MultiprocessError(
            f"{path}: the workers' folder belongs to user {found.st_uid}, the process is user {os.geteuid()}; "
            "name a folder inside it that does not exist yet, and run all workers as one user"
        )
    raise MultiprocessError(
        f"{path}: the workers' folder has mode {stat.S_IMODE(found.st_mode):04o}, so that others may write to it; "
        "run: chmod 700, or name another"
    )


def listed(folder: int) -> list[str]:
    """The names in the folder, in no order, at most MAX_ENTRIES. Raises MultiprocessError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, MAX_ENTRIES)]
    except OSError as error:
        raise MultiprocessError(
            f"the workers' folder cannot be read ({error.strerror}); "
            "raise the limit of open files of the service, or look after its disk"
        ) from error


@contextmanager
def opened(folder: int, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor to read a regular file of ours, and its status.

    Raises BadFileError for anything else, FileNotFoundError if it is gone, and MultiprocessError where this process
    may open no more files.
    """
    _check(os.stat(name, dir_fd=folder, follow_symlinks=False))
    try:
        file = os.open(name, os.O_RDONLY | _OPEN, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise MultiprocessError(
                f"{name}: no more files can be opened ({error.strerror}); "
                "raise the limit of open files of the service"
            ) from error
        raise BadFileError("not_regular" if error.errno == errno.ELOOP else "error") from error
    try:
        found = os.fstat(file)
        _check(found)
        yield file, found
    finally:
        os.close(file)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadFileError("not_regular")
    if found.st_uid != os.geteuid():
        raise BadFileError("foreign")


def read(file: int, length: int, at: int) -> bytes:
    """Exactly `length` bytes. Raises BadFileError if the file has become shorter than it was."""
    blob = os.pread(file, length, at)
    if len(blob) < length:
        parts = [blob]
        while length > sum(map(len, parts)):
            more = os.pread(file, length - sum(map(len, parts)), at + sum(map(len, parts)))
            if not more:
                raise BadFileError("garbage")
            parts.append(more)
        blob = b"".join(parts)
    return blob


def is_held(file: int) -> bool:
    """Whether a process that lives holds the lock of the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@contextmanager
def try_exclusive(folder: int) -> Iterator[bool]:
    """Whether this is the only process that changes the folder, until the block ends; it never waits.

    Unlocked by name, not by closing alone: a child that was forked meanwhile has a copy of the descriptor.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def new_file(folder: int, name: str) -> int:
    """A descriptor of a file that was not there before, mode 0600. Raises OSError."""
    return os.open(name, _NEW, 0o600, dir_fd=folder)


def put(folder: int, *, draft: str, name: str, content: bytes, durable: bool = True) -> None:
    """`name` holds `content`, entirely or not at all. Raises OSError."""
    file = new_file(folder, draft)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)
