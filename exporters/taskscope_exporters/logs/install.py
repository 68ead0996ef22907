"""Puts the templates into Elasticsearch; says what it changed, and changes nothing the second time.

What is there under our names and is not ours is left alone, and so is what a younger version of ours has put.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from taskscope_exporters.logs.client import Cause, Trouble
from taskscope_exporters.logs.template import VERSION, LogTemplate, Part

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Change", "changes", "ensure", "install"]

_UNTOLD: Final = frozenset(
    {
        "_meta.digest",
        "created_date",
        "created_date_millis",
        "data_stream.allow_custom_routing",
        "data_stream.hidden",
        "modified_date",
        "modified_date_millis",
        "template.lifecycle.enabled",
    }
)
"""What says nothing in a diff: the digest, and what a server adds to a template that was put without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A part that is missing, or that the server has otherwise. found: what it has, None for nothing."""

    part: Part
    found: Mapping[str, object] | None

    @property
    def sentence(self) -> str:
        """What is done: said after it was."""
        return f"{self.part.kind} {self.part.name} was {self._verb}"

    @property
    def _verb(self) -> str:
        if self.found is None:
            return "put"
        before = _version(self.found)
        if before < VERSION:
            return f"replaced (version {before} by {VERSION})"
        return "replaced"

    def diff(self) -> tuple[str, ...]:
        """One line for each leaf that goes (`-`) or comes (`+`), by its path."""
        old, new = _leaves(self.found or {}), _leaves(self.part.body)
        lines: list[str] = []
        for path in sorted({*old, *new}):
            if old.get(path) == new.get(path) or path in _UNTOLD:
                continue
            lines += [
                f"{sign} {path}: {leaves[path]}"
                for sign, leaves in (("-", old), ("+", new))
                if path in leaves
            ]
        return tuple(lines)


def changes(client: Elasticsearch, template: LogTemplate) -> tuple[Change, ...]:
    """What is to be put, in this order, so that the server has the template; nothing is put yet.

    Raises Trouble if a part of that name is not taskscope's, another service's or a younger version's, and the
    client's errors.
    """
    known = _known(client, template)
    for part, found in known:
        _check_owner(template, part, found)
        _check_version(part, found)
    return tuple(Change(part=part, found=found) for part, found in known if not _same(part, found))


def install(client: Elasticsearch, template: LogTemplate) -> tuple[str, ...]:
    """The server has the template; returns a sentence for each part that was put, none if all were there.

    A stream that exists takes the new fields with its next backing index. Raises as `changes`.
    """
    return _put(client, changes(client, template))


def ensure(client: Elasticsearch, template: LogTemplate) -> tuple[str, ...]:
    """The server has the template in this version or a younger one, with whatever settings it was put.

    For a shipper, which must not take back what `logs setup` was told. Raises as `changes`, but for a younger version.
    """
    known = _known(client, template)
    for part, found in known:
        _check_owner(template, part, found)
    return _put(
        client,
        tuple(
            Change(part=part, found=found)
            for part, found in known
            if found is None or _version(found) < VERSION
        ),
    )


def _put(client: Elasticsearch, wanted: tuple[Change, ...]) -> tuple[str, ...]:
    put: dict[str, Callable[[Part], object]] = {
        "component template": lambda part: client.cluster.put_component_template(
            name=part.name, body=dict(part.body)
        ),
        "index template": lambda part: client.indices.put_index_template(
            name=part.name, body=dict(part.body)
        ),
        "lifecycle policy": lambda part: client.ilm.put_lifecycle(
            name=part.name, policy=dict(part.body)
        ),
    }
    for change in wanted:
        put[change.part.kind](change.part)
    return tuple(change.sentence for change in wanted)


def _known(
    client: Elasticsearch, template: LogTemplate
) -> list[tuple[Part, Mapping[str, object] | None]]:
    """Every part in the order in which they are put, with what the server has under its name."""
    return [
        *((part, _policy(client, part.name)) for part in template.policies),
        (template.component, _component(client, template.component.name)),
        *((part, _index(client, part.name)) for part in template.indices),
    ]


def _component(client: Elasticsearch, name: str) -> Mapping[str, object] | None:
    from elasticsearch import NotFoundError

    try:
        (found,) = client.cluster.get_component_template(name=name).body["component_templates"]
    except NotFoundError:
        return None
    return _mapping(found["component_template"])


def _index(client: Elasticsearch, name: str) -> Mapping[str, object] | None:
    from elasticsearch import NotFoundError

    try:
        (found,) = client.indices.get_index_template(name=name).body["index_templates"]
    except NotFoundError:
        return None
    return _mapping(found["index_template"])


def _policy(client: Elasticsearch, name: str) -> Mapping[str, object] | None:
    from elasticsearch import BadRequestError, NotFoundError

    try:
        found = client.ilm.get_lifecycle(name=name).body
    except NotFoundError:
        return None
    except BadRequestError as error:
        if "no handler found" not in str(error.body):
            raise
        raise Trouble(
            Cause.REFUSED,
            "this server has no index lifecycle management; leave out --ilm and ELASTICSEARCH_ILM",
        ) from error
    return _mapping(found[name]["policy"])


def _mapping(body: object) -> Mapping[str, object]:
    return body if isinstance(body, Mapping) else {}


def _check_owner(template: LogTemplate, part: Part, found: Mapping[str, object] | None) -> None:
    if found is None:
        return
    meta = _mapping(found.get("_meta"))
    if meta.get("managed_by") != "taskscope":
        raise Trouble(
            Cause.REFUSED,
            f"{part.kind} {part.name} is there and not taskscope's; rename or delete it in Elasticsearch, or give "
            "the service another name",
        )
    if meta.get("service", template.service) != template.service:
        raise Trouble(
            Cause.REFUSED,
            f"{part.kind} {part.name} belongs to the service {meta['service']}; give this one another name",
        )


def _check_version(part: Part, found: Mapping[str, object] | None) -> None:
    if found is not None and _version(found) > VERSION:
        raise Trouble(
            Cause.REFUSED,
            f"{part.kind} {part.name} was put by a younger taskscope (version {_version(found)}, this one has "
            f"{VERSION}); update this one",
        )


def _version(found: Mapping[str, object]) -> int:
    version = _mapping(found.get("_meta")).get("version", 1)  # the first ones had none
    return version if isinstance(version, int) else 1


def _same(part: Part, found: Mapping[str, object] | None) -> bool:
    """Whether the server has all of the part; what a server of another version adds to it is no difference."""
    if found is None:
        return False
    theirs = _leaves(found)
    return all(theirs.get(path) == leaf for path, leaf in _leaves(part.body).items())


def _leaves(value: object, path: str = "") -> dict[str, str]:
    """Every leaf by its path, as text: the server gives numbers and truth values of settings back as text."""
    if isinstance(value, Mapping):
        return {
            found: leaf
            for key, inside in value.items()
            for found, leaf in _leaves(inside, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(value, bool):
        return {path: str(value).lower()}
    if isinstance(value, list | tuple):
        return {path: ", ".join(str(item) for item in value)}
    return {path: str(value)}
