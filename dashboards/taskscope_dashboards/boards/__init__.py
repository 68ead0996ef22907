"""The boards of a service, each made from its catalogue alone."""

from taskscope_dashboards.boards.lines import logs
from taskscope_dashboards.boards.oncall import oncall
from taskscope_dashboards.boards.requests import requests
from taskscope_dashboards.boards.runtime import runtime

__all__ = ["logs", "oncall", "requests", "runtime"]
