"""Who asks, as a word that tells users apart and names none of them.

The word is a keyed hash of the user's id. Without the key nobody can find an id by trying all that there are; with
it one user has the same word in every worker process and after every restart. The key is random, made once, and
lies in a file for its user alone, beside the lines of the service, unless the settings give one. Services that
share the key still have words of their own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Final

__all__ = ["KEY_FILE", "Identity", "load_key", "new_key"]

KEY_FILE: Final = "user.key"
"""The key's name in its folder."""

_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 16
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Identity:
    """Makes a user's hash of a user's id, for one service; key: secret random bytes."""

    __slots__ = ("_keyed",)

    def __init__(self, *, service_name: str, key: bytes) -> None:
        own = blake2b(service_name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if len(key) > blake2b.MAX_KEY_SIZE:
            key = blake2b(key).digest()
        self._keyed = blake2b(key=key, person=own, digest_size=_HASH_BYTES)

    def hashed(self, user_id: str) -> str:
        """32 hexadecimal digits, always the same for this id, key and service."""
        state = self._keyed.copy()
        state.update(user_id.encode("utf-8", "surrogatepass"))
        return state.hexdigest()


def new_key() -> bytes:
    """Random bytes for a key."""
    return secrets.token_bytes(_KEY_BYTES)


def load_key(folder: Path, *, name: str = KEY_FILE) -> bytes:
    """The folder's key of that name, made if there is none; processes that start at once all get the same one.

    Raises OSError if it cannot be read or made, or if the file there is no key of this user's alone; it is
    never overwritten.
    """
    path = folder / name
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    # Whole before it has its name, and a name that stands is kept: nobody ever reads half a key or one of two.
    draft = folder / f"{name}.{secrets.token_hex(8)}.new"
    try:
        _write(draft, new_key())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> bytes:
    fd = os.open(path, _READ)
    try:
        found = os.fstat(fd)
        key = os.read(fd, _KEY_BYTES + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{path}: others than this service's user may read it; take it for this user alone, mode 0600"
        )
    if len(key) != _KEY_BYTES:
        raise OSError(
            f"{path}: it is no key of {_KEY_BYTES} bytes; move it away, a new one is made"
        )
    return key


def _write(path: Path, key: bytes) -> None:
    fd = os.open(path, _MAKE, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
    finally:
        os.close(fd)
