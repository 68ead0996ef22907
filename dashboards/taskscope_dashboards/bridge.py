"""What grafanalib writes, brought to Grafana's schema of today. Pure: JSON in, JSON out.

Wrong in grafanalib 0.7.1 for it: a first threshold whose value is the string "null", thresholds that are "",
datasources as strings or null, `links` in the panel's place, a bound of 100 data points, keys of the Angular panels.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from taskscope_dashboards.board import Source

__all__ = ["SCHEMA_VERSION", "Json", "dashboard_today", "datasource"]

SCHEMA_VERSION: Final = 42

Json: TypeAlias = dict[str, Any]
"""An object of a dashboard file. Only here and in `grafana`, which meet grafanalib's untyped output."""

_PANEL_GONE: Final = frozenset(
    {
        "cacheTimeout",
        "editable",
        "error",
        "height",
        "hideTimeOverride",
        "maxDataPoints",
        "minSpan",
        "span",
    }
)
_BOARD_GONE: Final = frozenset(
    {"__inputs", "gnetId", "hideControls", "id", "rows", "sharedCrosshair", "style"}
)
_ROW_KEPT: Final = ("type", "id", "title", "collapsed", "gridPos", "panels")


def datasource(source: Source) -> Json:
    """A reference to the datasource that the board's variable holds."""
    return {"type": source.value, "uid": f"${{{source.variable}}}"}


def dashboard_today(old: Json) -> Json:
    """The dashboard with all that Grafana 13 reads and nothing that it ignores."""
    board = {key: value for key, value in old.items() if key not in _BOARD_GONE}
    board["panels"] = [_panel(panel) for panel in old["panels"]]
    board["timepicker"] = {"refresh_intervals": old["timepicker"]["refresh_intervals"]}
    board["schemaVersion"] = SCHEMA_VERSION
    # The version counts edits inside Grafana; a file that changed it would not be the same for the same catalogue.
    board["version"] = 1
    board["fiscalYearStartMonth"] = 0
    return _object_without_nulls(board)


def _panel(old: Json) -> Json:
    if old["type"] == "row":
        return {key: old[key] for key in _ROW_KEPT}
    panel = {key: value for key, value in old.items() if key not in _PANEL_GONE}
    if not panel.get("repeat"):
        panel.pop("repeatDirection", None)
    defaults = panel["fieldConfig"]["defaults"]
    defaults["thresholds"]["steps"] = _steps(defaults["thresholds"]["steps"])
    # A link on a value is a data link; the panel's own links would be those of its header.
    defaults["links"] = panel.pop("links", [])
    panel["fieldConfig"].setdefault("overrides", [])
    custom = defaults.get("custom", {})
    if custom.get("scaleDistribution", {}).get("type") == "linear":
        custom["scaleDistribution"] = {"type": "linear"}
    legend = panel.get("options", {}).get("legend")
    if legend is not None and panel["type"] == "timeseries":
        legend["showLegend"] = True
    return panel


def _steps(old: Any) -> list[Json]:
    steps = [
        {
            "color": step["color"],
            "value": None if step["value"] in (None, "null") else step["value"],
        }
        for step in old or []
    ]
    return steps or [{"color": "green", "value": None}]


def _object_without_nulls(old: Json) -> Json:
    return {
        key: _without_nulls(value)
        for key, value in old.items()
        if value is not None or key == "value"
    }


def _without_nulls(value: Any) -> Any:
    """Without keys whose value is null, which say nothing; only a threshold's first value is null on purpose."""
    if isinstance(value, dict):
        return _object_without_nulls(value)
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
