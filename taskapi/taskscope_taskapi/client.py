"""The users that the load generator plays: each knows its tokens and tasks, and sends one request a call."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

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
        answer = await self._send(
            "POST",
            "/auth/login",
            {"username": player.username, "password": player.password},
        )
        return self._take_tokens(player, answer)

    async def act(self, player: Player, step: Step, faults: Mapping[str, str]) -> None:
        """The step was sent, or what stands for it while the player has no task. Raises Spent."""
        tokens = player.tokens
        if tokens is None:
            return
        headers = {"Authorization": f"Bearer {tokens.access_token}", **faults}
        if step.action is Action.LOGIN:
            await self.login(player)
        elif step.action is Action.WRONG_LOGIN:
            wrong = {"username": player.username, "password": "not-the-password"}
            await self._send("POST", "/auth/login", wrong, headers=faults)
        elif step.action in _READS:
            path, query = _READS[step.action]
            await self._send("GET", path, query=query, headers=headers)
        elif not player.tasks or (step.action is Action.CREATE and not _has_enough(player)):
            await self._create(player, step, headers)
        else:
            task = player.tasks[int(step.pick * len(player.tasks))]
            await self._act_on(player, task, step.action, headers)

    async def _act_on(
        self, player: Player, task: str, action: Action, headers: Mapping[str, str]
    ) -> None:
        if action in (Action.DELETE, Action.CREATE):  # who has enough clears up instead
            await self._delete(player, task, headers)
        elif action is Action.READ:
            await self._send("GET", _TASK, task=task, headers=headers)
        else:
            change = {"status": "done" if action is Action.COMPLETE else "in_progress"}
            await self._send("PATCH", _TASK, change, task=task, headers=headers)

    async def _create(self, player: Player, step: Step, headers: Mapping[str, str]) -> None:
        answer = await self._send(
            "POST", "/tasks", {"title": f"task {int(step.pick * 1e6)}"}, headers=headers
        )
        if answer is not None and answer.status_code == 201:
            player.tasks.append(_Creation.model_validate_json(answer.content).data.id)

    async def _delete(self, player: Player, task: str, headers: Mapping[str, str]) -> None:
        player.tasks.remove(task)  # before it is gone, so that no other step picks it meanwhile
        answer = await self._send("DELETE", _TASK, task=task, headers=headers)
        if answer is None or answer.status_code != 204:
            player.tasks.append(task)

    async def _register(self, player: Player) -> bool:
        answer = await self._send(
            "POST",
            "/auth/register",
            {
                "username": player.username,
                "email": f"{player.username}@example.com",
                "password": player.password,
            },
        )
        # 409: an earlier try got through, though its answer did not.
        player.registered = answer is not None and answer.status_code in (201, 409)
        return player.registered

    async def _refresh(self, player: Player) -> bool:
        if player.tokens is None:
            return False
        token = player.tokens.refresh_token
        player.tokens = None
        answer = await self._send("POST", "/auth/refresh", {"refresh_token": token})
        return self._take_tokens(player, answer)

    def _take_tokens(self, player: Player, answer: httpx2.Response | None) -> bool:
        if answer is None or answer.status_code != 200:
            return False
        try:
            pair = _Login.model_validate_json(answer.content).data
        except ValidationError:
            return False
        player.tokens = pair
        player.fresh_until = self._clock() + max(1, pair.expires_in - _EARLY_S)
        return True

    async def _send(
        self,
        method: str,
        template: str,
        body: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        task: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response | None:
        if self._budget is not None and self._tally.sent >= self._budget:
            raise Spent
        self._tally.sent += 1
        path = _API + template
        try:
            answer = await self._http.request(
                method,
                path.replace("{task_id}", task),
                json=body,
                params=query,
                headers=headers,
            )
        except (httpx2.HTTPError, OSError):
            self._tally.unanswered()
            return None
        self._tally.answered(method, path, answer.status_code)
        return answer


def _has_enough(player: Player) -> bool:
    return len(player.tasks) >= _ENOUGH_TASKS
