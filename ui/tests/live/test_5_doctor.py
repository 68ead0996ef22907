"""Breakages planted in the running stack, one at a time: the doctor names each, with its remedy, in under 5 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from taskscope.catalogue import Kind, Metric
from taskscope_taskapi import CATALOGUE
from taskscope_ui.doctor import examine, survey

from .conftest import Live, until

pytestmark = [pytest.mark.engine, pytest.mark.stack]


def named(live: Live, *words: str) -> bool:
    """Whether one line of the doctor's holds all of `words`; its form and its time are held to the promise."""
    began = time.monotonic()
    seen = live.doctor()
    took_s = time.monotonic() - began
    assert took_s < 8, f"{took_s:.1f} s, the start of Python included"
    assert seen.stderr == ""
    assert seen.returncode == (1 if seen.stdout else 0)
    assert all("; " in line for line in seen.stdout.splitlines()), seen.stdout
    return any(all(word in line for word in words) for line in seen.stdout.splitlines())


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """The file says `text` inside the block, and what it said before after it."""
    before = path.read_bytes()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_wrong_port_in_a_target_list(live: Live) -> None:
    targets = live.folder / "prometheus" / "targets" / "taskapi-shipper.json"
    with changed(targets, json.dumps([{"targets": ["127.0.0.1:1"]}])):
        until(lambda: named(live, "target taskapi-shipper", "127.0.0.1:1", "correct"), within_s=60)
    until(lambda: not named(live, "target taskapi-shipper"), within_s=60)


def test_a_target_list_without_targets(live: Live) -> None:
    with changed(live.folder / "prometheus" / "targets" / "taskapi-shipper.json", "[]"):
        until(
            lambda: named(live, "target taskapi-shipper", "no such target", "list its address"),
            within_s=60,
        )
    until(lambda: not named(live, "target taskapi-shipper"), within_s=60)


def test_no_alertmanager_known(live: Live) -> None:
    with changed(live.folder / "prometheus" / "targets" / "alertmanagers.json", "[]"):
        until(lambda: named(live, "alertmanager", "knows none", "alertmanagers.json"), within_s=60)
    until(lambda: not named(live, "knows none"), within_s=60)


def test_a_rule_in_error(live: Live) -> None:
    rules = live.folder / "prometheus" / "rules" / "planted.rules.yml"
    rules.write_text(
        "groups: [{name: planted, interval: 1s, rules: ["
        '{record: planted, expr: \'up / on (job) group_left () label_replace(up, "x", "y", "", "")\'}]}]'
    )
    reload = f"{live.address('prometheus')}/-/reload"
    assert live.client.post(reload).status_code == 200
    until(
        lambda: named(live, "rule planted", "cannot be evaluated", "taskscope build"), within_s=60
    )
    rules.unlink()
    assert live.client.post(reload).status_code == 200
    until(lambda: not live.doctor().stdout, within_s=60)


def test_the_readers_key_is_wrong(live: Live) -> None:
    with changed(live.folder / "secrets" / "elasticsearch_reader", "wrong\n"):
        assert named(live, "elasticsearch", "refuses the reader's key with 401", "taskscope up")


def test_the_shippers_key_is_wrong(live: Live) -> None:
    with changed(live.folder / "secrets" / "elasticsearch_shipper", "wrong\n"):
        assert named(live, "elasticsearch", "refuses the shipper's key with 401", "taskscope up")


def test_a_folder_open_to_others(live: Live) -> None:
    secrets = live.folder / "secrets"
    secrets.chmod(0o755)
    assert named(live, str(secrets), "open to other users (mode 755)", "chmod 700")
    secrets.chmod(0o700)


def test_a_full_folder(live: Live) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    logs = live.folder / "logs"
    subprocess.run(
        [*sudo, "mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(logs)], check=True
    )
    try:
        assert named(live, str(logs), "MiB free and needs 64", "free space there")
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(logs)], check=True)


def test_a_series_that_is_declared_and_absent(live: Live) -> None:
    planted = Metric(
        name="taskapi.planted", kind=Kind.COUNTER, unit="{task}", help="Never made.", owner="tasks"
    )
    wider = replace(CATALOGUE, metrics=(*CATALOGUE.metrics, planted))

    def told() -> list[tuple[str, bool, bool]]:
        found = anyio.run(examine, survey(live.folder, wider))
        return [(f.where, "absent" in f.what, bool(f.remedy)) for f in found]

    # A series is missed only once the stack had the time to make it.
    until(lambda: told() == [("series taskapi_planted_total", True, True)], within_s=90)


def test_a_part_that_hangs(live: Live) -> None:
    proxy = live.part("proxy").pid
    os.killpg(proxy, signal.SIGSTOP)
    try:
        assert named(
            live, "proxy", "does not answer", "stopped by a signal", f"kill -CONT -- -{proxy}"
        )
    finally:
        os.killpg(proxy, signal.SIGCONT)


def test_all_is_well_again_after_those(live: Live) -> None:
    until(lambda: not live.doctor().stdout, within_s=90)


@pytest.mark.parametrize(
    "part", ["api-2", "page", "shipper", "alertmanager", "elasticsearch", "prometheus"]
)
def test_a_part_that_was_killed(live: Live, part: str) -> None:
    os.killpg(live.part(part).pid, signal.SIGKILL)
    until(lambda: named(live, f"{part}: ", "process has ended", "taskscope up"), within_s=15)


def test_no_stack_at_all(tmp_path: Path) -> None:
    found = anyio.run(examine, survey(tmp_path, CATALOGUE))
    assert [str(f) for f in found] == [f"{tmp_path}: no stack was started here; run: taskscope up"]
