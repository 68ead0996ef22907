"""Who the caller is."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from taskscope_taskapi.models import User

from .conftest import Api

pytestmark = pytest.mark.anyio

ME = "/api/v1/users/me"


async def test_a_user_sees_the_own_account_without_its_hash(api: Api) -> None:
    ann = await api.user("ann")
    answer = await api.http.get(ME, headers=ann)
    assert answer.json()["data"]["email"] == "ann@example.com"
    assert "hash" not in answer.text


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}]
)
async def test_who_shows_no_token_is_challenged(api: Api, header: dict[str, str]) -> None:
    answer = await api.http.get(ME, headers=header)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_token_outlives_its_account_in_vain(api: Api) -> None:
    ann = await api.user("ann")
    async with api.service.database.writing() as session:
        await session.execute(delete(User))
    assert (await api.http.get(ME, headers=ann)).status_code == 401
