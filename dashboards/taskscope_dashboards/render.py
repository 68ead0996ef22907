"""The generated files of the boards, from a catalogue alone."""

from __future__ import annotations

from taskscope.catalogue import Catalogue
from taskscope_dashboards.board import Board
from taskscope_dashboards.boards import logs, oncall, requests, runtime

__all__ = ["boards", "render"]


def boards(catalogue: Catalogue) -> tuple[Board, ...]:
    """Every board of the catalogue's service."""
    return (oncall(catalogue), requests(catalogue), runtime(catalogue), logs(catalogue))


def render(catalogue: Catalogue) -> dict[str, str]:
    """The dashboard files by their path under `dashboards/`: `generated/<uid>.json`.

    The bytes depend on the catalogue alone. Needs grafanalib (`taskscope[dashboards]`).
    """
    from taskscope_dashboards.grafana import dashboard_json

    return {f"generated/{board.uid}.json": dashboard_json(board) for board in boards(catalogue)}
