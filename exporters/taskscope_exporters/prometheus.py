"""Prometheus's configuration, as text.

One job per scrape target of the catalogue. Where the targets are stands in files beside it (`targets/<job>.json`), so
that every deployment reads this same file. Valid for Prometheus 2.42 and 3.x.
"""

from __future__ import annotations

from typing import Final

from taskscope.catalogue import Catalogue, Target

__all__ = ["prometheus_config"]

_ENGINES: Final = (
    Target(name="prometheus", job="prometheus"),
    Target(name="alertmanager", job="alertmanager"),
)
# A process of ours has at most 10,000 series; more is a runaway label, and one broken target must not take
# Prometheus down.
_LIMITS: Final = {
    "sample_limit": 20_000,
    "label_limit": 32,
    "label_name_length_limit": 128,
    "label_value_length_limit": 512,
    "body_size_limit": "16MB",
}


def prometheus_config(catalogue: Catalogue) -> dict[str, object]:
    """The configuration as a value; paths are relative to the file's own folder."""
    own = [_job(target, limited=True) for target in catalogue.targets]
    return {
        "global": {"scrape_interval": "10s", "scrape_timeout": "8s", "evaluation_interval": "15s"},
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"file_sd_configs": _found_in("alertmanagers")}]},
        "scrape_configs": own + [_job(target, limited=False) for target in _ENGINES],
    }


def _job(target: Target, *, limited: bool) -> dict[str, object]:
    return {
        "job_name": target.job,
        "metrics_path": target.metrics_path,
        **(_LIMITS if limited else {}),
        "file_sd_configs": _found_in(target.job),
    }


def _found_in(name: str) -> list[dict[str, object]]:
    return [{"files": [f"targets/{name}.json"], "refresh_interval": "5s"}]
