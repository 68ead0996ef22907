"""`python -m taskscope.testing.engines`: which engines are here, and with --install the rest of them.

Needs Python alone. Exit code 0: all are here; 1: some are missing; 2: the installation failed.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from taskscope.errors import EngineError
from taskscope.testing.engines.install import install
from taskscope.testing.engines.packages import PACKAGES, missing, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = ("ENGINE", "VERSION", "STATE", "REMEDY OR USE")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m taskscope.testing.engines",
        description="The servers that tests and the local stack run.",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="say what is here; exit 1 if some is missing (default)"
    )
    action.add_argument(
        "--install", action="store_true", help="install what is missing with apt-get and Maven"
    )
    parser.add_argument(
        "--stack", action="store_true", help="only what the local stack runs, not what tests run"
    )
    try:
        asked = parser.parse_args(argv)
        if asked.install:
            install(lambda step: _say(f"taskscope: {step}"), for_tests=not asked.stack)
        _say(table(for_tests=not asked.stack))
        return 1 if missing(for_tests=not asked.stack) else 0
    except EngineError as error:
        sys.stderr.write(f"taskscope: {error}\n")
        return 2


def table(*, for_tests: bool = True) -> str:
    """One aligned line an engine: name, version, state, and its use or the command that brings it."""
    rows = [_HEAD]
    for package in PACKAGES:
        if package.for_tests and not for_tests:
            continue
        here = package.find() is not None
        state, last = ("ready", package.why) if here else ("missing", package.remedy)
        rows.append((package.engine, version_of(package) or "-", state, last))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
