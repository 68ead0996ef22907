"""Register, log in, refresh: as a user does it, and as a thief does."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from taskscope.testing.metrics import moved
from taskscope_taskapi.catalogue import LOGINS, USERS_REGISTERED
from taskscope_taskapi.models import RefreshToken, User

from .conftest import PASSWORD, Api, ApiMaker

pytestmark = pytest.mark.anyio

REGISTER, LOGIN, REFRESH = (f"/api/v1/auth/{act}" for act in ("register", "login", "refresh"))
ANN = {"username": "ann", "email": "ann@example.com", "password": PASSWORD}


async def refreshed(api: Api, token: str) -> httpx2.Response:
    return await api.http.post(REFRESH, json={"refresh_token": token})


async def logged_in(api: Api, name: str, password: str) -> httpx2.Response:
    return await api.http.post(LOGIN, json={"username": name, "password": password})


async def test_who_registers_has_an_account(api: Api) -> None:
    with moved(api.registry, USERS_REGISTERED, by=1):
        answer = await api.http.post(REGISTER, json=ANN)
    assert (answer.status_code, answer.headers["location"]) == (201, "/api/v1/users/me")
    assert set(answer.json()["data"]) == {"id", "username", "email", "created_at"}


@pytest.mark.parametrize(
    "again",
    [
        {**ANN, "username": "ANN", "email": "other@example.com"},
        {**ANN, "username": "other", "email": "Ann@Example.com"},
    ],
)
async def test_a_name_or_address_is_taken_once_however_it_is_typed(
    api: Api, again: dict[str, str]
) -> None:
    await api.register("ann")
    with moved(api.registry, USERS_REGISTERED, by=0):
        answer = await api.http.post(REGISTER, json=again)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


async def test_two_who_register_one_name_at_once_get_one_account(api: Api) -> None:
    with moved(api.registry, USERS_REGISTERED, by=1):
        answers = await asyncio.gather(*(api.http.post(REGISTER, json=ANN) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": "no"},
        {"username": "no spaces"},
        {"username": "../etc"},
        {"email": "nobody"},
        {"password": "short12"},
        {"password": "x" * 129},
        {"password": "x" * 1_000_000},
        {"password": None},
        {"password": ["a"] * 10},
        {"is_admin": True},
        {"id": "00000000-0000-4000-8000-000000000001"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_registration_that_is_not_as_it_must_be_is_refused(
    api: Api, wrong: dict[str, Any]
) -> None:
    answer = await api.http.post(REGISTER, json={**ANN, **wrong})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "validation_error")


async def test_a_refused_registration_does_not_echo_the_password(api: Api) -> None:
    answer = await api.http.post(REGISTER, json={**ANN, "password": "s3cret!", "email": "x"})
    assert answer.status_code == 422
    assert "s3cret!" not in answer.text


@pytest.mark.parametrize("path", [REGISTER, LOGIN])
async def test_a_password_that_is_too_long_is_never_hashed(
    api: Api, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*_: object) -> None:
        raise AssertionError("it was hashed")

    monkeypatch.setattr(type(api.service.passwords), "_run", hashed)
    body = {**ANN, "password": "x" * 129}
    answer = await api.http.post(path, json=body if path == REGISTER else _login(body))
    assert answer.status_code == 422


def _login(body: dict[str, str]) -> dict[str, str]:
    return {"username": body["username"], "password": body["password"]}


async def test_the_password_is_stored_as_a_hash_only(api: Api) -> None:
    await api.register("ann")
    async with api.service.database.reading() as session:
        stored = await session.scalar(select(User.password_hash))
    assert (stored or "").startswith("$argon2id$")


@pytest.mark.parametrize("name", ["ann", "ANN", "ann@example.com", " Ann@example.COM "])
async def test_a_user_logs_in_by_name_or_address(api: Api, name: str) -> None:
    await api.register("ann")
    with moved(api.registry, LOGINS, by=1, result="success"):
        answer = await logged_in(api, name, PASSWORD)
    pair = answer.json()["data"]
    assert answer.status_code == 200
    assert (pair["token_type"], pair["expires_in"]) == ("bearer", 900)
    assert answer.headers["cache-control"] == "no-store"


async def test_a_wrong_name_and_a_wrong_password_are_told_alike(api: Api) -> None:
    await api.register("ann")
    with moved(api.registry, LOGINS, by=2, result="bad_credentials"):
        wrong = await logged_in(api, "ann", "not the password")
        unknown = await logged_in(api, "nobody", PASSWORD)
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["error"] == unknown.json()["error"]
    assert "www-authenticate" in wrong.headers


async def test_an_account_whose_password_is_guessed_is_closed_for_a_while(
    make_api: ApiMaker,
) -> None:
    async with make_api(login_limit=3) as api:
        await api.register("ann")
        for name in ("ann", "ANN", "ann@example.com"):
            assert (await logged_in(api, name, "a guess")).status_code == 401
        with moved(api.registry, LOGINS, by=1, result="rate_limited"):
            answer = await logged_in(api, "ann", PASSWORD)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 900


async def test_who_knows_the_password_is_not_counted_out(make_api: ApiMaker) -> None:
    async with make_api(login_limit=2) as api:
        await api.register("ann")
        answers = [await logged_in(api, "ann", PASSWORD) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}


async def test_a_crowd_at_the_door_is_told_to_come_again(make_api: ApiMaker) -> None:
    async with make_api(hash_wait_s=0, login_limit=1000) as api:
        await api.register("ann")
        answers = await asyncio.gather(*(logged_in(api, "ann", PASSWORD) for _ in range(40)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        with moved(api.registry, LOGINS, by=0, result="overloaded"):
            await logged_in(api, "ann", PASSWORD)


async def test_a_refresh_token_is_changed_for_a_new_pair(api: Api) -> None:
    await api.register("ann")
    old = await api.login("ann")
    new = (await refreshed(api, old["refresh_token"])).json()["data"]
    me = await api.http.get(
        "/api/v1/users/me", headers={"Authorization": f"Bearer {new['access_token']}"}
    )
    assert me.json()["data"]["username"] == "ann"
    assert new["refresh_token"] != old["refresh_token"]


async def test_a_stolen_refresh_token_ends_its_whole_family(api: Api) -> None:
    await api.register("ann")
    first = (await api.login("ann"))["refresh_token"]
    second = (await refreshed(api, first)).json()["data"]["refresh_token"]
    assert (await refreshed(api, first)).status_code == 401
    assert (await refreshed(api, second)).status_code == 401


async def test_another_login_of_the_same_user_outlives_the_theft(api: Api) -> None:
    await api.register("ann")
    stolen = (await api.login("ann"))["refresh_token"]
    other = (await api.login("ann"))["refresh_token"]
    await refreshed(api, stolen)
    await refreshed(api, stolen)
    assert (await refreshed(api, other)).status_code == 200


async def test_of_many_who_use_one_refresh_token_at_once_one_gets_in(api: Api) -> None:
    await api.register("ann")
    token = (await api.login("ann"))["refresh_token"]
    answers = await asyncio.gather(*(refreshed(api, token) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


async def test_an_access_token_does_not_refresh(api: Api) -> None:
    await api.register("ann")
    assert (await refreshed(api, (await api.login("ann"))["access_token"])).status_code == 401


async def test_a_refresh_token_opens_no_door(api: Api) -> None:
    await api.register("ann")
    token = (await api.login("ann"))["refresh_token"]
    answer = await api.http.get("/api/v1/tasks", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


async def test_refresh_tokens_are_stored_as_digests_only(api: Api) -> None:
    await api.register("ann")
    token = (await api.login("ann"))["refresh_token"]
    async with api.service.database.reading() as session:
        stored = await session.scalar(select(RefreshToken.digest))
    assert stored is not None
    assert stored not in token
    assert token not in stored
