"""`taskscope ship` and the group `logs`: lines from the spool into Elasticsearch."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from taskscope_ui.commands import logs_reading, logs_replay, logs_setup, logs_verify
from taskscope_ui.commands.options import DEFAULT_APP, App, Host

__all__ = ["add_to", "ship"]


def add_to(app: typer.Typer) -> None:
    """`app` offers these commands."""
    app.command()(ship)
    logs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    logs.callback()(_logs)
    logs_setup.add_to(logs)
    logs_reading.add_to(logs)
    logs_replay.add_to(logs)
    logs_verify.add_to(logs)
    app.add_typer(logs, name="logs")


def _logs() -> None:
    """Read the service's log lines, and prepare Elasticsearch for them."""


def ship(
    spool: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder that the service writes its lines to; TASKSCOPE_SPOOL says the same.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port that serves /metrics; 0 serves none.")
    ] = 9400,
    patience_s: Annotated[
        float,
        typer.Option(
            "--patience",
            metavar="SECONDS",
            min=0,
            help="How long Elasticsearch may take to answer at first; 0 waits for ever.",
        ),
    ] = 5.0,
    host: Host = "127.0.0.1",
    app: App = DEFAULT_APP,
) -> int:
    """Move log lines from the spool into Elasticsearch.

    Each line arrives once; runs until stopped. What could not be sent waits on disk. An Elasticsearch that
    never answers ends it with exit code 2; one that goes away later is waited for, for as long as it takes.

    Elasticsearch is found by the environment: ELASTICSEARCH_URL, and ELASTICSEARCH_API_KEY, or
    ELASTICSEARCH_USERNAME with ELASTICSEARCH_PASSWORD (each also as ..._FILE), ELASTICSEARCH_CA_CERT.

    \b
    Examples:
      taskscope ship
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope ship --spool .taskscope/spool --port 9400
    """
    from taskscope.catalogue import Catalogue
    from taskscope_exporters.logs.run import run
    from taskscope_exporters.logs.settings import ShipSettings

    catalogue = Catalogue.load(app)
    settings = ShipSettings.from_environ(os.environ)
    if spool is not None:
        settings = replace(settings, spool=spool)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(
        settings,
        catalogue=catalogue,
        stop=stop,
        port=port or None,
        address=host,
        patience_s=patience_s or None,
    )
    return 0
