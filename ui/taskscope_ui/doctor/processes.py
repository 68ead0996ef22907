"""Whether each part's process is there and its address answers."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx2
import psutil

from taskscope.testing.engines.spec import taken
from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.subject import Part, Subject
from taskscope_ui.stack.logfiles import last_words
from taskscope_ui.stack.processes import holder

__all__ = ["alive", "answers", "check_answers", "check_engines", "check_processes"]

HEALTH_PATHS: Final = {
    "prometheus": "/-/healthy",
    "alertmanager": "/-/healthy",
    "page": "/_stcore/health",
    "api-1": "/readyz",
    "api-2": "/readyz",
    "shipper": "/metrics",
    "collector": "/metrics",
}
"""Where a part says that it is well; a part that is not listed has to answer at its own address."""

LATE_AFTER_S: Final = 90.0
"""Every part is ready before that, unless something is wrong or the machine is very busy."""

_HALTED: Final = "does not answer, as its process was stopped by a signal"
_ANY: Final = r"(?!)"  # no line is better than the last one
_AGAIN: Final = "stop the stack with Ctrl-C and run: taskscope up"


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


def answers(part: Part) -> bool:
    """Whether the part is one that should answer now: it runs, and does not only start."""
    return not part.starting and alive(part) and not _halted(part)


def check_engines(subject: Subject) -> list[Finding]:
    """Programs that the stack needs and this machine lacks."""
    return [
        Finding(where=name, what=why, remedy=f"run: {command}")
        for name, why, command in subject.missing
    ]


def check_processes(subject: Subject) -> list[Finding]:
    """Parts whose process has ended, with the last thing they said."""
    gone = [part for part in subject.parts if not alive(part)]
    if not subject.supervised:
        what = _without_supervisor(subject, runs=len(gone) < len(subject.parts))
        finding = Finding(where=str(subject.folder), what=what, remedy="run: taskscope up")
        return [finding]
    halted = [part for part in subject.parts if part not in gone and _halted(part)]
    late = [part for part in subject.parts if _late(part) and part not in gone]
    return [
        *(Finding(where=part.name, what=_ended(part), remedy=_AGAIN) for part in gone),
        *(
            Finding(
                where=part.name,
                what=_HALTED,
                remedy=f"run: kill -CONT -- -{part.pid}, or {_read(part)}",
            )
            for part in halted
        ),
        *(
            Finding(
                where=part.name,
                what=f"is starting, for {part.age_s:.0f} s by now{_last_words(part)}",
                remedy=_read(part),
            )
            for part in late
        ),
    ]


def _without_supervisor(subject: Subject, *, runs: bool) -> str:
    if not subject.known:
        return "no stack was started here"
    if runs:
        return "taskscope up has ended and left parts running, which its next start ends first"
    return "the stack is not running"


def _late(part: Part) -> bool:
    # A download takes as long as it takes, and its own bound ends it.
    return part.starting and part.age_s > LATE_AFTER_S and part.name != "fetch"


def _ended(part: Part) -> str:
    if not part.pid:
        return part.detail or "was not started"
    port = urlsplit(part.url).port or 0
    thief = f", and port {port} is held by {holder(port)}" if port and taken(port) else ""
    return f"its process has ended{_last_words(part)}{thief}"


def _read(part: Part) -> str:
    return f"read {part.log}" if part.log else _AGAIN


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
            if part.url and part.name != "elasticsearch" and answers(part):
                group.start_soon(ask, part)
    return sorted(found)


async def _ask(part: Part, client: httpx2.AsyncClient) -> Finding | None:
    url = part.url.rstrip("/") + HEALTH_PATHS.get(part.name, "/")
    remedy = _read(part)
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
    words = last_words(part.log, _ANY) if part.log else ""
    return f"; its last line in {part.log} is: {words[:200]}" if words else ""


def _halted(part: Part) -> bool:
    try:
        return bool(psutil.Process(part.pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
