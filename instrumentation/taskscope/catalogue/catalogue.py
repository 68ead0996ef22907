"""One service's catalogue: its metrics, objectives, scrape targets and links, in one value.

A service builds it in its own code; the instruments, rules, boards, runbooks and the page are made from it.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from taskscope.catalogue.builtin import BUILTIN
from taskscope.catalogue.links import Links
from taskscope.catalogue.metric import Kind, Metric
from taskscope.catalogue.objective import Objective
from taskscope.errors import CatalogueError, LoadError, TaskscopeError

__all__ = ["Catalogue", "Target"]

_SERVICE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_MAX_SERVICE: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of process that Prometheus scrapes.

    name: `service`, `shipper`, `collector` or the service's own word; metrics name it in `Metric.target`.
    job: the `job` label of all its series.
    """

    name: str
    job: str
    metrics_path: str = "/metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything that is known about a service before it runs. Raises CatalogueError at birth.

    service: its name, which is also `service.name` in logs and traces and the `job` of its series.
    metrics, objectives: the service's own; the library's built-in metrics are always included.
    """

    service: str
    metrics: tuple[Metric, ...] = ()
    objectives: tuple[Objective, ...] = ()
    targets: tuple[Target, ...] = ()
    links: Links = field(default_factory=Links)

    def __post_init__(self) -> None:
        if not _SERVICE.match(self.service) or len(self.service) > _MAX_SERVICE:
            raise CatalogueError(
                f"service {self.service!r} is not a lower-case slug of at most {_MAX_SERVICE} characters; rename it"
            )
        for what in ("metrics", "objectives", "targets"):
            found = getattr(self, what)
            if not isinstance(found, tuple):
                raise CatalogueError(
                    f"{self.service}: {what} is a {type(found).__name__}; write a tuple, {what}=(…,)"
                )
        defaults = (
            Target(name="service", job=self.service),
            Target(name="shipper", job=f"{self.service}-shipper"),
            Target(name="collector", job=f"{self.service}-collector"),
        )
        named = {target.name for target in self.targets}
        added = tuple(target for target in defaults if target.name not in named)
        object.__setattr__(self, "targets", self.targets + added)
        self._check_unique("target", [target.name for target in self.targets])
        self._check_unique("target job", [target.job for target in self.targets])
        self._check_unique("metric", [metric.name for metric in self.all_metrics])
        self._check_unique(
            "Prometheus series", [name for metric in self.all_metrics for name in metric.exposed]
        )
        self._check_unique("objective", [objective.name for objective in self.objectives])
        for metric in self.all_metrics:
            self.job(metric)
        for objective in self.objectives:
            if objective.metric not in self.all_metrics:
                raise CatalogueError(
                    f"objective {objective.name} judges {objective.metric.name}, which {self.service} "
                    "does not declare; add it to metrics"
                )

    def _check_unique(self, what: str, names: list[str]) -> None:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise CatalogueError(
                f"{self.service}: {what} {', '.join(twice)} is declared twice; remove or rename one"
            )

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The library's metrics, then the service's own."""
        return BUILTIN + self.metrics

    def job(self, metric: Metric) -> str:
        """The `job` label under which Prometheus stores the metric. Raises CatalogueError."""
        for target in self.targets:
            if target.name == metric.target:
                return target.job
        known = ", ".join(target.name for target in self.targets)
        raise CatalogueError(
            f"{metric.name}: no target {metric.target}; take one of {known}, or declare it"
        )

    def metric(self, name: str) -> Metric:
        """The metric of that OpenTelemetry name or stored series name. Raises CatalogueError."""
        for metric in self.all_metrics:
            if name in (metric.name, metric.family, *metric.exposed):
                return metric
        raise CatalogueError(
            f"{name} is not in the catalogue of {self.service}; declare it or correct the name"
        )

    def buckets(self, metric: Metric) -> tuple[float, ...]:
        """The histogram's bounds, with the threshold of every objective over it as an exact bound."""
        if metric.kind is not Kind.HISTOGRAM:
            return ()
        own = {
            float(o.threshold)
            for o in self.objectives
            if o.metric == metric and o.threshold is not None
        }
        return tuple(sorted(own.union(metric.buckets)))

    @classmethod
    def load(cls, reference: str) -> Catalogue:
        """The catalogue that `reference` names: `module` (its CATALOGUE) or `module:name`.

        Importing runs the module's code. Raises LoadError with where, what and the remedy.
        """
        module_name, _, attribute = reference.partition(":")
        attribute = attribute or "CATALOGUE"
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise LoadError(f"{reference!r} names no module; write it as module, or module:name")
        try:
            # What a module prints must not stand among what a command prints.
            with contextlib.redirect_stdout(sys.stderr):
                module = importlib.import_module(module_name)
        except TaskscopeError as error:
            raise LoadError(f"{module_name}: {error}") from error
        except ModuleNotFoundError as error:
            raise LoadError(
                f"{module_name}: no module {error.name}; install it, "
                f"or run where `python -c 'import {module_name}'` works"
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise LoadError(
                f"{module_name} does not import: {type(error).__name__}: {error}; "
                f"mend it until `python -c 'import {module_name}'` works"
            ) from error
        found = getattr(module, attribute, None)
        if isinstance(found, cls):
            return found
        raise LoadError(
            f"{module_name} has no Catalogue named {attribute}; write {attribute} = taskscope.Catalogue(service=…) "
            "there, or name another as module:name"
        )
