"""From nothing to a scraped metric, as a newcomer does it: python benchmarks/first_metric.py [--wheel FILE]

Makes an environment that is thrown away, installs the project's wheel with fastapi and uvicorn into it, writes the
first example of docs/instrumentation.md, starts uvicorn, sends the example's request and scrapes. Prints what each
step took; exit 1 if the promised line is not scraped, or if all of it took a minute or more. The wheel is built
first, outside of the clock, unless one is given. Needs uv and a package index.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "instrumentation.md"
LIMIT_S: Final = 60.0
START_S: Final = 20.0
STOP_S: Final = 10.0


class StepError(Exception):
    """A step did not do what the page says; the text tells which, and what was said."""


class Watch:
    """A clock that tells each step's seconds."""

    def __init__(self) -> None:
        self.total_s = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What the block took is printed and added."""
        began = monotonic()
        yield
        took = monotonic() - began
        self.total_s += took
        sys.stdout.write(f"{name:44}{took:7.2f} s\n")


def example() -> tuple[str, str]:
    """The page's first program and the line that it promises."""
    text = PAGE.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    promised = re.search(r"```text\n(.*?)\n```", text, re.DOTALL)
    if code is None or promised is None:
        raise StepError(f"{PAGE.name}: the first example or what it promises is not there")
    return code[1], promised[1]


def run(*words: str | Path, cwd: Path | None = None) -> None:
    """The command has ended well. Raises StepError with its last line."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=cwd
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{words[0]}: it took more than {LIMIT_S:g} s") from error
    if done.returncode:
        raise StepError(f"{words[0]}: {done.stderr.strip()}")


def uv() -> str:
    """The path of uv. Raises StepError without one."""
    found = shutil.which("uv") or shutil.which(str(ROOT / ".tools/bin/uv"))
    if found is None:
        raise StepError("uv is not installed; run: pip install uv")
    return found


def built(folder: Path) -> Path:
    """A wheel of the project as it stands."""
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def get(port: int, path: str) -> str:
    """The body of an answer from the loopback."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def answered(port: int, path: str, server: subprocess.Popen[bytes]) -> str:
    """The first answer of a server that is starting. Raises StepError if it ends, or does not come in time."""
    deadline = monotonic() + START_S
    while monotonic() < deadline and server.poll() is None:
        try:
            return get(port, path)
        except OSError:
            sleep(0.02)
    raise StepError(f"uvicorn: no answer within {START_S:g} s")


@contextmanager
def served(python: Path, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Inside the block uvicorn runs the example."""
    with (folder / "uvicorn.log").open("wb") as log:
        server = subprocess.Popen(
            [python, "-m", "uvicorn", "main:app", "--port", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={
                name: text
                for name, text in os.environ.items()
                if not name.startswith(("TASKSCOPE_", "OTEL_"))
            },
        )
        try:
            yield server
        finally:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def measured(folder: Path, wheel: Path) -> float:
    """All steps were done and printed; the sum of their seconds. Raises StepError naming the step that was not."""
    code, promised = example()
    watch, python, port = Watch(), folder / "env/bin/python", free_port()
    with watch.step("environment"):
        run(uv(), "venv", "--quiet", "--python", sys.executable, folder / "env")
    with watch.step("install taskscope, fastapi, uvicorn"):
        run(uv(), "pip", "install", "--quiet", "--python", python, wheel, "fastapi", "uvicorn")
    with watch.step("write the example"):
        (folder / "main.py").write_text(code)
    with served(python, folder, port) as server:
        with watch.step("start, and answer the first request"):
            greeting = answered(port, "/hello/world", server)
        with watch.step("scrape"):
            scraped = get(port, "/metrics")
    if promised not in scraped.splitlines():
        raise StepError(f"{greeting} was answered, but /metrics does not hold {promised}")
    sys.stdout.write(f"{'from nothing to a scraped metric':44}{watch.total_s:7.2f} s\n")
    return watch.total_s


def main() -> int:
    about = (__doc__ or "").partition(":")[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--wheel", type=Path, help="installed instead of one that is built")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="taskscope-first-") as folder:
        try:
            wheel = given.wheel or built(Path(folder) / "wheel")
            took = measured(Path(folder), wheel.resolve())
        except StepError as error:
            sys.stderr.write(f"first_metric: {error}\n")
            return 1
    return int(took >= LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
