"""Where a click leads: from any board to the requests of one route, with the time range kept."""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue
from taskscope.catalogue.links import board_uid
from taskscope_dashboards.panel import Link

__all__ = ["to_lines", "to_requests", "to_trace_lines"]

_RANGE: Final = "from=${__from}&to=${__to}"


def to_requests(
    catalogue: Catalogue, *, route_from_cell: bool = False, route_from_series: bool = False
) -> Link:
    """To the requests board, narrowed to the clicked cell's or series' route where there is one."""
    # A path, not an address: Grafana puts its own root before it, wherever it is served.
    url = f"/d/{board_uid(catalogue.service, 'requests')}?{_RANGE}"
    if route_from_cell:
        return Link(
            title="Requests of this route", url=f"{url}&var-route=${{__value.text:percentencode}}"
        )
    if route_from_series:
        return Link(
            title="Requests of this route",
            url=f"{url}&var-route=${{__field.labels.http_route:percentencode}}",
        )
    return Link(title="Requests", url=url)


def to_trace_lines(catalogue: Catalogue) -> Link:
    """To all log lines of the clicked trace id."""
    url = f"/d/{board_uid(catalogue.service, 'requests')}?{_RANGE}"
    return Link(
        title="All lines of this trace",
        url=f"{url}&var-search=trace.id:%22${{__value.raw:percentencode}}%22",
    )


def to_lines(catalogue: Catalogue, *, variable: str = "", label: str = "") -> Link:
    """To the logs board; of a cell, or of a series by its Prometheus `label`, narrowed to it as `variable`.

    variable: `route` or `exception`; empty for all lines.
    """
    url = f"/d/{board_uid(catalogue.service, 'logs')}?{_RANGE}"
    if not variable:
        return Link(title="Lines", url=url)
    value = f"__field.labels.{label}" if label else "__value.text"
    return Link(
        title=f"Lines of this {variable}",
        url=f"{url}&var-{variable}=${{{value}:percentencode}}",
    )
