"""Whether Elasticsearch lets the reader in, has room, and holds this service's lines."""

from __future__ import annotations

from typing import Any, Final

import httpx2

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.processes import answers
from taskscope_ui.doctor.subject import Part, Subject

__all__ = ["check_elasticsearch"]

LINES_AFTER_S: Final = 60.0
"""The first line makes the stream, and it is there some seconds after the shipper started."""


async def check_elasticsearch(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """What keeps lines from being stored or found."""
    part = subject.part("elasticsearch")
    if part is None or not answers(part):
        return []
    url = f"{part.url.rstrip('/')}/{subject.data_stream}/_search"
    query: dict[str, Any] = {"size": 0, "track_total_hits": 1}
    auth = (
        httpx2.BasicAuth(*subject.elasticsearch_auth)
        if subject.elasticsearch_auth
        else httpx2.USE_CLIENT_DEFAULT
    )
    try:
        response = await client.post(url, json=query, auth=auth)
    except httpx2.HTTPError as error:
        what = f"{part.url} does not answer ({type(error).__name__})"
        return [Finding(where=part.name, what=what, remedy=f"read {part.log}")]
    return _judge(part, subject, response) + await _shipper_refused(part, subject, client)


def _judge(part: Part, subject: Subject, response: httpx2.Response) -> list[Finding]:
    settling = subject.young(("elasticsearch", "shipper"), LINES_AFTER_S)
    match response.status_code:
        case 200:
            if settling or response.json()["hits"]["total"]["value"]:
                return []
            what = f"{subject.data_stream} holds no line yet"
            remedy = f"read {_log(subject)}"
        case 401 | 403:
            what = f"refuses the reader's key with {response.status_code}"
            remedy = _new_keys(subject)
        case 404 if settling or subject.part("shipper") is None:
            return []
        case 404:
            what = f"there is no data stream {subject.data_stream}"
            remedy = f"read {_log(subject)}, and see that the service is asked for anything"
        case status:
            what = f"answers {status}"
            remedy = f"read {part.log}"
    return [Finding(where=part.name, what=what, remedy=remedy)]


async def _shipper_refused(
    part: Part, subject: Subject, client: httpx2.AsyncClient
) -> list[Finding]:
    """Whether the shipper's key is a wrong one (401); that it may not do this (403) is as it should be."""
    if subject.shipper_auth is None or subject.part("shipper") is None:
        return []
    try:
        response = await client.get(part.url, auth=httpx2.BasicAuth(*subject.shipper_auth))
    except httpx2.HTTPError:
        return []  # told by the reader's question
    if response.status_code != httpx2.codes.UNAUTHORIZED:
        return []
    what = "refuses the shipper's key with 401; lines wait on disk"
    return [Finding(where=part.name, what=what, remedy=_new_keys(subject))]


def _new_keys(subject: Subject) -> str:
    keys = subject.folder / "secrets" / "elasticsearch_*"
    return f"stop the stack with Ctrl-C, run: rm {keys}, and run: taskscope up"


def _log(subject: Subject) -> str:
    shipper = subject.part("shipper")
    return str(shipper.log) if shipper is not None and shipper.log else "the log of shipper"
