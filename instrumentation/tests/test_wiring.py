"""`instrument`: the one call, its parts and their ends."""

from __future__ import annotations

import asyncio
import logging.config
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool
from uvicorn.config import LOGGING_CONFIG

from taskscope import (
    Catalogue,
    Kind,
    Label,
    Metric,
    Settings,
    Telemetry,
    get_logger,
    instrument,
)
from taskscope.catalogue.builtin import BUILD, DB_CONNECTIONS_MAX, LOG_LINES, REQUEST_DURATION
from taskscope.errors import InstrumentError, MetricError, SettingsError
from taskscope.testing.logs import Line, read_lines
from taskscope.testing.metrics import moved, value
from taskscope.testing.server import serving

PAID = Metric(
    name="shop.orders.paid",
    kind=Kind.COUNTER,
    unit="{order}",
    help="Orders that were paid.",
    owner="shop",
    labels=(Label("method", values=("card", "cash")),),
)
SHOP = Catalogue(service="shop", metrics=(PAID,))


def service(lifespan: Any = None) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/pay/{order}")
    async def pay(order: int) -> int:
        app.state.telemetry.counter(PAID).inc(method="card")
        get_logger("shop").info("order paid", order=order)
        return order

    @app.get("/std/{number}")
    async def said(number: int) -> None:
        logging.getLogger("shop").warning("said")
        get_logger("shop").info("noted", number=number)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    return app


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(spool=tmp_path / "spool")


def shop(app: FastAPI, settings: Settings, **options: Any) -> Telemetry:
    chosen = {"catalogue": SHOP, "settings": settings, **options}
    return instrument(app, service_name="shop", service_version="2.1", **chosen)


def ask(app: FastAPI, path: str) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(request())


def lines(settings: Settings, message: str) -> list[Line]:
    return [line for line in read_lines(settings.spool) if line["message"] == message]


@pytest.mark.parametrize(("metrics", "logs", "tracing"), list(product((True, False), repeat=3)))
def test_each_part_can_be_switched_off(
    settings: Settings, metrics: bool, logs: bool, tracing: bool
) -> None:
    app = service()
    telemetry = shop(app, settings, metrics=metrics, logs=logs, tracing=tracing)
    answers = [ask(app, "/pay/7").text, ask(app, "/metrics").status_code]
    telemetry.close()
    assert answers == ["7", 200 if metrics else 404]
    assert value(telemetry.registry, REQUEST_DURATION) == metrics
    assert settings.spool.exists() == logs
    assert (telemetry.tracing is not None) == tracing
    assert value(telemetry.registry, PAID) == 1


def test_a_business_counter_is_one_line_to_use(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings, logs=False)
    with moved(telemetry.registry, PAID, by=1, method="card"):
        ask(app, "/pay/7")


def test_the_telemetry_is_in_the_apps_state(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings, logs=False)
    assert app.state.telemetry is telemetry
    assert telemetry.catalogue is SHOP


def test_without_a_catalogue_the_librarys_own_metrics_are_there() -> None:
    telemetry = instrument(
        service(), service_name="bare", service_version="1", logs=False, settings=Settings()
    )
    assert value(telemetry.registry, BUILD, service_version="1") == 1
    with pytest.raises(MetricError, match="catalogue of bare does not declare it"):
        telemetry.counter(PAID)


def test_instrumenting_twice_is_instrumenting_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = service()
    first = shop(app, settings, logs=False)
    assert shop(app, settings, logs=False) is first
    assert [r for r in caplog.records if r.name == "taskscope.wiring"] == []
    again = instrument(app, service_name="other", service_version="1", settings=settings)
    assert again is first
    (said,) = [r.getMessage() for r in caplog.records if r.name == "taskscope.wiring"]
    assert "this app is instrumented already, as" in said
    with TestClient(app) as client:
        client.get("/livez-none")
    assert value(first.registry, REQUEST_DURATION) == 1


def test_instrumenting_an_app_that_has_started_is_an_error(settings: Settings) -> None:
    app = service()
    ask(app, "/pay/7")
    with pytest.raises(InstrumentError, match="has started already; call it before"):
        shop(app, settings, logs=False)


def test_two_names_for_one_service_are_an_error(settings: Settings) -> None:
    with pytest.raises(InstrumentError, match="'other' and the catalogue is of 'shop'"):
        instrument(
            service(),
            service_name="other",
            service_version="1",
            catalogue=SHOP,
            settings=settings,
        )


def test_settings_are_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKSCOPE_SPOOL", str(tmp_path / "there"))
    monkeypatch.setenv("TASKSCOPE_METRICS_PATH", "/m")
    app = service()
    telemetry = instrument(app, service_name="shop", service_version="1", catalogue=SHOP)
    ask(app, "/pay/7")
    telemetry.close()
    assert ask(app, "/m").status_code == 200
    assert read_lines(tmp_path / "there") != []


def test_a_wrong_environment_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASKSCOPE_LOG_LEVEL", "LOUD")
    app = service()
    with pytest.raises(SettingsError, match="LOUD"):
        instrument(app, service_name="shop", service_version="1")
    assert ask(app, "/boom").status_code == 500


def test_a_call_that_fails_leaves_logging_as_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("taskscope.tracing.Tracing", broken)
    before = list(logging.getLogger().handlers)
    with pytest.raises(RuntimeError, match="planted"):
        shop(service(), settings)
    assert logging.getLogger().handlers == before


