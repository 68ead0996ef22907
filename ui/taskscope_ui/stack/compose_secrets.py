"""`make secrets`: the words that docker-compose.yml asks for, random, in a file only its owner reads.

Run as `python -m taskscope_ui.stack.compose_secrets [FILE]`; FILE is `.env`, which compose reads by itself.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from taskscope.errors import EngineError

__all__ = ["NAMES", "ensure", "main"]

NAMES: Final = (
    "POSTGRES_PASSWORD",
    "TASKAPI_JWT_SECRET",
    "ELASTIC_PASSWORD",
    "ELASTICSEARCH_SHIPPER_PASSWORD",
    "ELASTICSEARCH_READER_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
)
"""Every secret of docker-compose.yml; none has a default there."""

_BYTES: Final = 32


def ensure(path: Path) -> tuple[str, ...]:
    """`path` (0600) gives each of NAMES a word; what it had stays. The names that were added are returned.

    Raises EngineError when the file cannot be read or written.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        added = tuple(name for name in NAMES if name not in _given(text))
        # hex: no sign that a URL, a shell or compose's own `$` would read otherwise
        lines = "".join(f"{name}={secrets.token_hex(_BYTES)}\n" for name in added)
        head = text if not text or text.endswith("\n") else f"{text}\n"
        _replace(path, head + lines)
    except UnicodeDecodeError as error:
        raise EngineError(f"{path}: is not UTF-8; mend it, or move it away") from error
    except OSError as error:
        raise EngineError(
            f"{path}: {error.strerror}; run this in a folder that you may write"
        ) from error
    return added


def _given(text: str) -> frozenset[str]:
    # As compose reads it: `export` may stand before, quotes around, and nothing between them is no word.
    lines = (line.strip().removeprefix("export ") for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return frozenset(name.strip() for name, _, word in pairs if word.strip().strip("'\""))


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    beside.replace(path)


def main(arguments: Sequence[str]) -> int:
    """The exit code; says which words were made, never the words."""
    path = Path(arguments[0] if arguments else ".env")
    try:
        added = ensure(path)
    except EngineError as error:
        sys.stderr.write(f"taskscope: {error}\n")
        return 2
    sys.stdout.write(f"{path}: {', '.join(added)} made\n" if added else f"{path}: all there\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
