"""Fetches Elasticsearch once, as a part of its own: `python -m taskscope_ui.stack.fetch`.

A process, so that it can be stopped like any other part and has a log file.
"""

from __future__ import annotations

import sys

from taskscope.errors import EngineError
from taskscope.testing.engines import distribution, jdk

__all__ = ["main"]


def main() -> int:
    """The exit code: 0 when the distribution is here."""
    java = jdk.find()
    if java is None:
        return _say(f"elasticsearch needs a JDK of 17 or newer; run: {jdk.REMEDY}")
    try:
        version = distribution.version_for(java)
        distribution.prepare(distribution.default_cache(), version, java, _progress)
    except EngineError as error:
        return _say(str(error))
    return 0


def _progress(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


def _say(fault: str) -> int:
    sys.stderr.write(f"{fault}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
