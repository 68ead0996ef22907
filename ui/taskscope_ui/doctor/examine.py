"""All checks at once, within a bound of time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import httpx2

from taskscope_ui.doctor.finding import Finding
from taskscope_ui.doctor.folders import check_folders
from taskscope_ui.doctor.logstore import check_elasticsearch
from taskscope_ui.doctor.monitoring import (
    check_lines_dropped,
    check_log_age,
    check_page_data,
    check_rules,
    check_series,
    check_targets,
)
from taskscope_ui.doctor.processes import check_answers, check_engines, check_processes
from taskscope_ui.doctor.subject import Subject

__all__ = ["examine"]

ANSWER_TIMEOUT_S: Final = 1.5
WHOLE_TIMEOUT_S: Final = 3.5

Check = Callable[[Subject, httpx2.AsyncClient], Awaitable[list[Finding]]]
CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("addresses", check_answers),
    ("targets", check_targets),
    ("rules", check_rules),
    ("series", check_series),
    ("log age", check_log_age),
    ("lines dropped", check_lines_dropped),
    ("page data", check_page_data),
    ("elasticsearch", check_elasticsearch),
)


_STRANGE: Final = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    httpx2.InvalidURL,
)
"""What reading an answer raises that is not what its server would say."""


async def examine(subject: Subject) -> list[Finding]:
    """Everything that is wrong, sorted, within 5 s; empty when all is well."""
    found = check_engines(subject) + check_processes(subject) + check_folders(subject)
    done: set[str] = set()

    async def run(name: str, check: Check, client: httpx2.AsyncClient) -> None:
        try:
            found.extend(await check(subject, client))
        except _STRANGE as error:
            found.append(_strange(name, error))
        done.add(name)

    async with httpx2.AsyncClient(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        with anyio.move_on_after(WHOLE_TIMEOUT_S):
            async with anyio.create_task_group() as group:
                for name, check in CHECKS:
                    group.start_soon(run, name, check, client)
    found += [
        Finding(
            where=f"check of {name}",
            what=f"did not end within {WHOLE_TIMEOUT_S:g} s",
            remedy="see whether the machine is overloaded, and run `taskscope doctor` again",
        )
        for name, _ in CHECKS
        if name not in done
    ]
    return sorted(set(found))


def _strange(name: str, error: Exception) -> Finding:
    return Finding(
        where=f"check of {name}",
        what=f"the answer cannot be read ({type(error).__name__}), so another program may have given it",
        remedy="see who listens with: ss -ltnp; free the port, stop the stack and run: taskscope up",
    )
