"""Chromium without a screen, for Playwright or by hand; it asks nobody but the pages it is given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskscope.testing.engines.spec import find_binary

if TYPE_CHECKING:
    from pathlib import Path

REMEDY = "apt-get install chromium"


def find() -> Path | None:
    """The browser's binary."""
    return find_binary("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def flags() -> tuple[str, ...]:
    """Command-line flags for a quiet headless browser; add a fresh `--user-data-dir` yourself.

    Playwright adds one by itself: launch(executable_path=str(find()), args=list(flags())).
    """
    # Chromium refuses its sandbox to root; anybody else keeps it.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    return (
        "--headless",
        *sandbox,
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    )
