"""What a stack keeps on disk: its state, its lock and its secrets, closed to others and never half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskscope.errors import EngineError
from taskscope_ui.stack.credentials import Credentials, private_folder
from taskscope_ui.stack.state import (
    PartRecord,
    StackState,
    clear_leftovers,
    hold,
    of_this_process,
    read,
    write,
)


def state(*parts: PartRecord) -> StackState:
    return StackState(
        **of_this_process(),
        project="/project",
        traffic_control="/stack/run/traffic.json",
        spool="/stack/spool",
        parts=parts,
        addresses={"api": "http://127.0.0.1:8000"},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = state(
        PartRecord(name="page", phase="ready", pid=1, began=2, url="http://127.0.0.1:1")
    )
    write(tmp_path, written)
    assert read(tmp_path) == written
    assert written.runs
    assert (tmp_path / "run" / "stack.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_without_a_stack_has_no_state(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert clear_leftovers(tmp_path) == ()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"parts": 3}', '{"parts": [{"nome": "page"}]}', "\x00"),
        (
            '{"pid":1,"began":1,"boot":"","project":"","traffic_control":"","spool":"",'
            '"parts":[{"name":"page","phase":"ready","pid":"x"}]}'
        ),
    ],
)
def test_a_file_that_is_no_state_is_named_and_does_not_stop_the_next_start(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text(text)
    with pytest.raises(EngineError, match=r"stack\.json is not a stack's state; remove it"):
        read(tmp_path)
    assert clear_leftovers(tmp_path) == ()


def test_a_process_that_only_has_the_number_of_a_part_is_left_alone(tmp_path: Path) -> None:
    """The pid of a part from before was given to another process: here, to this one."""
    write(tmp_path, state(PartRecord(name="page", phase="ready", pid=os.getpid(), began=1)))
    assert clear_leftovers(tmp_path) == ()


def test_a_folder_belongs_to_one_stack_at_a_time(tmp_path: Path) -> None:
    with (
        hold(tmp_path),
        pytest.raises(EngineError, match=f"in use by another taskscope up, pid {os.getpid()}; "),
    ):
        hold(tmp_path).__enter__()
    with hold(tmp_path):
        pass


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = Credentials.load(tmp_path / "secrets")
    assert Credentials.load(tmp_path / "secrets") == first
    words = [path.read_text().strip() for path in (tmp_path / "secrets").iterdir()]
    assert len(set(words)) == 4
    assert all(len(word) >= 43 for word in words)


def test_only_their_owner_reads_secrets_even_when_that_was_changed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    Credentials.load(folder)
    folder.chmod(0o755)
    (folder / "jwt").chmod(0o644)
    Credentials.load(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_printing_the_secrets_shows_none(tmp_path: Path) -> None:
    made = Credentials.load(tmp_path / "secrets")
    assert made.jwt not in repr(made)


def test_a_link_in_the_place_of_a_secret_is_not_followed(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "secrets")
    (tmp_path / "other").write_text("planted")
    (folder / "jwt").symlink_to(tmp_path / "other")
    with pytest.raises(EngineError, match=r"jwt cannot be read: .*; remove it"):
        Credentials.load(folder)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "secrets")
    (folder / "jwt").touch()
    with pytest.raises(EngineError, match="jwt is empty; remove it"):
        Credentials.load(folder)


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(EngineError, match="is a link; remove it"):
        private_folder(tmp_path / "link")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="file cannot be used: File exists; name another folder"):
        private_folder(tmp_path / "file")


def test_a_folder_that_is_a_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="is not a folder; name another with --folder"):
        read(tmp_path / "file")


def test_a_lock_or_secret_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "lock").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"lock cannot be used: Is a directory; remove it"):
        hold(tmp_path).__enter__()
    (tmp_path / "secrets" / "jwt").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"jwt cannot be read: Is a directory; remove it"):
        Credentials.load(tmp_path / "secrets")
