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
