"""The route of a request: the full template wherever the route was declared, and never a raw path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from taskscope.routing import route as route_module
from taskscope.routing.route import RouteFinder, route_template
from taskscope.routing.table import MOST_UNKNOWN, RoutingTable

Scope = MutableMapping[str, Any]


async def _found() -> str:
    return "found"


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


class _Wrapped:
    """A middleware around a mounted application."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _nested(template: str) -> APIRouter:
    leaf = APIRouter(prefix="/users")
    leaf.add_api_route(template, _found)
    leaf.add_route("/page/{name}", _page)
    version = APIRouter(prefix="/v1")
    version.include_router(leaf)
    api = APIRouter(prefix="/api")
    api.include_router(version)
    return api


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    files: Path = tmp_path_factory.mktemp("files")
    (files / "a.txt").write_text("a")
    app = FastAPI()
    app.add_api_route("/items/{item_id}", _found)
    app.add_api_route("/items/{item_id}/parts/{part:path}", _found)
    app.include_router(_nested("/{user_id}"))
    app.include_router(_nested("/{user_id}/twice"), prefix="/again")
    below = FastAPI()
    below.add_api_route("/things/{thing_id}", _found)
    below.include_router(_nested("/{user_id}"))
    deeper = Starlette(routes=[Route("/end/{x}", _page)])
    below.mount("/deeper", deeper)
    app.mount("/tenants/{tenant}", below)
    app.mount("/shared/a", shared := Starlette(routes=[Route("/{x}", _page)]))
    app.mount("/shared/b/{b}", shared)
    app.mount("/wrapped", _Wrapped(Starlette(routes=[Route("/{x}", _page)])))
    mounting = APIRouter()
    mounting.mount("/within", Starlette(routes=[Route("/{x}", _page)]))
    app.include_router(mounting, prefix="/included")
    app.mount("/files", StaticFiles(directory=files))
    app.mount("/plain", Starlette(routes=[Mount("/in", routes=[Route("/{x}", _page)])]))
    app.router.routes.append(Host("other.test", app=Router([Route("/hosted/{x}", _page)])))
    return app


def _ask(app: FastAPI, method: str, path: str, host: str = "test") -> tuple[int, str]:
    """Status and template as an outermost layer sees them after the app ran."""
    seen: list[Scope] = []

    async def outer(
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        seen.append(scope)
        await app(scope, receive, send)

    async def ask() -> int:
        transport = httpx2.ASGITransport(app=outer)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return (await client.request(method, path)).status_code

    status = asyncio.run(ask())
    once, again = route_template(app, seen[0]), _finder(app).find(seen[0])
    assert once == again
    return status, again


_finders: dict[int, RouteFinder] = {}


def _finder(app: FastAPI) -> RouteFinder:
    """One for all requests of an app, as the middleware has it: what it found before must not mislead it."""
    return _finders.setdefault(id(app), RouteFinder(app))


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/items/7", "/items/{item_id}"),
        ("/items/7/parts/a/b/c", "/items/{item_id}/parts/{part}"),
        ("/api/v1/users/7", "/api/v1/users/{user_id}"),
        ("/api/v1/page/x", "/api/v1/page/{name}"),
        ("/again/api/v1/users/7/twice", "/again/api/v1/users/{user_id}/twice"),
        ("/tenants/acme/things/7", "/tenants/{tenant}/things/{thing_id}"),
        ("/tenants/acme/api/v1/users/7", "/tenants/{tenant}/api/v1/users/{user_id}"),
        ("/tenants/acme/deeper/end/7", "/tenants/{tenant}/deeper/end/{x}"),
        ("/files/a.txt", "/files/{path}"),
        ("/plain/in/7", "/plain/in/{x}"),
        ("/openapi.json", "/openapi.json"),
        ("/shared/a/7", "/shared/a/{x}"),
        ("/shared/b/c/7", "/shared/b/{b}/{x}"),
        ("/wrapped/7", "/wrapped/{x}"),
        ("/included/within/7", "/included/within/{x}"),
    ],
)
def test_the_template_is_whole_however_the_route_was_declared(
    app: FastAPI, path: str, template: str
) -> None:
    assert _ask(app, "GET", path) == (200, template)


def test_a_route_under_a_host_has_its_template(app: FastAPI) -> None:
    assert _ask(app, "GET", "/hosted/7", host="other.test") == (200, "/hosted/{x}")


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/items/7", "/items/{item_id}"),
        ("/api/v1/users/7", "/api/v1/users/{user_id}"),
        ("/tenants/acme/things/7", "/tenants/{tenant}/things/{thing_id}"),
    ],
)
def test_a_method_that_is_not_allowed_keeps_the_route(
    app: FastAPI, path: str, template: str
) -> None:
    assert _ask(app, "DELETE", path) == (405, template)


