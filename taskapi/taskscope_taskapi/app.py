"""The application: its parts are put together here, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

import taskscope
from taskscope_taskapi import catalogue
from taskscope_taskapi.database import Database, DatabaseUnavailable
from taskscope_taskapi.envelope import Envelope
from taskscope_taskapi.handlers import answer_problems
from taskscope_taskapi.limits import Limiter
from taskscope_taskapi.open_tasks import keep_counting
from taskscope_taskapi.receiving import BodyGuard
from taskscope_taskapi.responding import Bugs, Cors, Heads, SafeHeaders
from taskscope_taskapi.routers import auth, probes, tasks, users
from taskscope_taskapi.secret import signing_key
from taskscope_taskapi.security import Passwords, TokenMaker
from taskscope_taskapi.service import Business, Service
from taskscope_taskapi.settings import Settings

__all__ = ["create_app"]

_PREFIX = "/api/v1"
_TOLD = ["ETag", "Location", "Retry-After", "X-Request-ID"]


def create_app(
    settings: Settings | None = None, *, telemetry: taskscope.Settings | None = None
) -> FastAPI:
    """An application that is ready to be served; the environment decides what is not given.

    Raises SettingsError when the settings, the state folder or the key file are not as they must be.
    """
    settings = settings or Settings.from_environ()
    database = Database(settings)
    app = FastAPI(
        title="Task API",
        version=version("taskscope"),
        lifespan=_lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{_PREFIX}/openapi.json" if settings.docs else None,
    )
    _add_routes(app, settings)
    _add_middleware(app, settings)
    watch = taskscope.instrument(
        app,
        service_name=catalogue.CATALOGUE.service,
        service_version=app.version,
        catalogue=catalogue.CATALOGUE,
        settings=telemetry,
    )
    watch.watch_database(database.engine)
    app.state.service = _service(settings, database, watch)
    return app


def _service(settings: Settings, database: Database, watch: taskscope.Telemetry) -> Service:
    return Service(
        settings=settings,
        database=database,
        tokens=TokenMaker(settings, signing_key(settings)),
        passwords=Passwords(wait_s=settings.hash_wait_s),
        clients=Limiter(limit=settings.rate_limit, window_s=settings.rate_window_s),
        accounts=Limiter(limit=settings.login_limit, window_s=settings.rate_window_s),
        business=Business(
            tasks_created=watch.counter(catalogue.TASKS_CREATED),
            tasks_completed=watch.counter(catalogue.TASKS_COMPLETED),
            tasks_deleted=watch.counter(catalogue.TASKS_DELETED),
            tasks_open=watch.gauge(catalogue.TASKS_OPEN),
            users_registered=watch.counter(catalogue.USERS_REGISTERED),
            logins=watch.counter(catalogue.LOGINS),
        ),
        audit=watch.audit,
    )


def _add_routes(app: FastAPI, settings: Settings) -> None:
    api = APIRouter(prefix=_PREFIX)
    for router in (auth.router, users.router, tasks.router):
        api.include_router(router)
    dependencies = []
    if settings.faults:
        from taskscope_taskapi.faults import act

        dependencies.append(Depends(act))
    app.include_router(api, dependencies=dependencies, responses=_refusals())
    app.include_router(probes.router)
    answer_problems(app)


def _refusals() -> dict[int | str, dict[str, object]]:
    """What any path may answer, for the description of the API; FastAPI's own 422 has another shape."""
    return {
        status: {"model": Envelope[None], "description": HTTPStatus(status).phrase}
        for status in (400, 401, 404, 408, 409, 412, 413, 422, 429, 500, 503)
    }


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """From the inside out: each one added stands around those before it; `instrument` comes last."""
    app.add_middleware(Bugs)
    app.add_middleware(BodyGuard, most_bytes=settings.body_bytes, deadline_s=settings.body_s)
    app.add_middleware(GZipMiddleware, minimum_size=512, compresslevel=5)
    if settings.cors_origins:
        app.add_middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match"],
            expose_headers=_TOLD,
            max_age=600,
        )
    app.add_middleware(Heads)
    app.add_middleware(SafeHeaders, trusted=settings.trusted_proxies)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    database, settings = service.database, service.settings
    try:
        await _make_schema(app, database)
        counting = asyncio.create_task(
            keep_counting(database, service.business.tasks_open, every_s=settings.open_tasks_s)
        )
        try:
            yield
        finally:
            counting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await counting
    finally:
        service.passwords.close()
        await database.close()


async def _make_schema(app: FastAPI, database: Database) -> None:
    try:
        await database.create_schema()
    except DatabaseUnavailable as error:
        # Read by `python -m taskscope_taskapi`: uvicorn itself says no more than that the start failed.
        app.state.refusal = (
            f"TASKAPI_DATABASE_URL: {database.place} does not answer ({error}); "
            "start the database, or correct the address"
        )
        raise
