"""The generated boards drawn in a browser from a real Prometheus, for those without a Grafana."""

from taskscope_dashboards.preview.server import preview_server
from taskscope_dashboards.preview.upstream import Logs, PreviewError, Prometheus

__all__ = ["Logs", "PreviewError", "Prometheus", "preview_server"]
