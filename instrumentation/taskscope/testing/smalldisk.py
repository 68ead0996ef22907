"""A disk that is full soon, for tests of what a process does then. Linux, as root or with user namespaces."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["SmallDisk", "small_disk"]

_MOUNT: Final = 'mount -t tmpfs -o size="$2",mode=700 tmpfs "$1" && echo mounted && exec cat'
_FILLER: Final = "filler"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A disk that only processes started with the words `prefix` see, at `folder`; we see it at `seen`."""

    folder: Path
    seen: Path
    prefix: tuple[str, ...]

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize

    def fill(self, left: int) -> None:
        """A file takes all of the room but so many bytes."""
        descriptor = os.open(self.seen / _FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.free - left)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """The room that `fill` took is there again."""
        (self.seen / _FILLER).unlink()


@contextmanager
def small_disk(folder: Path, *, size: int) -> Iterator[SmallDisk]:
    """Inside the block `folder`, an empty one, is a disk in memory of so many bytes, for chosen processes alone.

    Raises AssertionError where none can be mounted, with the system's reason.
    """
    # A mount in a namespace of its own cannot be left behind: it ends with the last process that sees it.
    root = os.geteuid() == 0
    words = ["unshare", "--mount", *([] if root else ["--user", "--map-root-user"])]
    holder = subprocess.Popen(
        [*words, "/bin/sh", "-c", _MOUNT, "sh", str(folder), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with holder:
        if holder.stdin is None or holder.stdout is None or holder.stderr is None:
            raise AssertionError("no disk in memory: no pipes to the process that holds it")
        try:
            if holder.stdout.readline() != b"mounted\n":
                raise AssertionError(f"no disk in memory: {holder.stderr.read().decode()}")
            entered = ["--mount", *([] if root else ["--user", "--preserve-credentials"])]
            yield SmallDisk(
                folder=folder,
                seen=Path(f"/proc/{holder.pid}/root{folder.resolve()}"),
                prefix=("nsenter", "--target", str(holder.pid), *entered, "--"),
            )
        finally:
            holder.stdin.close()  # at which `cat` ends, as it does when this process dies
