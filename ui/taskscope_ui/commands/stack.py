"""`taskscope up`, `fault` and `doctor`: the local stack, its faults on demand, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskscope.errors import TaskscopeError
from taskscope_ui.commands.options import DEFAULT_APP, App, Folder, Json
from taskscope_ui.commands.terminal import say

__all__ = ["add_to", "doctor", "fault", "up"]

_FOLDER = Path(".taskscope")
_PORT_DIGITS = 5


class OptionError(TaskscopeError):
    """For whoever types a command: a word of it cannot be read."""


def add_to(app: typer.Typer) -> None:
    """`app` offers these commands."""
    app.command()(up)
    app.command()(fault)
    app.command()(doctor)


def up(
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", help="Stop by itself after this long."),
    ] = None,
    rate: Annotated[
        float, typer.Option(metavar="RPS", help="Requests per second of the generated traffic.")
    ] = 20.0,
    seed: Annotated[
        int, typer.Option(help="What the traffic is made from: the same seed, the same requests.")
    ] = 7,
    errors: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the traffic that fails, from the start.")
    ] = 0.0,
    ports: Annotated[
        list[str] | None,
        typer.Option(
            "--ports",
            metavar="NAME=PORT",
            help="A fixed port: api=8000,page=8501. Others take the usual port, or a free one.",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTS", help="Parts to leave out: elasticsearch,page."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTS", help="The parts to start, and no other: api,prometheus."),
    ] = None,
    no_traffic: Annotated[
        bool, typer.Option("--no-traffic", help="Start no generated traffic.")
    ] = False,
    folder: Folder = _FOLDER,
    project: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where the generated configuration lies."),
    ] = Path(),
) -> int:
    """Run the whole stack on this machine, without Docker.

    Starts the task API behind nginx, traffic, Prometheus, Alertmanager, Elasticsearch with the log
    shipper, the boards and the capacity page; prints their addresses; runs until Ctrl-C and leaves no
    process behind. What is not installed is named with the command that installs it, and the rest runs.

    \b
    Parts: api proxy traffic prometheus alertmanager elasticsearch page boards
    Examples:
      taskscope up
      taskscope up --for 300 --rate 50 --ports api=8000,prometheus=9090
      taskscope up --only api,prometheus,page
    """
    from taskscope_ui.faults import Faults, begin_with
    from taskscope_ui.stack import UpOptions
    from taskscope_ui.stack import up as run_stack
    from taskscope_ui.stack.options import PARTS

    chosen, left_out = _names(only), _names(without)
    if unknown := sorted(chosen - set(PARTS)):
        raise OptionError(
            f"--only: there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}"
        )
    if chosen:
        left_out |= set(PARTS) - chosen
    if no_traffic:
        left_out.add("traffic")
    options = UpOptions(
        folder=folder,
        project=project,
        ports=_ports(ports),
        duration_s=for_s,
        rate=rate,
        seed=seed,
        without=frozenset(left_out),
    )
    begin_with(folder, Faults(errors=errors))
    return run_stack(options)


def _names(texts: list[str] | None) -> set[str]:
    return {name.strip() for text in texts or () for name in text.split(",") if name.strip()}


def _ports(texts: list[str] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in (pair for text in texts or () for pair in text.split(",") if pair.strip()):
        name, _, number = pair.partition("=")
        if not number.strip().isdecimal() or len(number.strip()) > _PORT_DIGITS:
            raise OptionError(f"--ports: {pair.strip()!r} is no port; write it as api=8000")
        found[name.strip()] = int(number)
    return found


def fault(
    faults: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE…", help="errors=SHARE, slow=SHARE, or clear."),
    ],
    folder: Folder = _FOLDER,
) -> int:
    """Make the running stack's traffic go wrong.

    To see boards, alerts and runbooks at work.

    errors: the share of requests, from 0 to 1, that end in a server error. slow: the share that takes
    half a second longer. What is not named has none; `clear` ends every fault.

    \b
    Examples:
      taskscope fault errors=0.5
      taskscope fault errors=0.05 slow=0.2
      taskscope fault clear
    """
    from taskscope_ui.faults import parse, tell

    wanted = parse(faults)
    tell(folder, wanted)
    say("no faults" if not wanted.any else f"the traffic now has {wanted}")
    return 0


def doctor(as_json: Json = False, folder: Folder = _FOLDER, app: App = DEFAULT_APP) -> int:
    """Say what is wrong with the running stack, and how to mend it.

    Silent, with exit code 0, when all is well; one line for each fault and exit code 1 otherwise.

    \b
    Examples:
      taskscope doctor
      taskscope doctor --json
    """
    from taskscope_ui.doctor import run

    return run(folder, as_json=as_json, app=app)