@pytest.mark.parametrize(
    "path", ["/", "/wp-login.php", "/items", "/api/v1/users/", "/items/7/nope"]
)
def test_what_no_route_answers_is_unmatched(app: FastAPI, path: str) -> None:
    assert _ask(app, "GET", path) == (404, "unmatched")


def test_what_no_route_under_a_mount_answers_has_the_mounts_template(app: FastAPI) -> None:
    assert _ask(app, "GET", "/tenants/acme/nope") == (404, "/tenants/{tenant}/{path}")


def test_a_redirect_of_a_trailing_slash_never_shows_the_path(app: FastAPI) -> None:
    assert _ask(app, "GET", "/items/7/") == (307, "unmatched")


def test_fastapi_still_tells_the_route_of_an_included_router_where_we_read_it(
    app: FastAPI,
) -> None:
    """The quick way reads a key that FastAPI does not document: when it moves, this test says so."""
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/users/7",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(_serve_quietly(app, scope))
    assert scope["fastapi"]["effective_route_context"].path_format == "/api/v1/users/{user_id}"
    assert scope["route"].path_format == "/users/{user_id}"


def test_without_that_key_the_walk_over_the_routes_gives_the_same_answer(app: FastAPI) -> None:
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/users/7",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(_serve_quietly(app, scope))
    del scope["fastapi"]["effective_route_context"]
    assert route_template(app, scope) == "/api/v1/users/{user_id}"


@pytest.mark.parametrize(
    "path",
    [
        "/items/7",
        "/api/v1/users/7",
        "/api/v1/users/page/x",
        "/tenants/acme/things/7",
        "/tenants/acme/nope",
        "/tenants/acme/deeper/end/7",
        "/files/a.txt",
        "/shared/b/c/7",
        "/openapi.json",
        "/wp-login.php",
    ],
)
def test_the_routes_are_never_walked_for_a_request(
    app: FastAPI, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise AssertionError("the routes were walked")

    monkeypatch.setattr("taskscope.routing.table.walk", planted)
    finder = RouteFinder(app)
    for _ in range(3):
        scope = _scope(path)
        asyncio.run(_serve_quietly(app, scope))
        assert finder.find(scope).startswith(("/", "unmatched"))


def test_a_route_that_is_added_later_is_found() -> None:
    app = FastAPI()
    below = FastAPI()
    app.mount("/below/{b}", below)
    finder = RouteFinder(app)
    below.add_api_route("/first", _found)
    first = _scope("/below/x/first")
    asyncio.run(_serve_quietly(app, first))
    assert finder.find(first) == "/below/{b}/first"

    async def later() -> str:
        return "later"

    below.add_api_route("/later/{y}", later)
    second = _scope("/below/x/later/7")
    asyncio.run(_serve_quietly(app, second))
    assert finder.find(second) == "/below/{b}/later/{y}"


def test_the_table_is_read_anew_for_so_many_unknown_endpoints_at_most() -> None:
    app = FastAPI()
    table = RoutingTable(app)
    read: list[None] = []
    table._app = _Counting(app, read)
    for _ in range(MOST_UNKNOWN + 50):
        scope = {**_scope("/anything"), "endpoint": object(), "app_root_path": ""}
        assert table.find(scope, None) is None
    assert len(read) <= 2 * MOST_UNKNOWN + 50


class _Counting:
    """An application that notes how often its routes are read."""

    def __init__(self, app: FastAPI, read: list[None]) -> None:
        self._app = app
        self._read = read

    @property
    def routes(self) -> list[Any]:
        self._read.append(None)
        return list(self._app.routes)


def test_the_keys_that_are_private_to_fastapi_are_the_ones_it_uses() -> None:
    """FastAPI may rename them in any release: then this fails, and the table serves meanwhile."""
    from fastapi import routing

    assert route_module.FASTAPI == routing._FASTAPI_SCOPE_KEY
    assert route_module.CONTEXT == routing._FASTAPI_EFFECTIVE_ROUTE_CONTEXT_KEY
    assert route_module._INCLUDED == routing._FASTAPI_INCLUDED_ROUTER_KEY


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }


async def _serve_quietly(app: FastAPI, scope: Scope) -> None:
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        del message

    await app(scope, receive, send)
