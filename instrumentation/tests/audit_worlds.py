"""Audit trails for tests: written by real runs in a folder, and read back as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from taskscope.audit import Audit, Audited, AuditKey, Head, Report, read_heads, verify
from taskscope.identity import Identity
from taskscope.logs.ecs import EcsEncoder
from taskscope.logs.looking import newest_first

SECRET = b"k" * 32
KEY = AuditKey(SECRET)
ENCODER = EcsEncoder(
    service_name="shop", service_version="1", environment="local", instance="one-1"
)


def trail(spool: Path, **changes: Any) -> Audit:
    """A trail into the spool's audit folder, with a key that tests know."""
    values: dict[str, Any] = {
        "spool": spool,
        "encoder": ENCODER,
        "max_bytes": 4 * 1024 * 1024,
        "segment_bytes": 1024 * 1024,
        "key": SECRET,
        "identity": lambda: Identity(service_name="shop", key=SECRET),
    }
    return Audit(**(values | changes))


def die(audit: Audit) -> None:
    """The trail ends as its process would that is killed: no closing line, and its locks are free."""
    if audit._run is not None:
        audit._run.leave()
        audit._run = None
    audit.close()


def written(spool: Path) -> list[Audited]:
    """The lines, the oldest first."""
    found = [
        Audited(id=seen.id, document=msgspec.json.decode(seen.raw))
        for seen in newest_first(spool / "audit", since=0)
    ]
    return sorted(found, key=lambda line: str(line.document["@timestamp"]))


def heads(spool: Path) -> Sequence[Head]:
    """How far the folder knows that each run had come."""
    return read_heads(spool / "audit")


def checked(spool: Path, lines: Sequence[Audited] | None = None) -> Report:
    """What the lines show, by default those that are there."""
    return verify(written(spool) if lines is None else lines, [KEY], heads=heads(spool))


def found(report: Report) -> list[tuple[str, int, int]]:
    """Its breaks: kind, and from which place to which."""
    return [(each.kind.value, each.sequence, each.last) for each in report.breaks]
