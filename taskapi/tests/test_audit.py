"""What the API leaves in its audit trail: who came, who was refused, what is gone; never a name or a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskscope.audit import Audited, load_audit_key, read_heads, verify
from taskscope.logs.looking import newest_first

from .conftest import PASSWORD, ApiMaker

pytestmark = pytest.mark.anyio

LOGIN, REFRESH = "/api/v1/auth/login", "/api/v1/auth/refresh"


def lines(folder: Path) -> list[Audited]:
    found = [
        Audited(id=seen.id, document=msgspec.json.decode(seen.raw))
        for seen in newest_first(folder, since=0)
    ]
    return sorted(found, key=lambda line: int(str(line.document["audit.sequence"])))


async def test_the_trail_tells_who_did_what_and_holds(make_api: ApiMaker, tmp_path: Path) -> None:
    async with make_api() as api:
        await api.register("ann")
        tokens = await api.login("ann")
        for name in ("ann", "nobody"):
            wrong = {"username": name, "password": "wrong password"}
            assert (await api.http.post(LOGIN, json=wrong)).status_code == 401
        ann = {"Authorization": f"Bearer {tokens['access_token']}"}
        made = await api.http.post("/api/v1/tasks", json={"title": "one"}, headers=ann)
        task = made.json()["data"]["id"]
        assert (await api.http.delete(f"/api/v1/tasks/{task}", headers=ann)).status_code == 204
        for status in (200, 401):
            given = {"refresh_token": tokens["refresh_token"]}
            assert (await api.http.post(REFRESH, json=given)).status_code == status
    folder = tmp_path / "spool" / "audit"
    found = lines(folder)
    told: list[Any] = [
        (line.document["event.action"], line.document["event.outcome"]) for line in found[1:-1]
    ]
    assert told == [
        ("user.registered", "success"),
        ("user.login", "success"),
        ("user.login", "failure"),
        ("user.login", "failure"),
        ("task.deleted", "success"),
        ("session.revoked", "success"),
    ]
    registered, login, refused, unknown, deleted, revoked = (line.document for line in found[1:-1])
    known = {each["user.hash"] for each in (registered, login, refused, deleted, revoked)}
    assert len(known) == 1
    assert unknown["user.hash"] not in known
    assert refused["event.reason"] == "bad_credentials"
    assert deleted["labels"] == {"target": task}
    assert login["client.address"] == "127.0.0.1"
    raw = b"".join(seen.raw for seen in newest_first(folder, since=0))
    for secret in (PASSWORD, "wrong password", "nobody", "ann@example.com"):
        assert secret.encode() not in raw
    assert verify(found, [load_audit_key(folder)], heads=read_heads(folder)).intact
