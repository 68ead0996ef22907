"""Does the library work with the FastAPI you have: the same app under each of several versions, in throwaway venvs.

    python benchmarks/adoption.py

One line a version; exit 1 if any emits anything but what it must. Needs a package index, and uv or pip; with a warm
cache about half a minute. `lowest` takes the lowest version of everything that the library depends on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SMOKE: Final = ROOT / "instrumentation/tests/compat/smoke.py"
LOWEST: Final = "lowest"
VERSIONS: Final = {
    LOWEST: "fastapi==0.110.0",
    "0.110": "fastapi==0.110.*",
    "0.115": "fastapi==0.115.*",
    "0.128": "fastapi==0.128.*",
    "newest": "fastapi",
}
_SHOW: Final = (
    "from importlib.metadata import version as v;"
    "print(*(f'{n} {v(n)}' for n in ('fastapi', 'starlette', 'opentelemetry-sdk')), sep=', ')"
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def install(folder: Path, name: str) -> Path:
    """The Python of a new environment with the library and that FastAPI. Raises RuntimeError with what was said."""
    python = folder / "bin/python"
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".tools/bin/uv"))
    wanted = ["-e", str(ROOT), VERSIONS[name], "uvicorn>=0.30"]
    if uv is not None:
        lowest = ["--resolution", "lowest-direct"] if name == LOWEST else []
        steps = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *lowest, *wanted],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *wanted],
        ]
    for step in steps:
        done = run(*step)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
    return python


def differences(name: str) -> list[str]:
    """What is wrong under that version, a line each; what it took is printed."""
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="taskscope-adoption-") as folder:
        python = install(Path(folder) / "env", name)
        told = []
        for framework in ("fastapi", "starlette", *(["native"] if name == "newest" else [])):
            done = run(str(python), str(SMOKE), framework)
            if done.returncode:
                told += (done.stdout or done.stderr).strip().splitlines()[-8:]
        installed = run(str(python), "-c", _SHOW).stdout.strip()
    word = "differs" if told else "the same"
    sys.stdout.write(f"{name:8} {word:9} {perf_counter() - began:5.1f} s  {installed}\n")
    return told


def main() -> int:
    found = [line for name in VERSIONS for line in differences(name)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
