"""What a line costs, and its way to Elasticsearch: python benchmarks/logs.py [--quick] [--no-peers] [--only PART]

Three parts, each against its budgets. `emit`: processor time from the call to the spool, of a line of five fields, ours
and the peers' in one process by turns, in short batches; a budget is kept or missed by the median, and peers stand
beside it. Peers write nowhere, ours into its spool. Then the time of single calls at 2,000 lines a second. `ship`:
documents of 513 bytes out of the spool into a real Elasticsearch, and the same by `elasticsearch.helpers.bulk`, by
turns in processes of their own whose whole processor time counts. `backlog`: the server is away while three processes
log; what waits at its return is timed while they go on. Peers are installed in a throwaway environment with this
project. Needs uv for the peers and Elasticsearch, which `make engines` installs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep
from typing import Any, Final, NamedTuple

PROJECT: Final = Path(__file__).resolve().parent.parent
OWN: Final = Path(__file__).resolve()
EMIT: Final = OWN.with_name("logs_emit.py")
PEERS: Final = ("orjson", "ecs-logging")
PINNED: Final = ("structlog", "opentelemetry-sdk", "elasticsearch", "msgspec")
FIELDS: Final = {
    "task_id": 71_204,
    "queue": "mail",
    "wait_s": 0.25,
    "attempt": 1,
    "worker": "north-4",
}
MESSAGE: Final = "task finished"
RATE: Final = 2_000
DOCUMENT_BYTES: Final = 513
BACKLOG: Final = 60_000
_MEBI: Final = 1024 * 1024
_INSIDE: Final = "--inside"
_USER: Final = "admin"


class Row(NamedTuple):
    """A measured value; most, least: its budget, if it has one."""

    what: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def _digits(self) -> int:
        return 2 if self.unit == "x" else 1

    def __str__(self) -> str:
        bound = self.most if self.most is not None else self.least
        text = f"{self.what:<62}{self.value:>10,.{self._digits}f} {self.unit:<7}"
        if bound is None:
            return text.rstrip()
        kept = self.value <= bound if self.most is not None else self.value >= bound
        return f"{text}{'<=' if self.most is not None else '>='} {bound:>8,.1f}  {'kept' if kept else 'MISSED'}"


def document(n: int) -> dict[str, object]:
    """A line as a service writes them, DOCUMENT_BYTES long with its line break."""
    made: dict[str, object] = {
        "@timestamp": f"2026-01-01T00:{n // 6000 % 60:02}:{n // 100 % 60:02}.{n % 100:02}0000Z",
        "log.level": "info",
        "message": MESSAGE,
        "ecs.version": "8.17.0",
        "log.logger": "bench",
        "service.name": "bench",
        "service.environment": "local",
        "trace.id": f"{n:032x}",
        "labels": {**FIELDS, "seq": n, "padding": ""},
    }
    room = DOCUMENT_BYTES - 1 - len(_packed(made))
    made["labels"] = {**FIELDS, "seq": n, "padding": "x" * room}
    return made


def _packed(made: dict[str, object]) -> bytes:
    return json.dumps(made, separators=(",", ":")).encode()


def inside_ship(folder: Path, url: str) -> dict[str, float]:
    """The spool's lines are shipped: seconds on the clock, of the processor, and how much memory that took."""
    from taskscope import Catalogue
    from taskscope_exporters.logs.run import run
    from taskscope_exporters.logs.settings import Secret, ShipSettings

    def ship(spool: Path) -> None:
        stop = threading.Event()
        settings = ShipSettings(
            spool=spool,
            url=url,
            username=_USER,
            password=Secret(text=os.environ["ELASTICSEARCH_PASSWORD"]),
        )
        thread = threading.Thread(
            target=run,
            args=(settings,),
            kwargs={"catalogue": Catalogue(service="bench"), "stop": stop, "port": None},
        )
        thread.start()
        while any(spool.glob("*.seg")):  # each is removed once it is done
            sleep(0.05)
        ended.append((perf_counter(), process_time()))
        stop.set()
        thread.join()

    ended: list[tuple[float, float]] = []
    ship(folder / "warm")
    before = memory(os.getpid(), anew=True)
    began, used = perf_counter(), process_time()
    ship(folder / "spool")
    clock, processor = ended[-1]
    grown = memory(os.getpid(), most=True) - before
    return {"clock_s": clock - began, "cpu_s": processor - used, "grown": grown}


