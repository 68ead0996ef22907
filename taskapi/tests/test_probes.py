"""Whether an instance lives and can serve."""

from __future__ import annotations

import pytest

from taskscope_taskapi.database import Database, DatabaseUnavailable

from .conftest import Api

pytestmark = pytest.mark.anyio


async def test_an_instance_that_is_well_says_so(api: Api) -> None:
    ready = await api.http.get("/readyz")
    assert (await api.http.get("/livez")).status_code == 200
    assert ready.json()["data"] == {"status": "ok", "checks": {"database": "ok"}}


async def test_an_instance_without_its_database_lives_but_is_not_ready(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(self: Database) -> None:
        raise DatabaseUnavailable("postgresql://user:secret@host")

    monkeypatch.setattr(Database, "ping", lost)
    ready = await api.http.get("/readyz")
    assert (await api.http.get("/livez")).status_code == 200
    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    assert ready.json()["data"]["checks"] == {"database": "unavailable"}
    assert "secret" not in ready.text


async def test_probes_are_not_counted_against_the_limit(api: Api) -> None:
    assert "ratelimit-limit" not in (await api.http.get("/livez")).headers


async def test_the_id_in_a_probes_answer_is_the_one_in_its_header(api: Api) -> None:
    answers = [await api.http.get("/livez") for _ in range(2)]
    ids = [answer.json()["meta"]["request_id"] for answer in answers]
    assert ids == [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 2
