"""Everything that Elasticsearch needs before a service's lines may come, in one step that may be taken again.

Read by `taskscope logs setup`. A template speaks to indices that are still to come; what a stream that exists has to
be told besides is told here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskscope_exporters.logs.client import Cause, Trouble
from taskscope_exporters.logs.install import changes, install
from taskscope_exporters.logs.template import LogTemplate, stream_name

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Prepared", "plan", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was done, and what somebody should know beside it, in sentences; both empty when there was nothing."""

    changed: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lifecycle:
    stream: str
    before: str
    after: str

    @property
    def sentence(self) -> str:
        return f"stream {self.stream} keeps a line for {self.after}, not for {self.before}"


def plan(client: Elasticsearch, template: LogTemplate, environment: str) -> tuple[str, ...]:
    """What `prepare` would change now, line by line: `-` goes, `+` comes. Nothing is changed. Raises as it does."""
    lines: list[str] = []
    for change in changes(client, template):
        lines += [
            f"{change.part.kind} {change.part.name}",
            *(f"  {line}" for line in change.diff()),
        ]
    for found in _lifecycles(client, template, environment) or ():
        lines += [f"stream {found.stream}", f"  - retention: {found.before}"]
        lines.append(f"  + retention: {found.after}")
    return tuple(lines)


def prepare(
    client: Elasticsearch, template: LogTemplate, environment: str, *, rollover: bool = False
) -> Prepared:
    """The templates are there and take effect; streams of `environment` that exist keep lines as long as they say.

    rollover: a stream that exists begins a new backing index with its next line, if its template was changed.
    Raises Trouble for a template that is not ours or that another one outranks, and the client's errors.
    """
    put = install(client, template)
    _check_rank(client, template, environment)
    found = _lifecycles(client, template, environment)
    for lifecycle in found or ():
        client.indices.put_data_lifecycle(name=lifecycle.stream, data_retention=lifecycle.after)
    begun, notes = _renewed(client, template, environment, rollover) if put else ((), ())
    if found is None:
        notes = (
            *notes,
            "this server has no lifecycle of data streams: old lines stay until somebody deletes them",
        )
    return Prepared(
        changed=(*put, *(lifecycle.sentence for lifecycle in found or ()), *begun), notes=notes
    )


def _check_rank(client: Elasticsearch, template: LogTemplate, environment: str) -> None:
    for audit, part in enumerate(template.indices):
        stream = stream_name(template.service, environment, audit=bool(audit))
        answer = client.indices.simulate_index_template(name=stream).body
        if any(loser["name"] == part.name for loser in answer.get("overlapping", ())):
            raise Trouble(
                Cause.REFUSED,
                f"another index template outranks {part.name} (priority {part.body['priority']}) for {stream}; give "
                "that one a lower priority, or narrower patterns",
            )


def _lifecycles(
    client: Elasticsearch, template: LogTemplate, environment: str
) -> tuple[_Lifecycle, ...] | None:
    """The streams that keep lines for another time than the template says; None if the server cannot tell."""
    from elasticsearch import BadRequestError, NotFoundError

    if template.streams.ilm:
        return ()
    wanted = (
        (stream_name(template.service, environment), template.streams.retention),
        (stream_name(template.service, environment, audit=True), template.streams.audit_retention),
    )
    found: list[_Lifecycle] = []
    for stream, after in wanted:
        try:
            answer = client.indices.get_data_lifecycle(name=stream).body
        except NotFoundError:
            continue
        except BadRequestError as error:
            if "no handler found" in str(error.body):
                return None
            raise
        for known in answer["data_streams"]:
            before = str(known.get("lifecycle", {}).get("data_retention", "ever"))
            if before != after:
                found.append(_Lifecycle(stream=stream, before=before, after=after))
    return tuple(found)


def _renewed(
    client: Elasticsearch, template: LogTemplate, environment: str, rollover: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What was begun for streams that exist, and what was not."""
    from elasticsearch import NotFoundError

    begun: list[str] = []
    notes: list[str] = []
    for audit in (False, True):
        stream = stream_name(template.service, environment, audit=audit)
        try:
            client.indices.get_settings(index=stream, name="index.uuid")
        except NotFoundError:
            continue
        if rollover:
            client.indices.rollover(alias=stream, lazy=True)
            begun.append(f"stream {stream} begins a new backing index with its next line")
        else:
            notes.append(
                f"stream {stream} takes the new template with its next backing index; --rollover begins one"
            )
    return tuple(begun), tuple(notes)
