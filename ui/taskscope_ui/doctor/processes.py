"""Whether each part's process is there and its address answers."""

from __future__ import annotations

from typing import Final

import anyio
import httpx2
import psutil

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.subject import Part, Subject

__all__ = ["alive", "check_answers", "check_engines", "check_processes"]

HEALTH_PATHS: Final = {
    "prometheus": "/-/healthy",
    "alertmanager": "/-/healthy",
    "page": "/_stcore/health",
    "api-1": "/readyz",
    "api-2": "/readyz",
    "shipper": "/metrics",
}
"""Where a part says that it is well; a part that is not listed has to answer at its own address."""

_TAIL_BYTES: Final = 4096


def alive(part: Part) -> bool:
    """Whether the very process that was started still runs; its pid may have a new owner by now."""
    try:
        process = psutil.Process(part.pid)
        # The start is kept in seconds; two processes of one pid within a second do not occur.
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and abs(process.create_time() - part.started) < 1
        )
    except psutil.NoSuchProcess:
        return False


def check_engines(subject: Subject) -> list[Finding]:
    """Programs that the stack needs and this machine lacks."""
    return [
        Finding(where=name, what=why, remedy=f"run: {command}")
        for name, why, command in subject.missing
    ]


def check_processes(subject: Subject) -> list[Finding]:
    """Parts whose process has ended, with the last thing they said."""
    if not subject.parts:
        return [
            Finding(
                where=str(subject.folder),
                what="no stack was started here",
                remedy="run: taskscope up",
            )
        ]
    gone = [part for part in subject.parts if not alive(part)]
    if len(gone) == len(subject.parts):
        return [
            Finding(
                where=str(subject.folder),
                what="the stack is not running",
                remedy="run: taskscope up",
            )
        ]
    return [
        Finding(
            where=part.name,
            what=f"its process has ended{_last_words(part)}",
            remedy="stop the stack with Ctrl-C and run: taskscope up",
        )
        for part in gone
    ]


async def check_answers(subject: Subject, client: httpx2.AsyncClient) -> list[Finding]:
    """Parts whose process runs but whose address does not answer well."""
    found: list[Finding] = []

    async def ask(part: Part) -> None:
        finding = await _ask(part, client)
        if finding:
            found.append(finding)

    async with anyio.create_task_group() as group:
        for part in subject.parts:
            # Elasticsearch asks for a password; its own check does that.
            if part.url and part.name != "elasticsearch" and alive(part):
                group.start_soon(ask, part)
    return sorted(found)


async def _ask(part: Part, client: httpx2.AsyncClient) -> Finding | None:
    url = part.url.rstrip("/") + HEALTH_PATHS.get(part.name, "/")
    remedy = f"read {part.log}" if part.log else "restart it"
    try:
        response = await client.get(url)
    except httpx2.HTTPError as error:
        what = f"{part.url} does not answer ({type(error).__name__})"
        return Finding(where=part.name, what=what, remedy=remedy)
    if response.status_code >= 500 or (part.name in HEALTH_PATHS and response.status_code != 200):
        return Finding(where=part.name, what=f"{url} answers {response.status_code}", remedy=remedy)
    return None


def _last_words(part: Part) -> str:
    if part.detail:
        return f" ({part.detail})"
    if part.log is None or not part.log.is_file():
        return ""
    with part.log.open("rb") as file:
        file.seek(max(0, part.log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return f"; its last line in {part.log} is: {lines[-1][:200]}" if lines else ""
