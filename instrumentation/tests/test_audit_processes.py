"""The audit trail of several processes: killed, forked, at once; what they leave is open, never broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taskscope.testing.waiting import until

from .audit_worlds import checked, found, heads, trail, written

pytestmark = pytest.mark.timeout(60)

WRITER = """
import signal, sys, threading
from pathlib import Path
from taskscope.audit import Audit
from taskscope.logs.ecs import EcsEncoder

encoder = EcsEncoder(service_name="shop", service_version="1", environment="local", instance="i")
audit = Audit(
    spool=Path(sys.argv[1]), encoder=encoder, max_bytes=1 << 26, segment_bytes=1 << 16, key=b"k" * 32
)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
count = 0
while not ended.is_set():
    assert audit.record("user.login", count=count)
    count += 1
    if count == 20:
        print("ready", flush=True)
audit.close()
"""


def writer(spool: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(spool)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_are_killed_leave_open_runs_and_no_break(tmp_path: Path) -> None:
    """Each generation is killed in the midst of its lines, and the next one takes up what is left."""
    for _ in range(3):
        writers = [writer(tmp_path) for _ in range(3)]
        for each in writers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for number, each in enumerate(writers):
            each.send_signal(signal.SIGTERM if number == 0 else signal.SIGKILL)
        for each in writers:
            each.communicate(timeout=30)
    report = checked(tmp_path)
    assert (report.breaks, report.notes, report.unknown_keys) == ((), (), ())
    assert (report.chains, len(report.open)) == (9, 6)
    assert len({head.claim.chain for head in heads(tmp_path)}) >= 3


def test_one_that_is_killed_while_others_begin_is_taken_up_once(tmp_path: Path) -> None:
    for delay in range(8):
        before = len(written(tmp_path)) if delay else 0
        process = writer(tmp_path)

        def has_begun(before: int = before) -> bool:
            folder = tmp_path / "audit"
            return folder.exists() and (
                any(folder.glob("*.new")) or len(written(tmp_path)) > before
            )

        until(has_begun, within_s=30, every_s=0.0005 * delay)
        process.kill()
        process.communicate(timeout=30)
    last = trail(tmp_path)
    assert last.record("user.login")
    last.close()
    assert checked(tmp_path).breaks == ()


def test_a_forked_child_has_a_run_of_its_own(tmp_path: Path) -> None:
    audit = trail(tmp_path)
    assert audit.record("user.login")
    child = os.fork()
    if child == 0:
        audit.record("user.logout")
        audit.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert audit.record("user.login")
    after = trail(tmp_path)
    assert after.record("user.login")
    audit.close()
    after.close()
    report = checked(tmp_path)
    assert (report.breaks, report.chains, report.open) == ((), 3, ())
    # Its parent lived, so nobody but the third run had anything to take up.
    claims = [
        len(line.document["audit.predecessors"])
        for line in written(tmp_path)
        if "audit.predecessors" in line.document
    ]
    assert sorted(claims) == [0, 0, 1]


def test_threads_write_one_chain(tmp_path: Path) -> None:
    audit = trail(tmp_path)
    stored: list[bool] = []

    def work() -> None:
        for _ in range(50):
            stored.append(audit.record("user.login"))  # noqa: PERF401 # many threads append

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    audit.close()
    report = checked(tmp_path)
    assert (report.intact, report.chains, report.lines, sum(stored)) == (True, 1, 402, 400)
    lines = sorted(written(tmp_path), key=lambda line: int(str(line.document["audit.sequence"])))
    assert found(checked(tmp_path, [*lines[:7], *lines[9:]])) == [("removed", 7, 8)]