def inside_bulk(folder: Path, url: str) -> dict[str, float]:
    """The same documents by the client's own helper, as dictionaries that are there already."""
    from elasticsearch import Elasticsearch, helpers

    lines = [
        line for path in sorted(folder.glob("*.seg")) for line in path.read_bytes().split(b"\n")
    ]
    documents = [json.loads(line) for line in lines if line]
    client = Elasticsearch(url, basic_auth=(_USER, os.environ["ELASTICSEARCH_PASSWORD"]))

    def actions(chosen: Iterable[dict[str, Any]], run_: str) -> Iterable[dict[str, Any]]:
        for at, each in enumerate(chosen):
            yield {
                "_op_type": "create",
                "_index": "logs-bench-bulk",
                "_id": f"{run_}-{at:x}",
                "_source": each,
            }

    run_ = f"{os.getpid():x}"
    helpers.bulk(client, actions(documents[:2000], f"warm-{run_}"), chunk_size=1000)
    began, used = perf_counter(), process_time()
    helpers.bulk(client, actions(documents, run_), chunk_size=1000)
    found = {"clock_s": perf_counter() - began, "cpu_s": process_time() - used}
    client.close()
    return found


def memory(pid: int, *, most: bool = False, anew: bool = False) -> int:
    """Resident bytes of a process, or the most there were. anew: the most is counted from now on."""
    if anew:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    rows = dict(
        row.split(":", 1)
        for row in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":" in row
    )
    return int(rows["VmHWM" if most else "VmRSS"].split()[0]) * 1024


def filled(folder: Path, count: int) -> None:
    """A spool with so many lines of DOCUMENT_BYTES, all of its segments ended."""
    from taskscope.logs.spool import Spool

    spool = Spool(folder, max_bytes=1 << 40, segment_bytes=4 * _MEBI, sync_s=None)
    for n in range(count):
        spool.write(_packed(document(n)) + b"\n")
    spool.close()


