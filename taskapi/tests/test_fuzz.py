"""Any input at all: the service answers in its envelope, and never with a bug."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import taskscope
from taskscope.testing.server import serving
from taskscope_taskapi.app import create_app
from taskscope_taskapi.settings import Settings

EXPECTED = {200, 201, 204, 401, 404, 405, 409, 412, 422}

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["todo", "done", "a@example.com", "correct horse", "ann"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "title",
    "description",
    "status",
    "username",
    "email",
    "password",
    "refresh_token",
    "owner_id",
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=4) | values
calls = st.tuples(
    st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT"]),
    st.sampled_from(
        [
            "/auth/register",
            "/auth/refresh",
            "/users/me",
            "/tasks",
            "/tasks/statistics",
            "/tasks/{id}",
        ]
    ),
)
queries = st.dictionaries(
    st.sampled_from(["limit", "offset", "status", "x"]), st.text(), max_size=2
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    http: httpx2.Client
    task: str
    headers: dict[str, str]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A service with one user who has one task."""
    folder = tmp_path_factory.mktemp("fuzz")
    config = Settings(state_dir=folder, rate_limit=10**9, login_limit=10**9)
    app = create_app(config, telemetry=taskscope.Settings(spool=folder / "spool"))
    with serving(app) as url, httpx2.Client(base_url=f"{url}/api/v1", trust_env=False) as http:
        user = {"username": "ann", "password": "correct horse"}
        http.post("/auth/register", json={**user, "email": "ann@example.com"})
        pair = http.post("/auth/login", json=user).json()["data"]
        headers = {"Authorization": f"Bearer {pair['access_token']}"}
        task = http.post("/tasks", json={"title": "t"}, headers=headers).json()["data"]["id"]
        yield Door(http=http, task=task, headers=headers)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(call=calls, body=bodies, query=queries)
def test_no_input_is_a_bug(
    door: Door, call: tuple[str, str], body: Any, query: dict[str, str]
) -> None:
    method, path = call
    answer = door.http.request(
        method, path.replace("{id}", door.task), json=body, params=query, headers=door.headers
    )
    assert answer.status_code in EXPECTED
    assert answer.status_code == 204 or set(answer.json()) == {"success", "data", "error", "meta"}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(token=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_no_token_is_a_bug(door: Door, token: str) -> None:
    for shaped in (token, f"{token}.{token}.{token}", f"eyJhbGciOiJIUzI1NiJ9.{token}."):
        answer = door.http.get("/tasks", headers={"Authorization": f"Bearer {shaped}"})
        assert answer.status_code == 401
