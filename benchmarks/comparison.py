"""What instrumentation records of awkward requests: python benchmarks/comparison.py [--write]

The same small service runs under each tool, in a throwaway environment, on a real socket with the h11 parser.
The same awkward requests go to each; what its /metrics says differently afterwards is the table's cell. Needs uv, and
a package index for the environment. --write puts the table into docs/comparison.md.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from awkward_cases import CASES, SLOW_S, TOOLS, Change, Samples, Server, Tool, baggage

PROJECT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = PROJECT / "docs" / "comparison.md"
_START_S: Final = 30.0
_SETTLE_S: Final = 5.0
PACKAGES: Final = (
    "uvicorn[standard]",
    "prometheus-fastapi-instrumentator",
    "starlette_exporter",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-exporter-prometheus",
)
_START_MARK: Final = "<!-- table: benchmarks/comparison.py -->"
_END_MARK: Final = "<!-- end of table -->"


@contextmanager
def serving(python: Path, tool: Tool, folder: Path) -> Iterator[Server]:
    """The service under one tool, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = folder / f"{tool.key}.log"
    app = PROJECT / "benchmarks" / "awkward_app.py"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [python, app, tool.key, str(port)], stderr=stderr, stdout=stderr, cwd=folder
        )
        try:
            server = Server(tool, port, log)
            _until(lambda: _answers(server) or process.poll() is not None, _START_S)
            if process.poll() is not None:
                raise SystemExit(f"{tool.title} did not start:\n{log.read_text()[-2000:]}")
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _answers(server: Server) -> bool:
    try:
        return server.get("/items/first") == 200
    except OSError:
        return False


def _until(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def measure(server: Server) -> list[str]:
    """The column of one tool, and at its end what a hostile header made it log."""
    cells = []
    server.samples()  # the series of /metrics itself, where a tool counts it
    for case in CASES:
        before = server.samples()
        case.send(server)
        cells.append(case.told(server, Change(server.tool, before, _settled(server))))
    size = server.log.stat().st_size
    baggage(server)
    _settled(server)
    cells.append(f"{server.log.stat().st_size - size:,} bytes logged")
    return cells


def _settled(server: Server) -> Samples:
    """The samples once they no longer change: what outlives its response has ended too."""
    last, since = server.samples(), time.monotonic()
    deadline = since + _SETTLE_S
    while time.monotonic() < min(deadline, since + SLOW_S * 2.5):
        time.sleep(SLOW_S / 4)
        now = server.samples()
        moved = {k for k, v in now.items() if last.get(k) != v and server.tool.duration in k[0]}
        if moved:
            since = time.monotonic()
        last = now
    return last


def environment(folder: Path) -> Path:
    """A Python with every tool in it."""
    uv = shutil.which("uv") or str(PROJECT / ".tools" / "bin" / "uv")
    where = folder / "env"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, where], check=True)
    python = where / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *PACKAGES, f"{PROJECT}[taskapi]"],
        check=True,
    )
    return python


def versions(python: Path) -> list[str]:
    """The version of each tool, in the table's order."""
    asked = f"import importlib.metadata as m; [print(m.version(p)) for p in {[t.package for t in TOOLS]!r}]"
    done = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    return done.stdout.split()


def table(columns: dict[str, list[str]], found: list[str]) -> str:
    """The table as Markdown."""
    titles = [f"{tool.title} {version}" for tool, version in zip(TOOLS, found, strict=True)]
    rows = [["", *titles], ["---"] * (len(titles) + 1)]
    names = [case.title for case in CASES] + ["one request with 60 kB of baggage"]
    for number, name in enumerate(names):
        rows.append([name, *(columns[tool.key][number] for tool in TOOLS)])
    return "\n".join(f"| {' | '.join(cell.replace('|', '¦') for cell in row)} |" for row in rows)


def main() -> None:
    """The table is on standard output, and in the page with --write."""
    columns: dict[str, list[str]] = defaultdict(list)
    with TemporaryDirectory(prefix="taskscope-comparison-") as name:
        folder = Path(name)
        python = environment(folder)
        for tool in TOOLS:
            sys.stderr.write(f"{tool.title} …\n")
            with serving(python, tool, folder) as server:
                columns[tool.key] = measure(server)
        text = table(columns, versions(python))
    sys.stdout.write(f"{text}\n")
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text()
        before, _, rest = page.partition(_START_MARK)
        after = rest.partition(_END_MARK)[2]
        PAGE.write_text(f"{before}{_START_MARK}\n{text}\n{_END_MARK}{after}")


if __name__ == "__main__":
    main()
