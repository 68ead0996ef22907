"""Whether Elasticsearch lets the reader in, has room, and holds this service's lines."""

from __future__ import annotations

from typing import Any

import httpx2

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.processes import alive
from taskscope_ui.doctor.subject import Part, Subject

__all__ = ["check_elasticsearch"]


async def check_elasticsearch(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """What keeps lines from being stored or found."""
    part = subject.part("elasticsearch")
    if part is None or not alive(part):
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
    return _judge(part, subject, response)


def _judge(part: Part, subject: Subject, response: httpx2.Response) -> list[Finding]:
    secrets = subject.folder / "secrets"
    match response.status_code:
        case 200:
            total = response.json()["hits"]["total"]["value"]
            if total:
                return []
            what = f"{subject.data_stream} holds no line yet"
            remedy = (
                "run `taskscope doctor` again in a minute; if it stays so, read the log of shipper"
            )
        case 401 | 403:
            what = f"refuses the reader's key with {response.status_code}"
            remedy = f"stop the stack, remove {secrets}/elasticsearch* and run: taskscope up"
        case 404:
            what = f"there is no data stream {subject.data_stream}"
            remedy = "run: taskscope logs setup"
        case status:
            what = f"answers {status}"
            remedy = f"read {part.log}"
    return [Finding(where=part.name, what=what, remedy=remedy)]
