"""The only door to grafanalib: a board's values as the dashboard file that Grafana reads.

grafanalib writes dashboards of 2019; `bridge` makes today's schema of them. Untyped JSON stays in these two modules.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import grafanalib.core as g
from grafanalib._gen import DashboardEncoder
from grafanalib.elasticsearch import ElasticsearchTarget

from taskscope.catalogue.links import board_uid
from taskscope_dashboards.board import Annotation, Board, Choice, Source, Variable
from taskscope_dashboards.bridge import Json, dashboard_today, datasource
from taskscope_dashboards.layout import Heading, Placed, Rectangle, place
from taskscope_dashboards.logquery import LINES, SHOWN, lucene
from taskscope_dashboards.panel import Link, Panel, Query, View

__all__ = ["dashboard_json"]

_MESSAGE: Final = "___LOG_LINE_BODY___"
"""Grafana's own word for the message among the displayed fields of a line."""

_GAP_MS: Final = 60_000
"""A line is drawn over one scrape that failed; over a longer time without an answer it would hide an outage."""

_HEAT: Final = {
    "mode": "scheme",
    "scheme": "Oranges",
    "scale": "exponential",
    "exponent": 0.5,
    "steps": 64,
    "fill": "dark-orange",
    "reverse": False,
}


def dashboard_json(board: Board) -> str:
    """The board as a classic v1 dashboard, schemaVersion 42: sorted keys, a line break at the end."""
    raw = g.Dashboard(
        title=board.title,
        uid=board.uid,
        description=board.description,
        tags=["taskscope", board.service],
        timezone="browser",
        graphTooltip=g.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        refresh="10s",
        time=g.Time("now-1h", "now"),
        editable=False,
        panels=[_item(item) for item in place(board)],
        links=[_board_link(board, slug, title) for slug, title in board.others],
        annotations=g.Annotations(list=[_annotation(a) for a in board.annotations]),
        templating=g.Templating(
            list=[
                *(_datasource_variable(source) for source in Source),
                *(_variable(variable) for variable in board.variables),
            ]
        ),
    )
    plain = json.loads(json.dumps(raw.to_json_data(), cls=DashboardEncoder))
    return json.dumps(dashboard_today(plain), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _grid(where: Rectangle) -> Any:
    return g.GridPos(h=where.height, w=where.width, x=where.x, y=where.y)


def _item(item: Heading | Placed) -> Any:
    if isinstance(item, Heading):
        return g.RowPanel(title=item.title, id=item.id, gridPos=_grid(item.where))
    panel = item.panel
    frame = {
        "title": panel.title,
        "description": panel.description,
        "id": item.id,
        "gridPos": _grid(item.where),
        "dataSource": datasource(Source.LOGS if panel.logs else Source.PROMETHEUS),
        "targets": _targets(panel),
        "links": [_data_link(panel.link)] if panel.link else [],
        "thresholds": [{"color": s.colour, "value": _number(s.above)} for s in panel.steps],
    }
    return _DRAW[panel.view](panel, frame)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _data_link(link: Link) -> Json:
    return {"title": link.title, "url": link.url, "targetBlank": False}


def _targets(panel: Panel) -> list[Json]:
    if panel.logs is not None:
        target = ElasticsearchTarget(
            refId="A",
            query=lucene(panel.logs),
            bucketAggs=[],
            metricAggs=[{"id": "1", "type": "logs", "settings": {"limit": str(LINES)}}],
        )
        made: Json = {**target.to_json_data(), "alias": ""}
        made.pop("hide")
        return [{**made, "datasource": datasource(Source.LOGS)}]
    return [_target(panel, query, index) for index, query in enumerate(panel.queries)]


def _target(panel: Panel, query: Query, index: int) -> Json:
    kinds = {View.TABLE: "table", View.HEATMAP: "heatmap"}
    return {
        "refId": chr(ord("A") + index),
        "datasource": datasource(Source.PROMETHEUS),
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": kinds.get(panel.view, "time_series"),
        "instant": query.instant,
        "range": not query.instant,
        "exemplar": query.exemplars,
        "editorMode": "code",
    }


def _timeseries(panel: Panel, frame: Json) -> Any:
    return g.TimeSeries(
        **frame,
        unit=panel.unit,
        fillOpacity=60 if panel.stacked else 8,
        lineWidth=1,
        showPoints="auto",
        stacking={"mode": "normal" if panel.stacked else "none", "group": "A"},
        legendDisplayMode="table",
        legendCalcs=["lastNotNull", "max"],
        tooltipMode="multi",
        tooltipSort="desc",
        thresholdsStyleMode="dashed" if panel.steps else "off",
        axisSoftMin=0,
        valueDecimals=panel.decimals,
        overrides=[
            _override(name, {"color": {"mode": "fixed", "fixedColor": colour}})
            for name, colour in panel.colours
        ],
        extraJson={"fieldConfig": {"defaults": _scale(panel) | {"custom": {"spanNulls": _GAP_MS}}}},
    )


def _scale(panel: Panel) -> Json:
    if panel.maximum is None:
        return {}
    return {"min": 0, "max": float(panel.maximum)}


def _override(name: str, properties: Json) -> Json:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def _stat(panel: Panel, frame: Json) -> Any:
    return g.Stat(
        **frame,
        format=panel.unit,
        decimals=panel.decimals,
        color={"mode": "thresholds"},
        colorMode="value",
        graphMode="area" if panel.sparkline else "none",
        reduceCalc="lastNotNull",
        textMode="value_and_name",
        noValue="No data",
    )


def _heatmap(panel: Panel, frame: Json) -> Any:
    # grafanalib's Heatmap writes the Angular panel of Grafana 8.
    return g.Panel(**frame).panel_json(
        {
            "type": "heatmap",
            "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}},
            "options": {
                "calculate": False,
                "cellGap": 1,
                "color": _HEAT,
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "showValue": "never",
                "tooltip": {"mode": "single", "yHistogram": False},
                "yAxis": {"axisPlacement": "left", "unit": panel.unit},
            },
        }
    )


def _table(panel: Panel, frame: Json) -> Any:
    # grafanalib's Table writes the Angular keys (columns, styles).
    overrides = [
        _override(column.title, {"links": [_data_link(column.link)]})
        for column in panel.columns
        if column.link
    ]
    overrides += [_override(q.legend, {"unit": q.unit}) for q in panel.queries if q.unit]
    first = panel.queries[0].legend
    if panel.steps:
        coloured = {"color": {"mode": "thresholds"}, "custom.cellOptions": {"type": "color-text"}}
        overrides.append(_override(first, coloured))
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
    # The oldest time first, the highest number first.
    descending = not panel.unit.startswith("dateTime")
    return g.Panel(**frame, transformations=_one_row_per_label_set(panel)).panel_json(
        {
            "type": "table",
            "fieldConfig": {
                "defaults": {"unit": panel.unit, "decimals": panel.decimals, "custom": custom},
                "overrides": overrides,
            },
            "options": {
                "showHeader": True,
                "cellHeight": "sm",
                "sortBy": [{"displayName": first, "desc": descending}],
            },
        }
    )


def _one_row_per_label_set(panel: Panel) -> list[Json]:
    names = {column.label: column.title for column in panel.columns}
    many = len(panel.queries) > 1
    for index, query in enumerate(panel.queries):
        names[f"Value #{chr(ord('A') + index)}" if many else "Value"] = query.legend
    hidden = ("Time", "__name__", "instance", "job", "service", "slo", "alertstate", "subsystem")
    organize = {
        "excludeByName": {name: True for name in hidden if name not in names},
        "indexByName": {name: index for index, name in enumerate(names)},
        "renameByName": names,
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


def _logs(_: Panel, frame: Json) -> Any:
    link = frame["links"]
    return g.Logs(
        **{**frame, "links": []},
        showTime=True,
        wrapLogMessages=True,
        enableLogDetails=True,
        overrides=[_override("trace.id", {"links": link})] if link else [],
        extraJson={"options": {"displayedFields": [_MESSAGE, *SHOWN], "showLevel": True}},
    )


_DRAW = {
    View.TIMESERIES: _timeseries,
    View.STAT: _stat,
    View.HEATMAP: _heatmap,
    View.TABLE: _table,
    View.LOGS: _logs,
}


def _datasource_variable(source: Source) -> Json:
    plugin = source.value
    return {
        "type": "datasource",
        "name": source.variable,
        "label": plugin.capitalize(),
        "query": plugin,
        "current": {"text": plugin.capitalize(), "value": plugin},
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "options": [],
    }


def _variable(variable: Variable) -> Json:
    shared: Json = {"name": variable.name, "label": variable.label, "hide": 0}
    if variable.choice is Choice.TEXT:
        chosen = {"text": variable.value, "value": variable.value}
        return {
            **shared,
            "type": "textbox",
            "query": variable.value,
            "current": chosen,
            "options": [{**chosen, "selected": True}],
        }
    return {
        **shared,
        "type": "query",
        "datasource": datasource(Source.PROMETHEUS),
        "query": {"query": variable.query, "refId": f"Variable-{variable.name}"},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "regex": "",
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": datasource(Source.PROMETHEUS),
        "enable": True,
        "hide": False,
        "iconColor": annotation.colour,
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
        "useValueForTime": annotation.value_is_time,
        "target": {"refId": "Anno", "expr": annotation.expr, "interval": ""},
    }


def _board_link(board: Board, slug: str, title: str) -> Json:
    return {
        "type": "link",
        "title": title,
        "url": f"/d/{board_uid(board.service, slug)}",
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }
