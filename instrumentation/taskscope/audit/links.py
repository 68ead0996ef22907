"""What ties one audit line to the next: its place, the hash of the line before it, and its own hash.

The hash is keyed (HMAC-SHA-256). A plain hash could be computed anew, for all that follow, by whoever may write to
Elasticsearch; this one only by who has the key, and the key stays with the service. It is taken over the line's
values in a form of their own, sorted and without blanks, so a line is the same however JSON was written.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from taskscope.identity import load_key

__all__ = [
    "AUDIT_KEY_FILE",
    "CLOSED",
    "FIRST",
    "OPENED",
    "AuditKey",
    "Claim",
    "Link",
    "claims_as_values",
    "load_audit_key",
    "read_audit_key",
]

AUDIT_KEY_FILE: Final = "audit.key"
"""The key's name in the audit spool's folder."""
OPENED: Final = "audit.run.opened"
"""The action of each run's first line."""
CLOSED: Final = "audit.run.closed"
"""The action of the last line of a run that ended well."""
FIRST: Final = "0" * 64
"""What stands for the hash before a run's first line."""

_FORMAT: Final = b"taskscope.audit.1\n"
_NAME_CHARS: Final = 16
_SHORTEST_KEY: Final = 16
_LONGEST_KEY: Final = 4096
_sorted: Final = msgspec.json.Encoder(order="sorted")


class AuditKey:
    """What lines are sealed with. name: tells keys apart and tells nothing of them; it stands in each line."""

    __slots__ = ("_keyed", "name")

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=sha256)
        named = self._keyed.copy()
        named.update(b"taskscope.audit.key")
        self.name = named.hexdigest()[:_NAME_CHARS]

    def hash(self, document: Mapping[str, object]) -> str:
        """The hash of a line: of all that it holds but for the hash itself, the hash before it included."""
        state = self._keyed.copy()
        state.update(_FORMAT)
        state.update(_sorted.encode({k: v for k, v in document.items() if k != "audit.hash"}))
        return state.hexdigest()

    def holds(self, document: Mapping[str, object]) -> bool:
        """Whether the line is as it was written."""
        found = document.get("audit.hash")
        return isinstance(found, str) and hmac.compare_digest(
            found.encode("utf-8", "replace"), self.hash(document).encode()
        )


def load_audit_key(folder: Path) -> AuditKey:
    """The key of the audit spool's folder, made if there is none. Raises OSError as `load_key` does."""
    return AuditKey(load_key(folder, name=AUDIT_KEY_FILE))


def read_audit_key(path: Path) -> AuditKey:
    """The key in that file. Raises OSError if it cannot be read, or is too short or too long for one."""
    with path.open("rb") as file:
        key = file.read(_LONGEST_KEY + 1)
    if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise OSError(
            f"{path}: it is no key of {_SHORTEST_KEY} to {_LONGEST_KEY} bytes; name the service's {AUDIT_KEY_FILE}"
        )
    return AuditKey(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a run knew of one that ended before it: that it reached this sequence, with this hash.

    sequence: -1 where nothing is known to have been written. sure: false where the machine has gone down since, so
    that the last lines may never have come to disk.
    """

    chain: str
    sequence: int
    hash: str
    sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A line's place in its chain. claims: those of a run's first line. at: its time stamp."""

    chain: str
    sequence: int
    previous: str
    hash: str
    key: str
    action: str
    at: str
    claims: tuple[Claim, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Link | None:
        """The place that the line says it has; None if it says none."""
        sequence = document.get("audit.sequence")
        texts = [document.get(f"audit.{name}") for name in ("chain", "previous", "hash", "key")]
        if (
            type(sequence) is not int
            or sequence < 0
            or not all(type(text) is str for text in texts)
        ):
            return None
        chain, previous, found, key = map(str, texts)
        return cls(
            chain=chain,
            sequence=sequence,
            previous=previous,
            hash=found,
            key=key,
            action=str(document.get("event.action", "")),
            at=str(document.get("@timestamp", "")),
            claims=_claims(document.get("audit.predecessors")),
        )


def claims_as_values(claims: tuple[Claim, ...]) -> list[dict[str, object]]:
    """The claims as a line holds them."""
    return [msgspec.to_builtins(claim) for claim in claims]


def _claims(found: object) -> tuple[Claim, ...]:
    try:
        return msgspec.convert(found if found is not None else [], tuple[Claim, ...])
    except msgspec.ValidationError:
        return ()
