"""How the page is served: the words that start Streamlit on loopback, with nothing sent anywhere."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from taskscope.errors import TaskscopeError

__all__ = ["APP", "FLAGS", "HEALTH", "LOOPBACK", "PageError", "command"]

APP: Final = Path(__file__).with_name("app.py")
HEALTH: Final = "/_stcore/health"
"""The path that answers 200 once the page can be opened."""

FLAGS: Final[dict[str, str]] = {
    # The same as deploy/.streamlit/config.toml, which the container mounts; a test holds them together.
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxUploadSize": "1",
    "theme.base": "light",
    "theme.primaryColor": "#1f5fbf",
}

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""The names by which a page on this machine is asked: another site's name that was bound anew to it is refused."""


class PageError(TaskscopeError):
    """For whoever starts the page: it cannot be served."""


def command(*, port: int, host: str = "127.0.0.1") -> list[str]:
    """The command that serves the page on `host`:`port` in the foreground. Raises PageError.

    Its settings come from the environment (see `PageSettings`).
    """
    if find_spec("streamlit") is None:  # not imported: that would take a second and 80 MiB here
        raise PageError("streamlit is not installed; run: pip install 'taskscope[ui]'")
    flags = {**FLAGS, "server.address": host, "server.port": str(port)}
    options = [f"--{name}={value}" for name, value in sorted(flags.items())]
    if host in LOOPBACK:
        options += [f"--server.allowedHosts={name}" for name in LOOPBACK]
    return [sys.executable, "-m", "streamlit", "run", str(APP), *options]
