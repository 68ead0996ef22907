"""Where things are found: board uids, runbook slugs and the addresses both sides link by.

A renamed uid or slug breaks bookmarks and running alerts: it is a breaking change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BOARDS", "Links", "board_uid", "runbook_path"]

BOARDS: Final = ("oncall", "requests", "runtime", "logs")
"""The slugs of the boards that are generated for every service."""


def board_uid(service: str, board: str) -> str:
    """The Grafana uid of one service's board; at most 40 characters, Grafana's own bound."""
    return f"{service}-{board}"[:40]


def runbook_path(alert: str) -> str:
    """The runbook of an alert, relative to the folder of runbooks: one file per alert."""
    return f"{alert}.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The addresses that alerts, boards and the page point at; none ends with a slash.

    runbooks: where the files of `alerts/runbooks` are served; by default beside the boards, which Grafana or the
    preview shows.
    """

    grafana: str = "http://127.0.0.1:3000"
    runbooks: str = "http://127.0.0.1:3000/public/runbooks"
    page: str = "http://127.0.0.1:8501"

    def board(self, service: str, board: str) -> str:
        """The address of one board."""
        return f"{self.grafana}/d/{board_uid(service, board)}"

    def runbook(self, alert: str) -> str:
        """The address of one alert's runbook."""
        return f"{self.runbooks}/{runbook_path(alert)}"
