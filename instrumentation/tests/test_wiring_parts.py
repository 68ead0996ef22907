"""What `instrument` hands to its parts: the store's faults, the lines' counters, the users' key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from taskscope import Settings, Telemetry, get_logger, instrument, set_user
from taskscope.catalogue.builtin import LIBRARY_ERRORS, LOG_LINES
from taskscope.multiprocess import WorkerFolder, WorkerStore
from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import value
from taskscope.testing.server import serving


def shop(settings: Settings, **options: Any) -> tuple[FastAPI, Telemetry]:
    app = FastAPI()
    telemetry = instrument(
        app, service_name="shop", service_version="1", settings=settings, **options
    )

    @app.get("/me")
    async def me() -> None:
        set_user("ada")
        get_logger("shop").info("asked")

    return app, telemetry


def test_a_fault_of_the_workers_store_is_counted_also_that_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: WorkerFolder) -> None:
        raise OSError("planted")

    monkeypatch.setattr(WorkerFolder, "fold", fail)
    _, telemetry = shop(Settings(multiprocess_dir=tmp_path), logs=False)
    store = telemetry.instruments.store
    assert isinstance(store, WorkerStore)
    assert value(telemetry.registry, LIBRARY_ERRORS, component="multiprocess") == 1
    store.failed("multiprocess", OSError("later"))
    assert value(telemetry.registry, LIBRARY_ERRORS, component="multiprocess") == 2
    telemetry.close()
    store.close()


def test_every_level_is_counted_from_the_start(tmp_path: Path) -> None:
    _, telemetry = shop(Settings(spool=tmp_path / "spool"))
    text = telemetry.metrics().decode()
    for level in LOG_LINES.labels[0].values:
        assert f'{LOG_LINES.series}{{{LOG_LINES.label_names[0]}="{level}"}} 0.0' in text
    telemetry.close()


def _hashes(spool: Path, key: bytes | None) -> set[object]:
    app, _ = shop(Settings(spool=spool, user_key=key))
    with serving(app) as url:
        httpx2.get(f"{url}/me")
    return {line["user.hash"] for line in read_lines(spool) if line["message"] == "asked"}


def test_hosts_with_one_key_have_one_hash_of_a_user(tmp_path: Path) -> None:
    key = bytes(range(32))
    here, there, alone = (
        _hashes(tmp_path / "here", key),
        _hashes(tmp_path / "there", key),
        _hashes(tmp_path / "alone", None),
    )
    assert len(here) == 1
    assert here == there != alone
    assert not (tmp_path / "here" / "user.key").exists()
