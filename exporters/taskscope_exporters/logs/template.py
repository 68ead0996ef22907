"""How Elasticsearch stores a service's lines: the templates of its data streams, as values.

Only the fields of Elastic Common Schema that a line may hold are mapped; whatever else comes stays in the document
but adds no field to the index. Keys of a service's own are under `labels`, one flattened field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskscope.logs.fields import FIELDS, FieldType

__all__ = ["LogTemplate", "log_template"]

_PRIORITY: Final = 200
"""Above the servers' own template for `logs-*-*`, which has 100."""
_IGNORE_ABOVE: Final = 2048
_RETENTION: Final = "30d"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTemplate:
    """One component template and the index template that uses it; both are put under their name."""

    component_name: str
    component: Mapping[str, object]
    index_name: str
    index: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """Both as one JSON document: kind of template, name, body."""
        return {
            "component_templates": {self.component_name: self.component},
            "index_templates": {self.index_name: self.index},
        }


def log_template(service: str, *, retention: str = _RETENTION) -> LogTemplate:
    """The templates for the data streams `logs-<service>-*`.

    retention: how long a line is kept, in Elasticsearch's units. A component template `logs-<service>@custom`, where
    there is one, adds to them.
    """
    name = f"logs-{service}"
    component = {"template": {"mappings": _mappings()}}
    index = {
        "index_patterns": [f"{name}-*"],
        "data_stream": {},
        # The longer name of `logs-task-api-*` wins over `logs-task-*`, which matches its streams as well.
        "priority": _PRIORITY + len(service),
        "composed_of": [f"{name}@fields", f"{name}@custom"],
        "ignore_missing_component_templates": [f"{name}@custom"],
        "template": {
            "settings": {"index": {"auto_expand_replicas": "0-1", "codec": "best_compression"}},
            "lifecycle": {"data_retention": retention},
        },
    }
    return LogTemplate(
        component_name=f"{name}@fields",
        component=_marked(component),
        index_name=name,
        index=_marked(index),
    )


def _mappings() -> dict[str, object]:
    return {
        "dynamic": False,
        "properties": {name: _mapping(kind) for name, kind in sorted(FIELDS.items())},
    }


def _mapping(kind: FieldType) -> dict[str, object]:
    if kind in (FieldType.KEYWORD, FieldType.FLATTENED):
        return {"type": kind.value, "ignore_above": _IGNORE_ABOVE}
    if kind is FieldType.TEXT:
        return {"type": kind.value, "norms": False}
    if kind is FieldType.LONG:
        return {"type": kind.value, "ignore_malformed": True}
    return {"type": kind.value}


def _marked(body: Mapping[str, object]) -> dict[str, object]:
    """The body with a digest of itself, by which a later run knows whether the server has it already."""
    packed = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(packed.encode()).hexdigest()[:16]
    return {**body, "_meta": {"managed_by": "taskscope", "digest": digest}}
