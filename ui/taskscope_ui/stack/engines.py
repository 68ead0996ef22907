"""How the servers of a stack are made here; a test or a machine without one hands in others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from taskscope.testing.engines import (
    alertmanager,
    distribution,
    elasticsearch,
    jdk,
    nginx,
    prometheus,
)
from taskscope.testing.engines.elasticsearch import EsUser
from taskscope.testing.engines.spec import Missing, Spec, find_binary

__all__ = ["Engines", "fetch_state"]


class _Configured(Protocol):
    def __call__(self, folder: Path, *, port: int, config: Path) -> Spec: ...


class _Proxy(Protocol):
    def __call__(self, folder: Path, *, ports: tuple[int, ...], conf: Path) -> Spec: ...


class _Elasticsearch(Protocol):
    def __call__(
        self, folder: Path, *, port: int, transport_port: int, users: tuple[EsUser, ...]
    ) -> Spec: ...


def fetch_state() -> bool:
    """Whether Elasticsearch must still be fetched. Raises Missing when that could not be done here."""
    if elasticsearch.installed():
        return False
    if jdk.find() is None:
        raise Missing(f"elasticsearch needs a JDK of 17 or newer; run: {jdk.REMEDY}")
    if find_binary("mvn") is None:
        raise Missing(f"elasticsearch is fetched by maven; run: {distribution.MAVEN_REMEDY}")
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """One maker for each server; each raises Missing, with the command that installs it, where it is not here."""

    prometheus: _Configured = prometheus.prometheus
    alertmanager: _Configured = alertmanager.alertmanager
    nginx: _Proxy = nginx.nginx
    elasticsearch: _Elasticsearch = elasticsearch.elasticsearch
    must_fetch: Callable[[], bool] = field(default=fetch_state)
