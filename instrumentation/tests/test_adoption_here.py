"""FastAPI and plain Starlette as they are installed here: nested routers, mounts, errors, streams, spans and lines.

`benchmarks/adoption.py` runs the same app under FastAPI from 0.110 on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SMOKE = Path(__file__).parent / "compat/smoke.py"


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "native"])
def test_an_app_of_it_emits_exactly_what_it_must(framework: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SMOKE), framework],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_difference_is_told() -> None:
    code = f"import sys; sys.path.insert(0, {str(SMOKE.parent)!r}); import smoke; "
    code += "smoke.EXPECTED['served'] = 2; print(*smoke.differences('starlette'), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "starlette: served are 1.0, expected 2\n"
