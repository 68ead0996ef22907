"""How Elasticsearch stores a service's lines: the templates of its data streams, as values.

Only the fields of Elastic Common Schema that a line may hold are mapped; whatever else comes stays in the document
but adds no field to the index. Keys of a service's own are under `labels`, one flattened field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskscope.audit.run import folder_of
from taskscope.logs.fields import FIELDS, FieldType
from taskscope_exporters.logs.streams import StreamSettings

__all__ = [
    "VERSION",
    "LogTemplate",
    "Part",
    "audit_spool",
    "log_template",
    "stream_name",
    "stream_patterns",
]

VERSION: Final = 3
"""Of the templates' content; a server that has a younger one is left as it is."""

_PRIORITY: Final = 200
"""Above the servers' own template for `logs-*-*`, which has 100."""
_IGNORE_ABOVE: Final = 2048
_MOST_FIELDS: Final = 500
_ROLLOVER_AGE: Final = "1d"
_ROLLOVER_SIZE: Final = "50gb"


def stream_name(service: str, environment: str, *, audit: bool = False) -> str:
    """The data stream of a service's lines; audit: of those from the audit spool, which are kept longer."""
    return f"logs-{service}{_AUDIT if audit else ''}-{environment}"


def audit_spool(spool: Path) -> Path:
    """Where audit lines wait: a spool of their own inside the service's, so a folder says which stream they go to."""
    return folder_of(spool)


def stream_patterns(service: str, *, audit: bool = False) -> str:
    """The streams of all environments of a service."""
    return stream_name(service, "*", audit=audit)


_AUDIT: Final = ".audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that the server is to hold under a name. kind: in words, as a sentence says it."""

    kind: str
    name: str
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTemplate:
    """The parts of a service's log streams in the order in which they must be put.

    policies: of index lifecycle management, where that is asked for.
    """

    service: str
    streams: StreamSettings
    component: Part
    indices: tuple[Part, ...]
    policies: tuple[Part, ...] = ()

    def document(self) -> dict[str, object]:
        """All of it as one JSON document: kind of template, name, body."""
        document: dict[str, object] = {
            "component_templates": {self.component.name: self.component.body},
            "index_templates": {part.name: part.body for part in self.indices},
        }
        if self.policies:
            document["lifecycle_policies"] = {part.name: part.body for part in self.policies}
        return document


def log_template(service: str, streams: StreamSettings | None = None) -> LogTemplate:
    """The templates for the data streams `logs-<service>-*` and `logs-<service>.audit-*`.

    A component template `logs-<service>@custom`, where there is one, adds to both.
    """
    streams = StreamSettings() if streams is None else streams
    name = f"logs-{service}"
    kept = ((False, streams.retention), (True, streams.audit_retention))
    return LogTemplate(
        service=service,
        streams=streams,
        component=Part(
            kind="component template",
            name=f"{name}@fields",
            body=_marked(service, {"version": VERSION, "template": {"mappings": _mappings()}}),
        ),
        indices=tuple(_index(service, streams, retention, audit) for audit, retention in kept),
        policies=tuple(_policy(service, retention, audit) for audit, retention in kept)
        if streams.ilm
        else (),
    )


def _index(service: str, streams: StreamSettings, retention: str, audit: bool) -> Part:
    name = f"logs-{service}"
    settings: dict[str, object] = {
        "codec": "best_compression",
        "number_of_shards": streams.shards,
        # The fields of a line and, from `@custom`, some more; a document with others is stored without an error.
        "mapping": {
            "total_fields": {"limit": _MOST_FIELDS, "ignore_dynamic_beyond_limit": True},
        },
    }
    if streams.replicas is None:
        settings["auto_expand_replicas"] = "0-1"
    else:
        settings["number_of_replicas"] = streams.replicas
    template: dict[str, object] = {"settings": {"index": settings}}
    if streams.ilm:
        settings["lifecycle"] = {"name": _policy_name(service, audit)}
    else:
        template["lifecycle"] = {"data_retention": retention}
    body = {
        "index_patterns": [stream_patterns(service, audit=audit)],
        "version": VERSION,
        "data_stream": {},
        # The longer name of `logs-task-api-*` wins over `logs-task-*`, which matches its streams as well.
        "priority": _PRIORITY + len(service),
        "composed_of": [f"{name}@fields", f"{name}@custom"],
        "ignore_missing_component_templates": [f"{name}@custom"],
        "template": template,
    }
    return Part(
        kind="index template",
        name=f"{name}{_AUDIT if audit else ''}",
        body=_marked(service, body),
    )


def _policy_name(service: str, audit: bool) -> str:
    return f"logs-{service}{_AUDIT if audit else ''}@lifecycle"


def _policy(service: str, retention: str, audit: bool) -> Part:
    rollover = {"max_age": _ROLLOVER_AGE, "max_primary_shard_size": _ROLLOVER_SIZE}
    phases = {
        "hot": {"actions": {"rollover": rollover}},
        "delete": {"min_age": retention, "actions": {"delete": {}}},
    }
    return Part(
        kind="lifecycle policy",
        name=_policy_name(service, audit),
        body=_marked(service, {"phases": phases}),
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


def _marked(service: str, body: Mapping[str, object]) -> dict[str, object]:
    """The body with whose it is, and a digest of itself, by which a later run knows whether the server has it."""
    packed = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(packed.encode()).hexdigest()[:16]
    meta = {"managed_by": "taskscope", "service": service, "version": VERSION, "digest": digest}
    return {**body, "_meta": meta}