def test_two_apps_in_one_process_have_their_own_series(settings: Settings) -> None:
    one, other = service(), service()
    first = shop(one, settings, logs=False)
    second = shop(other, settings, logs=False)
    ask(one, "/pay/7")
    assert (value(first.registry, PAID), value(second.registry, PAID)) == (1, 0)


def test_lines_of_two_apps_bear_their_own_service_and_arrive_once(settings: Settings) -> None:
    apps = {name: service() for name in ("shop", "depot")}
    closing = [
        instrument(
            app,
            service_name=name,
            service_version="1",
            catalogue=Catalogue(service=name, metrics=(PAID,)),
            settings=settings,
        )
        for name, app in apps.items()
    ]
    for app in apps.values():
        ask(app, "/std/7")
    closing.pop().close()
    ask(apps["shop"], "/std/8")
    closing.pop().close()
    found = lines(settings, "said") + lines(settings, "noted")
    assert sorted((line["service.name"], line["message"]) for line in found) == [
        ("depot", "noted"),
        ("depot", "said"),
        ("shop", "noted"),
        ("shop", "noted"),
        ("shop", "said"),
        ("shop", "said"),
    ]


# --- logs and traces together


def test_the_handlers_line_and_the_access_line_share_request_and_trace(
    settings: Settings,
) -> None:
    app = service()
    telemetry = shop(app, settings)
    response = ask(app, "/pay/7")
    telemetry.close()
    paid, served = lines(settings, "order paid") + lines(settings, "request served")
    assert paid["trace.id"] == served["trace.id"]
    assert paid["span.id"] == served["span.id"]
    assert paid["http.request.id"] == served["http.request.id"]
    assert served["http.request.id"] == response.headers["x-request-id"]
    assert served["http.route"] == paid["http.route"] == "/pay/{order}"
    assert served["http.response.status_code"] == 200
    assert served["event.duration"] > 0


def test_without_tracing_the_lines_still_share_the_request(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings, tracing=False)
    ask(app, "/pay/7")
    telemetry.close()
    paid, served = lines(settings, "order paid") + lines(settings, "request served")
    assert paid["http.request.id"] == served["http.request.id"]
    assert "trace.id" not in served


def test_a_server_error_leaves_its_exception_in_the_access_line(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings)
    ask(app, "/boom")
    telemetry.close()
    (served,) = lines(settings, "request served")
    assert served["log.level"] == "error"
    assert served["error.type"].endswith("RuntimeError")


def test_the_access_line_can_be_switched_off_alone(settings: Settings, tmp_path: Path) -> None:
    app = service()
    telemetry = shop(app, Settings(spool=settings.spool, access_log=False))
    ask(app, "/pay/7")
    telemetry.close()
    assert lines(settings, "request served") == []
    assert len(lines(settings, "order paid")) == 1


def test_lines_are_counted_by_level(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings)
    with moved(telemetry.registry, LOG_LINES, by=1, log_level="warning"):
        get_logger("shop").warning("stock low")
    telemetry.close()


# --- start and end


def test_the_services_own_lifespan_runs_and_keeps_its_state(settings: Settings) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("start")
        yield {"pool": "ready"}
        seen.append("stop")

    app = service(lifespan)
    shop(app, settings)
    with TestClient(app) as client:
        client.get("/pay/7")
        seen.append(client.app_state["pool"])
    assert seen == ["start", "ready", "stop"]


def test_the_end_of_the_lifespan_closes_the_telemetry(settings: Settings) -> None:
    app = service()
    shop(app, settings)
    with serving(app) as url:
        httpx2.get(f"{url}/pay/7")
    before = len(read_lines(settings.spool))
    logging.getLogger("shop").error("after the end")
    assert len(read_lines(settings.spool)) == before > 0


def test_a_lifespan_that_fails_still_closes_the_telemetry(settings: Settings) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    app = service(lifespan)
    shop(app, settings)
    with pytest.raises(RuntimeError, match="no database"), TestClient(app):
        pass
    logging.getLogger("shop").error("after the end")
    assert lines(settings, "after the end") == []
    (failed,) = lines(settings, "the service's lifespan failed")
    assert failed["error.message"] == "no database"


def test_lines_reach_the_spool_although_the_server_sets_up_logging_later(
    settings: Settings,
) -> None:
    app = service()
    shop(app, settings)
    logging.config.dictConfig(LOGGING_CONFIG)
    with TestClient(app):
        logging.getLogger("uvicorn.error").error("from the server")
    assert len(lines(settings, "from the server")) == 1


def test_an_app_that_starts_again_logs_again(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = service()
    shop(app, settings)
    for order in (1, 2):
        with TestClient(app) as client:
            client.get(f"/pay/{order}")
    assert [line["labels"]["order"] for line in lines(settings, "order paid")] == [1, 2]
    assert "dropped" not in capsys.readouterr().err


def test_closing_twice_is_closing_once(settings: Settings) -> None:
    telemetry = shop(service(), settings)
    telemetry.close()
    telemetry.close()
    assert ask(FastAPI(), "/").status_code == 404


def test_requests_are_served_after_the_close(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings)
    telemetry.close()
    assert ask(app, "/pay/7").text == "7"


def test_a_watched_pool_is_in_the_exposition(settings: Settings) -> None:
    app = service()
    telemetry = shop(app, settings, logs=False)
    telemetry.watch_database(
        create_engine("sqlite://", poolclass=QueuePool, pool_size=5, max_overflow=15)
    )
    assert value(telemetry.registry, DB_CONNECTIONS_MAX) == 20
    assert "db_client_connection_max 20.0" in ask(app, "/metrics").text
