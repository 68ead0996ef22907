"""What the page about logs shows of the audit trail is run, and what `logs verify` prints is what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from taskscope.audit import BreakKind
from taskscope.logs.looking import newest_first
from taskscope.settings import Settings
from taskscope_ui.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "logs.md"
SECTION = PAGE.read_text().partition("\n## The audit trail\n")[2].partition("\n## ")[0]
INTACT, BROKEN = re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL)
FOLDER = Path(".taskscope/spool/audit")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example, in whose trail a failure, a login and a change of role are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for name in ("ELASTICSEARCH_URL", "TASKSCOPE_SPOOL", "TASKSCOPE_AUDIT_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, PAGE.name, "exec"), namespace)
    with TestClient(namespace["app"]) as client:
        assert client.post("/login/ann?password=123").status_code == 401
        assert client.post("/login/ann?password=open sesame").json() == "welcome"
        assert client.put("/users/bob/role/admin").json() == "admin"
    return namespace


def test_the_example_leaves_an_intact_trail_of_five_lines(
    shop: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(capsys) == (0, alike(INTACT))


def test_each_break_is_a_line_as_the_page_shows_it(
    shop: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = FOLDER.glob("*.seg")
    lines = segment.read_bytes().splitlines(keepends=True)
    assert b'"event.action":"user.login"' in lines[2]
    segment.write_bytes(b"".join([*lines[:2], lines[3].replace(b"admin", b"nobod"), lines[4]]))
    code, printed = verified(capsys)
    assert (code, printed.splitlines()[1:]) == (1, alike(BROKEN).splitlines())


def test_where_no_trace_can_be_left_nobody_becomes_an_admin(
    shop: dict[str, Any], tmp_path: Path
) -> None:
    audit = shop["audit"]
    audit.close()
    with TestClient(shop["app"]) as client:
        audit.close()
        assert client.put("/users/bob/role/admin").status_code == 503


def test_secrets_and_names_are_not_in_the_trail(shop: dict[str, Any]) -> None:
    raw = b"".join(seen.raw for seen in newest_first(FOLDER, since=0))
    assert b"sesame" not in raw
    assert b'"ann"' not in raw


def test_the_page_names_every_break_and_the_bounds() -> None:
    assert {f"`{kind.value}`" for kind in BreakKind} <= set(re.findall(r"`[a-z ]+`", SECTION))
    assert f"{Settings().audit_max_bytes // 2**20} MiB" in SECTION


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main(["logs", "verify"])
    out, err = capsys.readouterr()
    return ended.value.code or 0, alike(err + out)


def alike(text: str) -> str:
    """The text without what differs from one run to the next."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "CHAIN", text)
    text = re.sub(r"\b[0-9a-f]{12}-[0-9a-f]{16}-[0-9a-f]{6}-[0-9a-f]+\b", "ID", text)
    return re.sub(r" +", " ", text)
