"""`taskscope ship` and `logs setup`: lines from the spool into Elasticsearch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add_to", "setup", "ship"]


def add_to(app: typer.Typer) -> None:
    """`app` offers these commands."""
    app.command()(ship)
    logs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    logs.callback()(_logs)
    logs.command()(setup)
    app.add_typer(logs, name="logs")


def _logs() -> None:
    """Prepare Elasticsearch for the service's log lines."""


def ship(
    spool: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder that the service writes its lines to."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port on 127.0.0.1 for /metrics; 0 serves none."),
    ] = 9400,
) -> int:
    """Move log lines from the spool into Elasticsearch.

    Each line arrives once; runs until stopped.

    Elasticsearch is found by the environment: ELASTICSEARCH_URL, and ELASTICSEARCH_API_KEY, or
    ELASTICSEARCH_USERNAME with ELASTICSEARCH_PASSWORD (each also as ..._FILE), ELASTICSEARCH_CA_CERT.

    \b
    Examples:
      taskscope ship
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope ship --spool .taskscope/spool --port 9400
    """
    raise NotImplementedError


def setup() -> int:
    """Put the template of the log streams into Elasticsearch.

    To run it twice changes nothing.
    Elasticsearch is found by the environment, as for `taskscope ship`.

    \b
    Example:
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope logs setup
    """
    raise NotImplementedError
