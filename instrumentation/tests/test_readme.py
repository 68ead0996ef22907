"""The README's example is run as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskscope.testing.logs import read_lines
from taskscope.testing.metrics import moved

README = Path(__file__).parents[1] / "README.md"


def test_the_example_counts_an_order_and_logs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKSCOPE_SPOOL", str(tmp_path / "spool"))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    example: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(README), "exec"), example)

    async def pay() -> int:
        transport = httpx2.ASGITransport(app=example["app"])
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/orders/7/pay")).status_code

    telemetry = example["telemetry"]
    with moved(telemetry.registry, example["ORDERS_PAID"], by=1, method="card"):
        assert asyncio.run(pay()) == 200
    telemetry.close()
    assert "order paid" in [line["message"] for line in read_lines(tmp_path / "spool")]


def test_the_projects_own_example_is_whole_and_counts_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKSCOPE_SPOOL", str(tmp_path / "spool"))
    text = (README.parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    example: dict[str, Any] = {"__name__": "shop"}
    exec(compile(code, "README.md", "exec"), example)
    app = example["create_app"]()

    async def order() -> int:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/orders")).status_code

    telemetry = app.state.telemetry
    with moved(telemetry.registry, example["ORDERS"], by=1, payment="card"):
        assert asyncio.run(order()) == 200
    telemetry.close()
