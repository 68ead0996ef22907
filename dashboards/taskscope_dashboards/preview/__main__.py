"""`python -m taskscope_dashboards.preview --prometheus http://127.0.0.1:9090`: the boards in a browser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from taskscope.catalogue import Catalogue
from taskscope.errors import TaskscopeError
from taskscope_dashboards.preview.server import preview_server
from taskscope_dashboards.preview.upstream import Logs, PreviewError, Prometheus, loopback

__all__ = ["main"]


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m taskscope_dashboards.preview", description=__doc__.partition(": ")[2]
    )
    parser.add_argument(
        "--prometheus", required=True, metavar="URL", help="a Prometheus on loopback"
    )
    parser.add_argument(
        "--elasticsearch",
        metavar="URL",
        help="an Elasticsearch on loopback; login by ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD(_FILE)",
    )
    parser.add_argument(
        "--runbooks",
        type=Path,
        metavar="DIR",
        help="the folder of the runbooks that alerts link to",
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument(
        "--app",
        default="taskscope_taskapi",
        metavar="MODULE",
        help="whose catalogue; importing runs its code",
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C and returns 0; returns 2 with one line on stderr where it cannot."""
    given = _arguments(words)
    try:
        logs = None
        if given.elasticsearch:
            logs = Logs.from_environ(loopback(given.elasticsearch, "--elasticsearch"))
        server = preview_server(
            Catalogue.load(given.app),
            prometheus=Prometheus(loopback(given.prometheus, "--prometheus")),
            logs=logs,
            runbooks=given.runbooks,
            port=given.port,
        )
    except (TaskscopeError, OSError, OverflowError) as error:
        reason = (
            error
            if isinstance(error, PreviewError | TaskscopeError)
            else (f"port {given.port} cannot be taken ({error}); give another, or 0 for a free one")
        )
        sys.stderr.write(f"preview: {reason}\n")
        return 2
    with server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
