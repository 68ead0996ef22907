"""Boards for on-call engineers and developers, generated from a service's catalogue."""

from taskscope_dashboards.render import boards, render

__all__ = ["boards", "render"]
