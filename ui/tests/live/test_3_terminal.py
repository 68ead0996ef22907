"""Whoever started the stack reads its logs without looking for a port or a secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .conftest import Live, until

PLAIN = {key: value for key, value in os.environ.items() if not key.startswith("ELASTICSEARCH_")}


def logs(live: Live, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taskscope_ui", "logs", *words]
    return subprocess.run(
        [*command, "--spool", str(live.folder / "spool")],
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["tail", "search"])
def test_lines_come_out_of_the_stacks_elasticsearch(live: Live, command: str) -> None:
    def found() -> list[str]:
        done = logs(live, command, "--from", "elasticsearch", "--since", "10m", "--json")
        assert live.address("elasticsearch") in done.stderr
        return done.stdout.splitlines()

    lines = [json.loads(text) for text in until(found, within_s=60)]
    assert {line["service.name"] for line in lines} == {"taskapi"}


def test_the_audit_trail_of_the_stack_is_whole(live: Live) -> None:
    done = logs(live, "verify")
    assert (done.returncode, "intact: " in done.stdout) == (0, True), done.stderr
    assert live.address("elasticsearch") in done.stderr
