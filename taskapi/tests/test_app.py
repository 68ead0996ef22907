"""The application as a whole: one shape of answer, safe headers, limits, bodies."""

from __future__ import annotations

import gc
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx2
import pytest

import taskscope
from taskscope.catalogue.builtin import DB_CONNECTIONS_MAX, REQUEST_DURATION
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import moved, value
from taskscope.testing.server import serving
from taskscope_taskapi import database
from taskscope_taskapi.app import create_app
from taskscope_taskapi.settings import Settings

from .conftest import Api, ApiMaker

pytestmark = pytest.mark.anyio

TASKS = "/api/v1/tasks"
JSON = {"Content-Type": "application/json"}


async def test_every_answer_has_one_shape(make_api: ApiMaker) -> None:
    async with make_api(faults=True) as api:
        ann = await api.user("ann")
        answers = {
            200: await api.http.get(TASKS, headers=ann),
            201: await api.http.post(TASKS, headers=ann, json={"title": "t"}),
            401: await api.http.get(TASKS),
            404: await api.http.get("/nothing/here"),
            405: await api.http.put(TASKS),
            413: await api.http.post(TASKS, headers={**ann, **JSON}, content=b"x" * 2**21),
            422: await api.http.post(TASKS, headers=ann, json={}),
            500: await api.http.get(TASKS, headers={**ann, "X-Taskapi-Fault": "error"}),
        }
    for status, answer in answers.items():
        body = answer.json()
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert set(body) == {"success", "data", "error", "meta"}
        assert body["success"] is (status < 400)
        assert (body["error"] is None) is (status < 400)
        assert body["meta"]["request_id"] == answer.headers["x-request-id"]


