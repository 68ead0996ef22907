"""How the page is set up: where Prometheus is, whose service it shows, what one instance carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from taskscope.errors import SettingsError

__all__ = ["DEFAULT_APP", "DEFAULT_CAPACITY_RPS", "DEFAULT_PROMETHEUS", "PageSettings"]

DEFAULT_PROMETHEUS: Final = "http://127.0.0.1:9090"
DEFAULT_APP: Final = "taskscope_taskapi"
DEFAULT_CAPACITY_RPS: Final = 1000.0
"""Declared for one instance of the task API on one core, its first phase; measure yours and set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """The page's settings, checked at birth. Raises SettingsError naming every wrong variable at once.

    prometheus_url: `PROMETHEUS_URL`. app: `PAGE_APP`, the service's module, as in `taskscope build --app`.
    capacity_rps: `PAGE_CAPACITY_RPS`, requests per second that one instance carries.
    """

    prometheus_url: str = DEFAULT_PROMETHEUS
    app: str = DEFAULT_APP
    capacity_rps: float = DEFAULT_CAPACITY_RPS

    def __post_init__(self) -> None:
        faults = []
        parts = urlsplit(self.prometheus_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # A password may stand in the address, so it is not repeated.
            faults.append(
                "PROMETHEUS_URL is no address of a web server; write it as http://127.0.0.1:9090"
            )
        if not 0 < self.capacity_rps < math.inf:
            faults.append(
                f"PAGE_CAPACITY_RPS is {self.capacity_rps:g}; write how many requests per second an instance carries"
            )
        if faults:
            raise SettingsError("; ".join(faults))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> PageSettings:
        """The settings that `environ` asks for, defaults for the rest. Raises SettingsError."""
        text = environ.get("PAGE_CAPACITY_RPS", "").strip()
        try:
            capacity_rps = float(text) if text else DEFAULT_CAPACITY_RPS
        except ValueError as error:
            raise SettingsError(
                f"PAGE_CAPACITY_RPS={text!r} is no number; write how many requests per second an instance carries"
            ) from error
        return cls(
            prometheus_url=environ.get("PROMETHEUS_URL", "").strip() or DEFAULT_PROMETHEUS,
            app=environ.get("PAGE_APP", "").strip() or DEFAULT_APP,
            capacity_rps=capacity_rps,
        )

    def environ(self) -> dict[str, str]:
        """The variables that say the same."""
        return {
            "PROMETHEUS_URL": self.prometheus_url,
            "PAGE_APP": self.app,
            "PAGE_CAPACITY_RPS": f"{self.capacity_rps:g}",
        }
