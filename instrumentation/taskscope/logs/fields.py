"""The fields of Elastic Common Schema that a line may hold at its top level, with their type.

One table for two readers: the chain keeps these keys and moves all others under `labels`; the index template
maps exactly these, so no line can add a field to the index.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["ECS_VERSION", "FIELDS", "OWN", "FieldType"]

ECS_VERSION: Final = "8.17.0"
"""The version of the schema whose names are used."""


class FieldType(Enum):
    """How Elasticsearch maps a field."""

    DATE = "date"
    KEYWORD = "keyword"
    TEXT = "text"
    LONG = "long"
    DOUBLE = "double"
    FLATTENED = "flattened"


_KEYWORDS: Final = [
    "log.level",
    "log.logger",
    "ecs.version",
    "service.name",
    "service.version",
    "service.environment",
    "service.node.name",
    "event.dataset",
    "event.action",
    "event.category",
    "event.kind",
    "event.outcome",
    "event.type",
    "event.reason",
    "event.id",
    "trace.id",
    "span.id",
    "transaction.id",
    "http.request.id",
    "http.request.method",
    "http.request.mime_type",
    "http.route",
    "http.version",
    "http.response.mime_type",
    "url.path",
    "url.query",
    "url.domain",
    "url.scheme",
    "client.address",
    "user.hash",
    "user.id",
    "user.name",
    "user_agent.original",
    "error.type",
    "error.code",
    "process.name",
    "process.thread.name",
    "host.name",
    "audit.chain",
    "audit.previous",
    "audit.hash",
    "audit.key",
]
_LONGS: Final = [
    "event.duration",
    "http.request.body.bytes",
    "http.response.body.bytes",
    "http.response.status_code",
    "client.port",
    "process.pid",
    "audit.sequence",
]
_TEXTS: Final = ("message", "error.message", "error.stack_trace")

FIELDS: Final[dict[str, FieldType]] = {
    "@timestamp": FieldType.DATE,
    "labels": FieldType.FLATTENED,
    "error.frames": FieldType.FLATTENED,
    "sample.weight": FieldType.DOUBLE,
    **dict.fromkeys(_TEXTS, FieldType.TEXT),
    **dict.fromkeys(_KEYWORDS, FieldType.KEYWORD),
    **dict.fromkeys(_LONGS, FieldType.LONG),
}
"""Every top-level field of a line."""

OWN: Final = frozenset(
    [
        "@timestamp",
        "labels",
        "message",
        "log.level",
        "log.logger",
        "ecs.version",
        "service.name",
        "service.version",
        "service.environment",
        "service.node.name",
        "trace.id",
        "span.id",
        "user.hash",
        "process.pid",
        "error.frames",
        "error.stack_trace",
        "audit.chain",
        "audit.previous",
        "audit.hash",
        "audit.key",
        "audit.sequence",
    ]
)
"""The fields that the chain alone sets; the same name in a call goes under `labels`."""