def inside(python: Path, script: Path, *words: str, **environ: str) -> dict[str, float]:
    """What a script told that ran in a process of its own."""
    # -P: a library that imports `requests` must not find the file beside this one.
    done = subprocess.run(
        [str(python), "-P", str(script), *words],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def emit(quick: bool, peers: bool) -> list[Row]:
    """What a call costs the code that makes it."""
    words = [*(["--quick"] if quick else []), *([] if peers else ["--no-peers"])]
    with TemporaryDirectory(prefix="taskscope-peers-") as folder:
        python = environment(Path(folder)) if peers else Path(sys.executable)
        costs = inside(python, EMIT, *words)
    paced = inside(Path(sys.executable), EMIT, "--paced", *words)
    rows = [
        Row(f"emit: {name}", cost, "µs", most=8.0 if name == "taskscope, structlog" else None)
        for name, cost in costs.items()
    ]
    own, bare = costs["taskscope, structlog"], costs.get("structlog with orjson, no sink")
    if bare is not None:
        # What a busy machine adds meets both.
        rows.append(Row("emit: ours takes so many times structlog's with orjson", own / bare, "x"))
    return [
        *rows,
        Row(f"emit: at {RATE:,} lines/s, half of the calls within", paced["p50"], "µs"),
        Row(f"emit: at {RATE:,} lines/s, 99 % of the calls within", paced["p99"], "µs", most=150.0),
        Row(f"emit: at {RATE:,} lines/s, 99.9 % of the calls within", paced["p999"], "µs"),
    ]


def ship(node: Any, folder: Path, quick: bool) -> list[Row]:
    """What a document costs on its way, beside the client's helper."""
    count, rounds = (30_000, 2) if quick else (100_000, 5)
    python, login = Path(sys.executable), {"ELASTICSEARCH_PASSWORD": node.admin.password}
    ours_, theirs = list[dict[str, float]](), list[dict[str, float]]()
    for round_ in range(rounds):
        place = folder / f"ship{round_}"
        filled(place / "warm", 2_000)
        filled(place / "spool", count)
        shutil.copytree(place / "spool", place / "copy")
        ours_.append(
            inside(python, OWN, _INSIDE, "ship", "--folder", str(place), "--url", node.url, **login)
        )
        theirs.append(
            inside(
                python,
                OWN,
                _INSIDE,
                "bulk",
                "--folder",
                str(place / "copy"),
                "--url",
                node.url,
                **login,
            )
        )
        say(f"ship, round {round_ + 1} of {rounds}: {ours_[-1]}, helpers.bulk {theirs[-1]}")
    stream = "logs-bench-local"
    node.refresh(stream)
    found = int(node.client.count(index=stream)["count"])
    if found != rounds * (count + 2_000):
        raise SystemExit(
            f"logs: {rounds * (count + 2_000):,} lines were shipped and {found:,} are there"
        )
    cost = median(each["cpu_s"] for each in ours_) / count * 1e6
    bulk = median(each["cpu_s"] for each in theirs) / count * 1e6
    ratio = median(b["cpu_s"] / a["cpu_s"] for a, b in zip(ours_, theirs, strict=True))
    return [
        Row(
            "ship: documents a second",
            median(count / each["clock_s"] for each in ours_),
            "/s",
            least=20_000,
        ),
        Row("ship: … by helpers.bulk", median(count / each["clock_s"] for each in theirs), "/s"),
        Row("ship: processor time of a document", cost, "µs", most=4.0),
        Row("ship: … by helpers.bulk", bulk, "µs"),
        Row("ship: helpers.bulk takes so many times as much", ratio, "x", least=4.0),
        Row(
            "ship: memory grows by", max(each["grown"] for each in ours_) / _MEBI, "MiB", most=16.0
        ),
    ]


def backlog(node: Any, folder: Path, quick: bool) -> list[Row]:
    """How long what waited takes once the server is back, and what that does to memory."""
    from taskscope.testing.loss import Pace, World
    from taskscope.testing.waiting import until

    waiting = BACKLOG // 4 if quick else BACKLOG
    taskscope = (sys.executable, "-m", "taskscope_ui")
    world = World(
        node=node,
        ship=(*taskscope, "ship", "--port", "0", "--patience", "0", "--app", "loss_catalogue"),
        setup=(),
        replay=(),
        worker=(),
        folder=folder / "backlog",
        service="bench-backlog",
        pace=Pace(rate=RATE / 3),
    )
    try:
        shipper = world.shipper()
        world.write_all()
        world.flowing()
        sleep(5.0)
        pids = [shipper.pid, *(writer.pid for writer in world.writers)]
        before = {pid: memory(pid, anew=True) for pid in pids}
        node.stop()
        stood = world.stored()
        until(lambda: world.stored() - stood >= waiting, within_s=300.0, saying="lines wait")
        node.again()  # what is logged until it answers waits too
        waited, began = world.stored(), perf_counter()

        def there() -> bool:
            node.refresh(world.stream)
            return bool(node.count(world.stream) >= waited)

        until(there, within_s=300.0, every_s=0.2, saying="what waited is drained")
        taken = perf_counter() - began
        grown = [memory(pid, most=True) - before[pid] for pid in pids]
        live = (world.stored() - waited) / taken
        world.settle()
    finally:
        world.close()
    many = f"{waited - stood:,}"
    return [
        Row(f"backlog: {many} lines drained after the server's return in", taken, "s"),
        Row(f"backlog: {BACKLOG:,} of them in", taken * BACKLOG / (waited - stood), "s", most=20.0),
        Row("backlog: lines a second logged meanwhile", live, "/s"),
        Row("backlog: the shipper's memory grows by", grown[0] / _MEBI, "MiB", most=16.0),
        Row("backlog: a service's memory grows by", max(grown[1:]) / _MEBI, "MiB", most=16.0),
    ]


def environment(folder: Path) -> Path:
    """The throwaway environment's Python, with this project and the peers. Raises CalledProcessError."""
    uv = shutil.which("uv") or str(PROJECT / ".tools" / "bin" / "uv")
    where = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, where], check=True)
    python = where / "bin" / "python"
    same = [f"{name}=={version(name)}" for name in PINNED]
    words = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*words, *same, *PEERS, f"{PROJECT}[exporters]"], check=True)
    return python


def say(sentence: str) -> None:
    """Told on standard error."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def parts(asked: argparse.Namespace) -> list[Row]:
    """The rows of what was asked for."""
    rows = emit(asked.quick, not asked.no_peers) if asked.only in ("", "emit") else []
    if asked.only == "emit":
        return rows
    from taskscope.testing.loss import Node

    with TemporaryDirectory(prefix="taskscope-bench-") as name:
        folder = Path(name)
        with closing(Node(folder / "elasticsearch")) as node:
            for part, measure in (("ship", ship), ("backlog", backlog)):
                if asked.only in ("", part):
                    say(f"{part} …")
                    rows += measure(node, folder, asked.quick)
    return rows


def main() -> None:
    """The table is on standard output."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="below two minutes, less exact")
    arguments.add_argument("--no-peers", action="store_true", help="nothing is installed")
    arguments.add_argument("--only", default="", choices=("", "emit", "ship", "backlog"))
    arguments.add_argument(_INSIDE, default="", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)
    arguments.add_argument("--url", default="", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    measures: dict[str, Callable[[], dict[str, float]]] = {
        "ship": lambda: inside_ship(asked.folder, asked.url),
        "bulk": lambda: inside_bulk(asked.folder, asked.url),
    }
    if asked.inside:
        sys.stdout.write(json.dumps(measures[asked.inside]()) + "\n")
        return
    sys.stdout.write("\n".join(map(str, parts(asked))) + "\n")


if __name__ == "__main__":
    main()
