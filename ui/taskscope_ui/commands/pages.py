"""`taskscope page` and `preview`: the capacity page, and the boards in a browser without a Grafana."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from taskscope_ui.commands.options import App, Host
from taskscope_ui.page_settings import DEFAULT_APP, DEFAULT_CAPACITY_RPS, DEFAULT_PROMETHEUS

__all__ = ["add_to", "page", "preview"]


def add_to(app: typer.Typer) -> None:
    """`app` offers these commands."""
    app.command()(page)
    app.command()(preview)


def page(
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="The port on 127.0.0.1 that it listens on.")
    ] = 8501,
    prometheus: Annotated[
        str,
        typer.Option(envvar="PROMETHEUS_URL", metavar="URL", help="Where Prometheus answers."),
    ] = DEFAULT_PROMETHEUS,
    capacity_rps: Annotated[
        float,
        typer.Option(
            envvar="PAGE_CAPACITY_RPS",
            metavar="RPS",
            help="Requests per second that one instance of the service carries.",
        ),
    ] = DEFAULT_CAPACITY_RPS,
    host: Host = "127.0.0.1",
    app: App = DEFAULT_APP,
) -> int:
    """Serve the capacity page on this machine.

    It shows how near the service is to its limits, until Ctrl-C.

    \b
    Examples:
      taskscope page
      taskscope page --port 8600 --prometheus http://127.0.0.1:9090 --capacity-rps 400
    """
    from taskscope.catalogue import Catalogue
    from taskscope_ui import serve
    from taskscope_ui.page_settings import PageSettings

    settings = PageSettings(prometheus_url=prometheus, app=app, capacity_rps=capacity_rps)
    Catalogue.load(app)
    _must_be_free(port)
    words = serve.command(port=port, host=host)
    # The page takes the process over, so a signal reaches it and nothing stays behind.
    os.execvpe(words[0], words, {**os.environ, **settings.environ()})  # noqa: S606


def preview(
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="The port on 127.0.0.1 that it listens on.")
    ] = 3000,
    prometheus: Annotated[
        str,
        typer.Option(envvar="PROMETHEUS_URL", metavar="URL", help="Where Prometheus answers."),
    ] = DEFAULT_PROMETHEUS,
    boards: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of generated boards.")
    ] = Path("dashboards/generated"),
) -> int:
    """Show the generated boards in a browser, without a Grafana.

    Their queries are answered by a real Prometheus.

    \b
    Example:
      taskscope preview --prometheus http://127.0.0.1:9090
    """
    from taskscope_ui.page_settings import PageSettings
    from taskscope_ui.serve import PageError

    PageSettings(prometheus_url=prometheus)  # refuses an address that is none
    if not any(boards.glob("*.json")):
        raise PageError(f"{boards}: no boards lie there; run `taskscope build`, or name a folder")
    _must_be_free(port)
    words = [sys.executable, "-m", "taskscope_dashboards.preview", "--port", str(port)]
    words += ["--prometheus", prometheus, "--boards", str(boards)]
    os.execv(words[0], words)  # noqa: S606 # the viewer takes the process over, so nothing stays behind


def _must_be_free(port: int) -> None:
    from taskscope.testing.engines.spec import taken
    from taskscope_ui.serve import PageError

    if taken(port):
        raise PageError(
            f"port {port} on 127.0.0.1 is taken; stop what listens there, or choose another with --port"
        )
