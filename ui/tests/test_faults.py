"""Faults on demand: read from the command line, and told to the traffic of the stack that runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from taskscope_ui.faults import FaultError, Faults, begin_with, parse, tell
from taskscope_ui.stack import state


def running_stack(folder: Path, *, traffic: bool = True) -> Path:
    """A state file that says: this process is the stack, and its traffic as well. Returns the traffic's file."""
    me = state.of_this_process()
    control = folder / "run/traffic.json"
    parts = (
        state.PartRecord(name="traffic", phase="ready", pid=me["pid"], began=me["began"]),
    ) * traffic
    folder.mkdir(mode=0o700, exist_ok=True)
    state.write(
        folder,
        state.StackState(
            **me, project=".", traffic_control=str(control), spool="spool", parts=parts
        ),
    )
    return control


def test_faults_are_read_as_shares() -> None:
    assert parse(["errors=0.5", "slow=0.1"]) == Faults(errors=0.5, slow=0.1)


def test_clear_ends_every_fault() -> None:
    assert not parse(["clear"]).any


@pytest.mark.parametrize("word", ["errors", "errors=", "errors=nan", "slow=-1", "lag=1", "clear=1"])
def test_a_fault_that_is_none_is_refused_with_the_remedy(word: str) -> None:
    with pytest.raises(FaultError, match="write"):
        parse([word])


def test_the_running_traffic_is_told(tmp_path: Path) -> None:
    control = running_stack(tmp_path / "stack")
    tell(tmp_path / "stack", Faults(errors=0.5))
    assert json.loads(control.read_text()) == {"errors": 0.5, "slow": 0.0}


def test_the_traffics_file_is_its_owners_alone(tmp_path: Path) -> None:
    control = running_stack(tmp_path / "stack")
    tell(tmp_path / "stack", Faults(errors=0.5))
    assert stat.S_IMODE(control.stat().st_mode) == 0o600


def test_without_a_stack_nobody_is_told(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match="no stack runs there; run `taskscope up`"):
        tell(tmp_path, Faults())


def test_a_stack_without_traffic_is_said_to_have_none(tmp_path: Path) -> None:
    running_stack(tmp_path / "stack", traffic=False)
    with pytest.raises(FaultError, match="runs without traffic"):
        tell(tmp_path / "stack", Faults())


def test_a_new_stack_forgets_the_faults_of_the_last_one(tmp_path: Path) -> None:
    left = tmp_path / "stack/run/traffic.json"
    left.parent.mkdir(parents=True, mode=0o700)
    left.write_text('{"errors": 1}')
    begin_with(tmp_path / "stack", Faults())
    assert not left.exists()


def test_a_new_stack_may_begin_with_faults(tmp_path: Path) -> None:
    begin_with(tmp_path / "stack", Faults(errors=0.25))
    assert json.loads((tmp_path / "stack/run/traffic.json").read_text())["errors"] == 0.25


def test_a_stack_that_runs_keeps_its_faults(tmp_path: Path) -> None:
    control = running_stack(tmp_path / "stack")
    control.write_text("{}")
    begin_with(tmp_path / "stack", Faults(errors=1))
    assert control.read_text() == "{}"


def test_a_state_that_cannot_be_read_does_not_keep_the_next_start_from_running(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text("{}")
    begin_with(tmp_path, Faults())
    begin_with(tmp_path, Faults(errors=0.5))
    assert json.loads((tmp_path / "run" / "traffic.json").read_text())["errors"] == 0.5
