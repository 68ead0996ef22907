"""What watches: Prometheus, Alertmanager, the boards in a browser and the capacity page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from taskscope.testing.engines.spec import HOST, HttpReady, Missing
from taskscope_ui.page_settings import PageSettings
from taskscope_ui.serve import HEALTH, PageError, command
from taskscope_ui.stack.configs import assemble_prometheus
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Absent, Part
from taskscope_ui.stack.service_parts import absent, python

__all__ = ["plan"]

_METRICS: Final = "metrics and alert rules"
_ALERTS: Final = "alerts and silences"
_BOARDS: Final = "boards"
_PAGE: Final = "capacity page"


def plan(
    options: UpOptions,
    layout: Layout,
    ports: Mapping[str, int],
    engines: Engines,
    reader: Mapping[str, str],
) -> tuple[Part | Absent, ...]:
    """Each of the four that is wanted and installed. reader: how the boards ask Elasticsearch; empty without one."""
    makers: dict[str, tuple[str, Callable[[], Part | Absent]]] = {
        "prometheus": (_METRICS, partial(_prometheus, layout, ports, engines)),
        "alertmanager": (_ALERTS, partial(_alertmanager, layout, ports, engines)),
        "boards": (_BOARDS, partial(_boards, layout, ports, reader)),
        "page": (_PAGE, partial(_page, layout, ports)),
    }
    return tuple(
        Absent(name=name, what=what, why="left out") if name in options.without else make()
        for name, (what, make) in makers.items()
    )


def _prometheus(layout: Layout, ports: Mapping[str, int], engines: Engines) -> Part | Absent:
    folder, port = layout.folder / "prometheus", ports["prometheus"]
    try:
        spec = engines.prometheus(folder, port=port, config=folder / "prometheus.yml")
    except Missing as missing:
        return absent("prometheus", _METRICS, missing)
    spec = replace(spec, files={**spec.files, **assemble_prometheus(layout, spec.cwd)})
    return Part(
        name="prometheus",
        spec=lambda: spec,
        what=_METRICS,
        address=f"http://{HOST}:{port}",
        port=port,
        scraped={"prometheus": f"{HOST}:{port}"},
    )


def _alertmanager(layout: Layout, ports: Mapping[str, int], engines: Engines) -> Part | Absent:
    port = ports["alertmanager"]
    try:
        spec = engines.alertmanager(
            layout.folder / "alertmanager", port=port, config=layout.alertmanager_config
        )
    except Missing as missing:
        return absent("alertmanager", _ALERTS, missing)
    return Part(
        name="alertmanager",
        spec=lambda: spec,
        what=_ALERTS,
        address=f"http://{HOST}:{port}",
        port=port,
        scraped={"alertmanager": f"{HOST}:{port}", "alertmanagers": f"{HOST}:{port}"},
    )


def _boards(layout: Layout, ports: Mapping[str, int], reader: Mapping[str, str]) -> Part:
    port = ports["boards"]
    words = (
        *("-m", "taskscope_dashboards.preview", "--port", str(port)),
        *("--prometheus", f"http://{HOST}:{ports['prometheus']}"),
        *("--runbooks", str(layout.runbooks)),
        *(("--elasticsearch", f"http://{HOST}:{ports['elasticsearch']}") if reader else ()),
    )
    address = f"http://{HOST}:{port}"
    spec = python(
        "boards", layout.data, words, port=port, ready=HttpReady(url=f"{address}/"), env=reader
    )
    return Part(name="boards", spec=lambda: spec, what=_BOARDS, address=address, port=port)


def _page(layout: Layout, ports: Mapping[str, int]) -> Part | Absent:
    port = ports["page"]
    try:
        words = tuple(command(port=port)[1:])
    except PageError as error:
        why, __, remedy = str(error).partition("; run: ")
        return Absent(name="page", what=_PAGE, why=why, remedy=remedy)
    settings = PageSettings(prometheus_url=f"http://{HOST}:{ports['prometheus']}")
    address = f"http://{HOST}:{port}"
    spec = python(
        "page",
        layout.data,
        words,
        port=port,
        ready=HttpReady(url=f"{address}{HEALTH}"),
        env=settings.environ(),
    )
    return Part(name="page", spec=lambda: spec, what=_PAGE, address=address, port=port)
