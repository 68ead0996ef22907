"""The commands as somebody types them: what they print, and that a key is not among it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import WRITER, Secured

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


def typed(folder: Path, environ: dict[str, str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "taskscope_ui", "logs", *words, "--app", "catalogue_typed"],
        cwd=folder,
        env={**os.environ, **environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_setup_and_keys_say_what_they_did_and_nothing_the_second_time(
    secured: Secured, tmp_path: Path
) -> None:
    (tmp_path / "catalogue_typed.py").write_text(
        "from taskscope.catalogue import Catalogue\nCATALOGUE = Catalogue(service='typed')\n"
    )
    environ = secured.environ()
    code, said, _ = typed(tmp_path, environ, "setup", "--dry-run", "--retention", "7d")
    assert (code, "  + template.lifecycle.data_retention: 7d" in said.splitlines()) == (0, True)
    with secured.client() as client:
        assert not client.indices.exists_index_template(name="logs-typed")
    code, said, _ = typed(tmp_path, environ, "setup", "--retention", "7d")
    assert (code, said.splitlines()[0]) == (0, "component template logs-typed@fields was put")
    code, said, _ = typed(tmp_path, environ, "setup", "--retention", "7d")
    assert said.splitlines()[-1].startswith("nothing to change: https://")
    code, said, _ = typed(tmp_path, environ, "keys", "--into", "keys")
    keys = [path.read_text().strip() for path in (tmp_path / "keys").iterdir()]
    assert (code, len(keys), len(said.splitlines())) == (0, 4, 4)
    assert not any(key in said for key in keys)
    code, said, _ = typed(tmp_path, environ, "keys", "--into", "keys", "--show")
    assert said.splitlines()[0] == "nothing to change: the keys in keys are valid"
    assert all(key in said for key in keys)
    code, _, complaint = typed(tmp_path, secured.environ(WRITER), "setup")
    assert code == 2
    assert complaint.endswith("give it manage_index_templates and manage on the streams\n")
    assert complaint.count("\n") == 1
