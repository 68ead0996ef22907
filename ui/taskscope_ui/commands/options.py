"""Options that more than one command takes, each with one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = ["DEFAULT_APP", "App", "Folder", "Host", "Into", "Json"]

DEFAULT_APP: Final = "taskscope_taskapi"

App = Annotated[
    str,
    typer.Option(
        "--app",
        metavar="MODULE",
        help="Where the service declares its CATALOGUE: module, or module:name. Its code is run.",
    ),
]
Into = Annotated[
    Path,
    typer.Option(
        "--into", metavar="DIR", help="The project's folder; the generated folders lie in it."
    ),
]
Folder = Annotated[
    Path,
    typer.Option("--folder", metavar="DIR", help="Where the stack keeps its state (mode 0700)."),
]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="The address to listen on; anything but loopback can be reached by others.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
