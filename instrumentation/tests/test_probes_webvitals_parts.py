"""The parts of the beacon: what a report is, how many come in, and the templates of pages."""

from __future__ import annotations

import json
from contextlib import suppress
from math import isfinite
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taskscope.probes.pages import Pages, templates_of
from taskscope.probes.webvitals_limit import MAX_CLIENTS, Limit
from taskscope.probes.webvitals_report import MAX_ERRORS, MAX_SECONDS, MAX_SHIFT, Refused, read

NAMES = st.sampled_from(["LCP", "INP", "FCP", "TTFB", "CLS", "errors"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(width=64) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
REASONS = ("syntax", "name", "value")


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


def let_in(limit: Limit, *clients: str) -> list[bool]:
    return [limit.take(client) for client in clients]


def test_twenty_seconds_worth_may_come_at_once_and_then_as_many_as_time_allows() -> None:
    clock = Clock()
    limit = Limit(per_second=1_000, per_client=0.1, clock=clock)

    assert let_in(limit, "10.0.0.1", "10.0.0.1", "10.0.0.1") == [True, True, False]
    clock.at += 9
    assert let_in(limit, "10.0.0.1") == [False]
    clock.at += 2
    assert let_in(limit, "10.0.0.1", "10.0.0.1") == [True, False]
    clock.at += 10_000
    assert let_in(limit, "10.0.0.1", "10.0.0.1", "10.0.0.1") == [True, True, False]


def test_a_clock_that_goes_back_lets_nobody_in_and_locks_nobody_out() -> None:
    clock = Clock()
    limit = Limit(per_second=1_000, per_client=0.1, clock=clock)
    let_in(limit, "10.0.0.1", "10.0.0.1")
    clock.at -= 500

    assert let_in(limit, "10.0.0.1") == [False]
    clock.at += 11
    assert let_in(limit, "10.0.0.1") == [True]


def test_all_clients_together_have_a_limit_that_one_over_its_own_takes_nothing_from() -> None:
    limit = Limit(per_second=0.2, per_client=0.1, clock=Clock())

    assert let_in(limit, *["10.0.0.1"] * 50).count(True) == 2
    assert let_in(limit, "10.0.0.2", "10.0.0.3", "10.0.0.4") == [True, True, False]


def test_clients_without_an_address_share_the_limit_of_all() -> None:
    limit = Limit(per_second=0.2, per_client=0.1, clock=Clock())

    assert let_in(limit, *[""] * 10).count(True) == 4


def test_an_ipv6_network_is_one_client_and_a_mapped_address_is_its_own() -> None:
    limit = Limit(per_second=1_000, per_client=0.05, clock=Clock())

    assert let_in(limit, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1") == [True, False, True]
    assert let_in(limit, "::ffff:10.0.0.1", "::ffff:10.0.0.2") == [True, True]


def test_a_hundred_thousand_addresses_take_no_more_memory_than_a_thousand() -> None:
    limit = Limit(per_second=1e9, per_client=1, clock=Clock())

    for number in range(100_000):
        limit.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    limit.take("x" * 100_000)

    assert len(limit._clients) == MAX_CLIENTS
    assert max(map(len, limit._clients)) <= 64


@pytest.mark.parametrize(
    ("page", "template"),
    [
        ("/", "/"),
        ("/tasks/7", "/tasks/{task_id}"),
        ("/tasks/7/", "/tasks/{task_id}"),
        ("/tasks/new", "/tasks/new"),
        ("/tasks/{task_id}", "/tasks/{task_id}"),
        ("/tasks/7?token=secret#top", "/tasks/{task_id}"),
        ("/tasks/7/comments", "/tasks/{task_id}/comments"),
        ("/tasks/new/comments", "/tasks/{task_id}/comments"),
        ("/files/a/b/c", "/files/{path}"),
        ("/files/latest", "/files/latest"),
        ("/report-7.pdf", "/report-{number}.pdf"),
        ("/report-.pdf", None),
        ("/tasks", None),
        ("/tasks/7/comments/9", None),
        ("tasks/7", None),
        ("", None),
        ("https://shop.example/tasks/7", None),
        ("/" * 4_000, None),
    ],
)
def test_a_page_has_the_template_that_it_follows(page: str, template: str | None) -> None:
    pages = Pages(
        [
            "/",
            "/tasks/{task_id:int}",
            "/tasks/new",
            "/tasks/{task_id:int}/comments",
            "/files/{path:path}",
            "/files/latest",
            "/report-{number}.pdf",
        ]
    )

    assert pages(page) == template


def test_a_long_path_costs_no_more_than_the_templates_are_deep() -> None:
    pages = Pages([f"/{{a}}/{{b}}/{{c}}/{{d}}/x{number}" for number in range(1_000)])

    assert pages("/" + "a/" * 2_000) is None


def test_the_templates_of_an_app_are_those_of_its_routers_and_mounts_too(tmp_path: Any) -> None:
    app, inner, outer = FastAPI(), APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @app.get("/tasks/{task_id}")
    @inner.get("/{key}")
    def answer() -> None: ...

    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    below = Starlette(routes=[Route("/page/{name}", lambda _: None)])
    app.mount("/sub/{tenant}", below)
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.router.routes.append(Mount("/empty", routes=[]))

    pages = Pages(templates_of(app))

    assert pages("/tasks/7") == "/tasks/{task_id}"
    assert pages("/api/outer/inner/7") == "/api/outer/inner/{key}"
    assert pages("/sub/a/page/b") == "/sub/{tenant}/page/{name}"
    assert pages("/static/a/b.css") == "/static/{path}"
    assert pages("/docs") == "/docs"
    assert pages("/nowhere") is None


@given(st.binary(max_size=200) | JSON.map(lambda found: json.dumps(found).encode()))
def test_whatever_is_sent_is_a_report_or_is_refused_for_a_declared_reason(body: bytes) -> None:
    reason = ""
    try:
        read(body)
    except Refused as refused:
        reason = refused.reason

    assert reason in {"", *REASONS}


@given(st.dictionaries(NAMES, st.floats(width=64) | st.integers()), st.text())
def test_no_number_in_a_report_is_beyond_its_bounds(numbers: dict[str, float], page: str) -> None:
    with suppress(Refused):
        report = read(json.dumps({**numbers, "route": page}).encode())
        assert report.page == page
        assert all(0 <= seconds <= MAX_SECONDS for _, seconds in report.durations)
        assert report.shift is None or (isfinite(report.shift) and 0 <= report.shift <= MAX_SHIFT)
        assert 0 <= report.errors <= MAX_ERRORS


@given(st.text() | st.lists(st.text("abc/{}:?#.", max_size=4)).map("/".join))
def test_what_is_looked_up_is_one_of_the_templates_or_nothing(page: str) -> None:
    templates = ["/", "/a", "/a/{b}", "/a/{b}/c", "/{a}/b", "/c/{rest}"]

    assert Pages([*templates[:-1], "/c/{rest:path}"])(page) in {None, *templates}
