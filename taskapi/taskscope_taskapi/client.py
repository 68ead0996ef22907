"""The users that the load generator plays: each knows its tokens and tasks, and sends one request a call."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from taskscope_taskapi.plan import Action, Step
from taskscope_taskapi.tally import Tally

__all__ = ["Client", "Player", "Spent"]

_API: Final = "/api/v1"
_ENOUGH_TASKS: Final = 200
"""Of one player; a demonstration that runs for days must not grow its table for days."""

_TASK: Final = "/tasks/{task_id}"
_READS: Final[dict[Action, tuple[str, dict[str, str] | None]]] = {
    Action.ME: ("/users/me", None),
    Action.STATISTICS: ("/tasks/statistics", None),
    Action.LIST: ("/tasks", None),
    Action.LIST_BY_STATUS: ("/tasks", {"status": "todo"}),
}
_EARLY_S: Final = 60
"""Seconds before its end at which an access token is changed for a new one."""


Shape = TypeVar("Shape", bound=BaseModel)


class Spent(Exception):  # noqa: N818 # the end of the budget, not an error
    """All requests that may be sent were sent."""


class _Pair(BaseModel):
    access_token: str
    refresh_token: str
    expires_in: int


class _Login(BaseModel):
    data: _Pair


class _Made(BaseModel):
    id: str


class _Creation(BaseModel):
    data: _Made


@dataclass(slots=True)
class Player:
    """One user. The password is new at each run: nobody can guess what a demonstration left behind."""

    username: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    registered: bool = False
    tokens: _Pair | None = field(default=None, repr=False)
    fresh_until: float = 0.0
    tasks: list[str] = field(default_factory=list)
    entering: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def invented(cls, number: int) -> Player:
        """A user whose name no other run has."""
        return cls(username=f"load-{secrets.token_hex(4)}-{number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    method: str
    template: str
    body: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    task: str = ""


class Client:
    """Sends for the players, counts everything, retries nothing. budget: requests that may be sent, or None."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        tally: Tally,
        *,
        budget: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._http = http
        self._tally = tally
        self._budget = budget
        self._clock = clock

    async def enter(self, player: Player) -> bool:
        """The player holds a fresh access token, or False: the service did not let it in. Raises Spent."""
        async with player.entering:
            if player.tokens is not None and self._clock() < player.fresh_until:
                return True
            if not player.registered and not await self._register(player):
                return False
            if player.tokens is not None and await self._refresh(player):
                return True
            return await self.login(player)

    async def login(self, player: Player) -> bool:
        """The player holds new tokens, or False. Raises Spent."""
        body = {"username": player.username, "password": player.password}
        answer = await self._send(_Call(method="POST", template="/auth/login", body=body))
        if answer is not None and answer.status_code == 401:
            # Another database stands behind the service now: the account is gone, and its tasks with it.
            player.registered = False
            player.tasks.clear()
        return self._take_tokens(player, answer)

    async def act(self, player: Player, step: Step, faults: Mapping[str, str]) -> None:
        """The step was sent, or what stands for it while the player has no task. Raises Spent."""
        if player.tokens is None:
            self._tally.shed += (
                1  # a step at the same time has found that the token is no longer good
            )
            return
        if step.action is Action.LOGIN:
            await self.login(player)
            return
        call = _call(player, step)
        if call.method == "DELETE":
            player.tasks.remove(call.task)  # now, so that no other step picks it meanwhile
        headers = {"Authorization": f"Bearer {player.tokens.access_token}", **faults}
        answer = await self._send(call, headers)
        _learn(player, call, answer)

    async def _register(self, player: Player) -> bool:
        body = {
            "username": player.username,
            "email": f"{player.username}@example.com",
            "password": player.password,
        }
        answer = await self._send(_Call(method="POST", template="/auth/register", body=body))
        # 409: an earlier try got through, though its answer did not.
        player.registered = answer is not None and answer.status_code in (201, 409)
        return player.registered

    async def _refresh(self, player: Player) -> bool:
        if player.tokens is None:
            return False
        body = {"refresh_token": player.tokens.refresh_token}
        player.tokens = None
        answer = await self._send(_Call(method="POST", template="/auth/refresh", body=body))
        return self._take_tokens(player, answer)

    def _take_tokens(self, player: Player, answer: httpx2.Response | None) -> bool:
        pair = _parsed(_Login, answer, status=200)
        if pair is None:
            return False
        player.tokens = pair.data
        player.fresh_until = self._clock() + max(1, pair.data.expires_in - _EARLY_S)
        return True

    async def _send(
        self, call: _Call, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response | None:
        if self._budget is not None and self._tally.sent >= self._budget:
            raise Spent
        self._tally.sent += 1
        path = _API + call.template
        try:
            answer = await self._http.request(
                call.method,
                path.replace("{task_id}", call.task),
                json=call.body,
                params=call.query,
                headers=headers,
            )
        except (httpx2.HTTPError, OSError):
            self._tally.unanswered()
            return None
        except asyncio.CancelledError:  # the load has ended and waits no longer
            self._tally.unanswered()
            raise
        self._tally.answered(call.method, path, answer.status_code)
        return answer


def _call(player: Player, step: Step) -> _Call:
    """What the step asks for; who has no task makes one, and who has enough clears one up instead."""
    if step.action is Action.WRONG_LOGIN:
        wrong = {"username": player.username, "password": "not-the-password"}
        return _Call(method="POST", template="/auth/login", body=wrong)
    if step.action in _READS:
        template, query = _READS[step.action]
        return _Call(method="GET", template=template, query=query)
    is_full = len(player.tasks) >= _ENOUGH_TASKS
    if not player.tasks or (step.action is Action.CREATE and not is_full):
        body = {"title": f"task {int(step.pick * 1e6)}"}
        return _Call(method="POST", template="/tasks", body=body)
    task = player.tasks[int(step.pick * len(player.tasks))]
    if step.action in (Action.DELETE, Action.CREATE):
        return _Call(method="DELETE", template=_TASK, task=task)
    if step.action is Action.READ:
        return _Call(method="GET", template=_TASK, task=task)
    change = {"status": "done" if step.action is Action.COMPLETE else "in_progress"}
    return _Call(method="PATCH", template=_TASK, task=task, body=change)


def _learn(player: Player, call: _Call, answer: httpx2.Response | None) -> None:
    """What the player knows after an answer, or after none."""
    status = 0 if answer is None else answer.status_code
    if status == 401 and call.template != "/auth/login":
        player.tokens = None
    if call.method == "DELETE":
        if status not in (204, 404):
            player.tasks.append(call.task)
    elif status == 404 and call.task in player.tasks:
        player.tasks.remove(call.task)
    made = _parsed(_Creation, answer, status=201)
    if made is not None:
        player.tasks.append(made.data.id)


def _parsed(shape: type[Shape], answer: httpx2.Response | None, *, status: int) -> Shape | None:
    if answer is None or answer.status_code != status:
        return None
    try:
        return shape.model_validate_json(answer.content)
    except ValidationError:
        return None
