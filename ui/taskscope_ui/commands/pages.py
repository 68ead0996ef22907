"""`taskscope page` and `preview`: the capacity page, and the boards in a browser without a Grafana."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from taskscope_ui.commands.options import App, Host
from taskscope_ui.commands.terminal import say
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
        int, typer.Option(min=0, max=65_535, help="The port on 127.0.0.1; 0 takes a free one.")
    ] = 3000,
    prometheus: Annotated[
        str,
        typer.Option(envvar="PROMETHEUS_URL", metavar="URL", help="A Prometheus on this machine."),
    ] = DEFAULT_PROMETHEUS,
    elasticsearch: Annotated[
        str | None,
        typer.Option(
            envvar="ELASTICSEARCH_URL",
            metavar="URL",
            help="An Elasticsearch on this machine, for panels of logs; its login is "
            "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD(_FILE).",
        ),
    ] = None,
    runbooks: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The folder of the runbooks that alerts and boards link to."
        ),
    ] = Path("alerts/runbooks"),
    app: App = DEFAULT_APP,
) -> int:
    """Show the boards in a browser, without a Grafana.

    They are drawn from the catalogue as Grafana would draw them, and answered by real servers, until Ctrl-C.

    \b
    Examples:
      taskscope preview
      taskscope preview --prometheus http://127.0.0.1:9090 --port 3000
    """
    from taskscope.catalogue import Catalogue
    from taskscope_dashboards.preview.server import preview_server
    from taskscope_dashboards.preview.upstream import Logs, Prometheus, loopback

    catalogue = Catalogue.load(app)
    logs = None
    if elasticsearch:
        logs = Logs.from_environ(loopback(elasticsearch, "--elasticsearch"))
    source = Prometheus(loopback(prometheus, "--prometheus"))
    _must_be_free(port)
    with preview_server(
        catalogue, prometheus=source, logs=logs, runbooks=runbooks, port=port
    ) as server:
        say(f"http://127.0.0.1:{server.server_address[1]}/")
        sys.stdout.flush()
        server.serve_forever()
    return 0


def _must_be_free(port: int) -> None:
    from taskscope.testing.engines.spec import taken
    from taskscope_ui.serve import PageError

    if taken(port):
        raise PageError(
            f"port {port} on 127.0.0.1 is taken; stop what listens there, or choose another with --port"
        )
