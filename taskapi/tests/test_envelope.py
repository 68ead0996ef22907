"""The one shape of answers, and entity tags."""

from __future__ import annotations

import json

import pytest

from taskscope_taskapi.envelope import answer, entity_tag, failure, named_in, named_request
from taskscope_taskapi.schemas import Health, Page


def test_a_success_bears_data_and_no_error() -> None:
    body = json.loads(bytes(answer(Health(status="ok")).body))
    assert (body["success"], body["data"]["status"], body["error"]) == (True, "ok", None)


def test_a_failure_bears_an_error_and_no_data() -> None:
    body = json.loads(bytes(failure(404, "Nothing here.").body))
    assert (body["success"], body["data"]) == (False, None)
    assert body["error"] == {"code": "not_found", "message": "Nothing here.", "details": []}


def test_a_part_of_a_list_says_where_it_lies() -> None:
    page = Page(limit=2, offset=4, total=9)
    body = json.loads(bytes(answer([Health(status="ok")], page=page).body))
    assert body["meta"]["pagination"] == {"limit": 2, "offset": 4, "total": 9}


def test_one_request_has_one_id() -> None:
    with named_request() as own:
        ids = {json.loads(bytes(failure(400, "no").body))["meta"]["request_id"] for _ in range(3)}
    assert ids == {own}


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_a_header_names_a_tag(header: str | None, named: bool) -> None:
    assert named_in(header, '"a"') is named


def test_a_tag_differs_when_a_part_does() -> None:
    tags = {entity_tag(1, 2), entity_tag(12), entity_tag(1, 3), entity_tag(Health(status="ok"))}
    assert len(tags) == 4
