"""The command: examine the stack in a folder and print what is wrong, one line each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from taskscope.catalogue import Catalogue
from taskscope_ui.doctor.examine import examine
from taskscope_ui.doctor.survey import survey

__all__ = ["run"]


def run(folder: Path, *, as_json: bool = False, app: str = "taskscope_taskapi") -> int:
    """0 and silence when all is well; else 1 and one line (or one JSON list) on stdout.

    Raises TaskscopeError where the folder or the catalogue cannot be read.
    """
    found = anyio.run(examine, survey(folder, Catalogue.load(app)))
    if as_json:
        sys.stdout.write(json.dumps([finding.to_json() for finding in found], indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{finding}\n" for finding in found)
    return 1 if found else 0
