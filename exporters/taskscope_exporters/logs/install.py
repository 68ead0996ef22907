"""Puts the templates into Elasticsearch; says what it changed, and changes nothing the second time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskscope_exporters.logs.template import LogTemplate

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["install"]


def install(client: Elasticsearch, template: LogTemplate) -> tuple[str, ...]:
    """The server has both templates; returns a sentence for each that was put, none if all were there.

    A stream that exists takes the new fields with its next backing index. Raises the client's errors.
    """
    changes: list[str] = []
    known = _component_digest(client, template.component_name)
    if known != _digest(template.component):
        client.cluster.put_component_template(
            name=template.component_name, body=dict(template.component)
        )
        changes.append(_sentence("component template", template.component_name, known))
    known = _index_digest(client, template.index_name)
    if known != _digest(template.index):
        client.indices.put_index_template(name=template.index_name, body=dict(template.index))
        changes.append(_sentence("index template", template.index_name, known))
    return tuple(changes)


def _sentence(what: str, name: str, known: str | None) -> str:
    return f"{what} {name} was {'put' if known is None else 'replaced'}"


def _component_digest(client: Elasticsearch, name: str) -> str | None:
    from elasticsearch import NotFoundError

    try:
        (found,) = client.cluster.get_component_template(name=name).body["component_templates"]
    except NotFoundError:
        return None
    return _digest(found["component_template"])


def _index_digest(client: Elasticsearch, name: str) -> str | None:
    from elasticsearch import NotFoundError

    try:
        (found,) = client.indices.get_index_template(name=name).body["index_templates"]
    except NotFoundError:
        return None
    return _digest(found["index_template"])


def _digest(body: Mapping[str, object]) -> str:
    meta = body.get("_meta")
    digest = meta.get("digest") if isinstance(meta, Mapping) else None
    return str(digest) if digest else ""