async def test_a_method_that_a_path_does_not_take_is_told_all_that_it_takes(api: Api) -> None:
    assert (await api.http.put(TASKS)).headers["allow"] == "GET, HEAD, POST"
    assert (await api.http.put(f"{TASKS}/x")).headers["allow"] == "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_head_is_answered_as_get_is_without_the_body(
    make_settings: Callable[..., Settings], tmp_path: Path, parser: Literal["h11", "httptools"]
) -> None:
    app = create_app(make_settings(docs=True), telemetry=taskscope.Settings(spool=tmp_path / "s"))
    path = "/api/v1/openapi.json"
    with serving(app, http=parser) as url, httpx2.Client(base_url=url) as http:
        plain, head, live = http.get(path), http.head(path), http.head("/livez")
    assert (head.status_code, live.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["content-length"] == plain.headers["content-length"]
    registry = app.state.telemetry.registry
    for method in ("GET", "HEAD"):
        labels = {"http_request_method": method, "http_route": path, "outcome": "ok"}
        assert value(registry, REQUEST_DURATION, **labels) == 1


async def test_a_bug_is_logged_with_its_trace_and_told_to_nobody(
    make_api: ApiMaker, tmp_path: Path
) -> None:
    async with make_api(faults=True) as api:
        ann = await api.user("ann")
        labels = {"outcome": "server_error", "http_route": TASKS}
        with moved(api.registry, REQUEST_DURATION, by=1, **labels):
            answer = await api.http.get(TASKS, headers={**ann, "X-Taskapi-Fault": "error"})
    assert "PlannedFault" not in answer.text
    logged = [
        line for line in read_lines(tmp_path / "spool") if line.get("message") == "request failed"
    ]
    assert [line["http.request.id"] for line in logged] == [answer.headers["x-request-id"]]
    assert "PlannedFault" in str(logged[0]["error.stack_trace"])


@pytest.mark.parametrize("path", ["/livez", TASKS, "/nothing"])
async def test_every_answer_is_safe_in_a_browser(api: Api, path: str) -> None:
    headers = (await api.http.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers


async def test_https_is_asked_for_where_the_user_has_it(make_api: ApiMaker) -> None:
    async with make_api(trusted_proxies="127.0.0.1/32") as api:
        answer = await api.http.get("/livez", headers={"X-Forwarded-Proto": "https"})
    assert "max-age=" in answer.headers["strict-transport-security"]


async def test_a_long_answer_is_compressed_for_who_can_read_it(api: Api) -> None:
    ann = await api.user("ann")
    await api.http.post(TASKS, headers=ann, json={"title": "t", "description": "x" * 4000})
    packed = await api.http.get(TASKS, headers={**ann, "Accept-Encoding": "gzip"})
    plain = await api.http.get(TASKS, headers={**ann, "Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 5


async def test_no_other_origin_is_let_in_by_default(api: Api) -> None:
    answer = await api.http.get("/livez", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [("https://tasks.example", 204, "https://tasks.example"), ("https://evil.example", 400, None)],
)
async def test_a_listed_origin_is_let_in(
    make_api: ApiMaker, origin: str, status: int, allowed: str | None
) -> None:
    async with make_api(cors_origins="https://tasks.example") as api:
        asked = await api.http.options(
            TASKS, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
        )
        answer = await api.http.get(TASKS, headers={"Origin": origin})
    assert asked.status_code == status
    assert answer.headers.get("access-control-allow-origin") == allowed


async def test_the_hundred_and_first_request_of_a_client_is_refused(make_api: ApiMaker) -> None:
    async with make_api() as api:
        answers = [await api.http.get(TASKS) for _ in range(101)]
        with moved(
            api.registry, REQUEST_DURATION, by=1, http_route=TASKS, http_response_status_code="429"
        ):
            refused = await api.http.get(TASKS)
    assert [answer.status_code for answer in answers] == [401] * 100 + [429]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 900
    assert answers[0].headers["ratelimit-remaining"] == "99"


async def test_paths_that_are_not_there_count_as_well(make_api: ApiMaker) -> None:
    async with make_api(rate_limit=2) as api:
        statuses = [
            (await api.http.get(path)).status_code for path in ("/a", "/b", "/c", TASKS, "/livez")
        ]
    assert statuses == [404, 404, 429, 429, 200]


async def test_a_stranger_cannot_pass_for_others_by_a_header(make_api: ApiMaker) -> None:
    forwarding = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP")
    async with make_api(rate_limit=3, peer="203.0.113.9") as api:
        answers = [
            await api.http.get(TASKS, headers=dict.fromkeys(forwarding, f"198.51.100.{number}"))
            for number in range(5)
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]


async def test_clients_behind_a_listed_proxy_are_counted_apart(make_api: ApiMaker) -> None:
    async with make_api(rate_limit=1, trusted_proxies="127.0.0.1/32") as api:
        answers = [
            await api.http.get(TASKS, headers={"X-Forwarded-For": f"evil, {address}"})
            for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 429]


@pytest.mark.parametrize(
    "hostile",
    [
        b'{"title":' + b"[" * 500_000,
        b'{"title":' + b'{"a":' * 150_000,
        b'{"title":"t","status":' + b"9" * 900_000 + b"}",
        b'{"title":1e999999}',
        b'{"title":NaN}',
        b'{"title":"\\ud800"}',
        b'{"title":"\xff\xfe"}',
        b'{"title":"t","title2":"t"}' + b" " * 500_000,
        b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b"}",
        b"null",
        b"",
        b"\x00",
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
async def test_a_hostile_body_is_refused_before_it_costs_anything(api: Api, hostile: bytes) -> None:
    ann = await api.user("ann")
    gc.collect()  # what other tests left behind decides nothing, nor do other threads
    started = time.thread_time()
    answer = await api.http.post(TASKS, headers={**ann, **JSON}, content=hostile)
    took = time.thread_time() - started
    assert answer.status_code == 422, answer.text[:200]
    assert took < 0.25
    assert len(answer.content) < 10_000


async def test_a_compressed_body_is_not_unpacked(api: Api) -> None:
    ann = await api.user("ann")
    bomb = gzip.compress(b'{"title":"' + b"a" * 10_000_000 + b'"}')
    headers = {**ann, **JSON, "Content-Encoding": "gzip"}
    assert (await api.http.post(TASKS, headers=headers, content=bomb)).status_code == 422


async def test_a_body_that_calls_itself_no_json_is_not_parsed(api: Api) -> None:
    ann = await api.user("ann")
    answer = await api.http.post(
        TASKS, headers={**ann, "Content-Type": "text/plain"}, content=json.dumps({"title": "t"})
    )
    assert answer.status_code == 422


async def test_faults_are_not_there_unless_they_were_asked_for(api: Api) -> None:
    ann = await api.user("ann")
    answer = await api.http.get(TASKS, headers={**ann, "X-Taskapi-Fault": "error"})
    assert answer.status_code == 200


@pytest.mark.parametrize(("docs", "status"), [(False, 404), (True, 200)])
async def test_the_description_of_the_paths_is_shown_on_demand(
    make_api: ApiMaker, docs: bool, status: int
) -> None:
    async with make_api(docs=docs) as api:
        assert (await api.http.get("/api/v1/openapi.json")).status_code == status
        assert (await api.http.get("/docs")).status_code == 404


async def test_the_description_shows_refusals_in_the_envelope(api: Api) -> None:
    described = api.app.openapi()
    login = described["paths"]["/api/v1/auth/login"]["post"]["responses"]
    shapes = {
        login[status]["content"]["application/json"]["schema"]["$ref"]
        for status in ("401", "422", "429")
    }
    assert shapes == {"#/components/schemas/Envelope_NoneType_"}
    assert "HTTPValidationError" not in described["components"]["schemas"]


async def test_the_pool_is_watched_and_never_more_than_twenty(api: Api) -> None:
    assert value(api.registry, DB_CONNECTIONS_MAX) == 20


async def test_a_start_without_its_database_says_which_and_not_its_password(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_SCHEMA_TRIES", 1)
    url = "postgresql+asyncpg://user:hunter2@127.0.0.1:1/name"
    app = create_app(
        make_settings(database_url=url), telemetry=taskscope.Settings(spool=tmp_path / "spool")
    )
    with pytest.raises(database.DatabaseUnavailable):
        async with app.router.lifespan_context(app):
            pass
    assert app.state.refusal.startswith("TASKAPI_DATABASE_URL: 127.0.0.1:1 does not answer")
    assert "hunter2" not in app.state.refusal


async def test_two_instances_of_one_state_folder_believe_each_others_tokens(
    make_api: ApiMaker,
) -> None:
    async with make_api() as one, make_api() as two:
        ann = await one.user("ann")
        me = await two.http.get("/api/v1/users/me", headers=ann)
    assert me.json()["data"]["username"] == "ann"


async def test_the_app_is_instrumented_once(api: Api) -> None:
    assert isinstance(api.app.state.telemetry, taskscope.Telemetry)


async def test_who_asks_is_a_hash_in_the_lines_of_the_request_and_the_same_by_each_token(
    make_api: ApiMaker, tmp_path: Path
) -> None:
    async with make_api() as api:
        await api.register("ann")
        tokens = await api.login("ann")
        me = await api.http.get(
            "/api/v1/users/me", headers={"Authorization": f"Bearer {tokens['access_token']}"}
        )
        await api.http.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        await api.http.get(TASKS)
    lines = [line for line in read_lines(tmp_path / "spool") if "http.response.status_code" in line]
    hashes = {str(line["url.path"]): line.get("user.hash") for line in lines}
    known = {hashes[f"/api/v1/{path}"] for path in ("auth/login", "users/me", "auth/refresh")}
    assert len(known) == 1
    assert None not in known
    assert (hashes[TASKS], hashes["/api/v1/auth/register"]) == (None, None)
    assert all(me.json()["data"]["id"] not in str(line) for line in lines)
