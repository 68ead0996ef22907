"""What the README shows is so: its code runs, its commands exist, its pictures and folders are there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_developers_example_runs_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKSCOPE_SPOOL", str(tmp_path / "spool"))
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    example: dict[str, Any] = {"__name__": "shop"}
    exec(compile(code, "README.md", "exec"), example)
    app = example["create_app"]()

    async def visit() -> str:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            assert (await client.post("/orders")).status_code == 200
            return (await client.get("/metrics")).text

    seen = asyncio.run(visit())
    app.state.telemetry.close()
    assert 'shop_orders_total{payment="card"} 1.0' in seen
    assert 'http_route="/orders"' in seen


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"(?:`|bin/)taskscope ([a-z]+)", README)))
)
def test_a_command_that_is_named_exists(command: str) -> None:
    words = [sys.executable, "-m", "taskscope_ui", command, "--help"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+)", README))))
def test_a_target_of_make_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_is_linked_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 120
