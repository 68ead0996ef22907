"""`taskscope collect-logs`: what is in Elasticsearch, as series for the boards and alerts."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from taskscope_ui.commands.options import DEFAULT_APP, App, Host

__all__ = ["add_to", "collect_logs"]


def add_to(app: typer.Typer) -> None:
    """`app` offers this command."""
    app.command("collect-logs")(collect_logs)


def collect_logs(
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the counts are kept over a restart; COLLECTOR_FOLDER says the same.",
        ),
    ] = None,
    every_s: Annotated[
        float,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=1,
            max=300,
            help="From one look at the new lines to the next; not below Prometheus' scrape interval.",
        ),
    ] = 15.0,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port that serves /metrics; 0 serves none.")
    ] = 9401,
    host: Host = "127.0.0.1",
    app: App = DEFAULT_APP,
) -> int:
    """Count the lines in Elasticsearch: by level and dataset, errors by exception and route.

    Each line is counted once, as it arrives, however late; two requests for each look. One collector for
    each service and environment is enough; runs until stopped, and goes on where it stopped.

    Elasticsearch is found by the environment, as for `taskscope ship`; the login needs `read` and `monitor`
    on the log stream.

    \b
    Examples:
      taskscope collect-logs
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope collect-logs --every 30 --port 9401
    """
    from taskscope.catalogue import Catalogue
    from taskscope_exporters.logs.collecting import CollectSettings, collect

    catalogue = Catalogue.load(app)
    settings = replace(CollectSettings.from_environ(os.environ), every_s=every_s)
    if folder is not None:
        settings = replace(settings, folder=folder)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collect(settings, catalogue=catalogue, stop=stop, port=port or None, address=host)
    return 0
