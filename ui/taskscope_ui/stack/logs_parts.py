"""What keeps the logs: Elasticsearch, fetched at the first start, its templates, the shipper and the collector."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from taskscope.testing.engines.elasticsearch import ADMIN, READER, SHIPPER, EsUser
from taskscope.testing.engines.spec import HOST, HttpReady, LogReady, Missing, Spec, free_port
from taskscope_ui.stack.credentials import Credentials
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Absent, Part
from taskscope_ui.stack.service_parts import absent, python

__all__ = ["ADMIN_USER", "READER_USER", "SHIPPER_USER", "client", "plan"]

ADMIN_USER: Final = "admin"
SHIPPER_USER: Final = "shipper"
READER_USER: Final = "reader"

_JOB: Final = "taskapi-shipper"
_COUNTED_JOB: Final = "taskapi-collector"
_FETCH_S: Final = 1_800.0
_WHAT: Final = "logs, searchable"


def plan(
    options: UpOptions,
    layout: Layout,
    ports: Mapping[str, int],
    credentials: Credentials,
    engines: Engines,
) -> tuple[Part | Absent, ...]:
    """Elasticsearch with the shipper; without it the lines stay in the spool on disk."""
    if "elasticsearch" in options.without:
        return (Absent(name="elasticsearch", what=_WHAT, why="left out; lines stay in the spool"),)
    try:
        fetch = engines.must_fetch()
    except Missing as missing:
        lacking = absent("elasticsearch", _WHAT, missing)
        return (replace(lacking, why=f"{lacking.why}; lines stay in the spool"),)
    parts = [_elasticsearch(layout, ports, credentials, engines, fetched=fetch)]
    if fetch:
        parts.insert(0, _fetch(layout))
    return (*parts, _setup(layout, ports), _shipper(layout, ports), _collector(layout, ports))


def _fetch(layout: Layout) -> Part:
    spec = Spec(
        name="fetch",
        argv=(sys.executable, "-m", "taskscope_ui.stack.fetch"),
        cwd=layout.data,
        env=dict(os.environ),  # Maven's settings, its cache and the proxy are the user's own
        ports=(),
        ready=LogReady(text=""),
        start_timeout_s=_FETCH_S,
    )
    what = "fetches Elasticsearch, once"
    return Part(name="fetch", spec=lambda: spec, what=what, step=True, background=True)


def _elasticsearch(
    layout: Layout,
    ports: Mapping[str, int],
    credentials: Credentials,
    engines: Engines,
    *,
    fetched: bool,
) -> Part:
    port = ports["elasticsearch"]
    users = (
        EsUser(name=ADMIN_USER, password=credentials.elasticsearch_admin, role=ADMIN),
        EsUser(name=SHIPPER_USER, password=credentials.elasticsearch_shipper, role=SHIPPER),
        EsUser(name=READER_USER, password=credentials.elasticsearch_reader, role=READER),
    )

    def spec() -> (
        Spec
    ):  # described when its turn comes: until it was fetched there is nothing to describe
        return engines.elasticsearch(
            layout.folder / "elasticsearch", port=port, transport_port=free_port(), users=users
        )

    return Part(
        name="elasticsearch",
        spec=spec,
        what=_WHAT,
        address=f"http://{HOST}:{port}",
        port=port,
        needs=("fetch",) if fetched else (),
        background=True,
    )


def _setup(layout: Layout, ports: Mapping[str, int]) -> Part:
    spec = python(
        "logs-setup",
        layout.data,
        ("-m", "taskscope_ui", "logs", "setup"),
        ready=LogReady(text=""),
        env=client(layout, ports, ADMIN_USER),
    )
    return Part(
        name="logs-setup",
        spec=lambda: spec,
        what="templates of the log streams",
        needs=("elasticsearch",),
        step=True,
        background=True,
    )


def _shipper(layout: Layout, ports: Mapping[str, int]) -> Part:
    port = ports["shipper"]
    spec = python(
        "shipper",
        layout.data,
        ("-m", "taskscope_ui", "ship", "--port", str(port)),
        port=port,
        ready=HttpReady(url=f"http://{HOST}:{port}/metrics"),
        env={**client(layout, ports, SHIPPER_USER), "TASKSCOPE_SPOOL": str(layout.spool)},
    )
    return Part(
        name="shipper",
        spec=lambda: spec,
        what="moves log lines into Elasticsearch",
        address=f"http://{HOST}:{port}",
        door=False,
        port=port,
        needs=("logs-setup",),
        background=True,
        scraped={_JOB: f"{HOST}:{port}"},
    )


def _collector(layout: Layout, ports: Mapping[str, int]) -> Part:
    port = ports["collector"]
    spec = python(
        "collector",
        layout.data,
        ("-m", "taskscope_ui", "collect-logs", "--port", str(port)),
        port=port,
        ready=HttpReady(url=f"http://{HOST}:{port}/metrics"),
        env={
            **client(layout, ports, READER_USER),
            "COLLECTOR_FOLDER": str(layout.folder / "collector"),
        },
    )
    return Part(
        name="collector",
        spec=lambda: spec,
        what="counts the lines in Elasticsearch",
        address=f"http://{HOST}:{port}",
        door=False,
        port=port,
        needs=("logs-setup",),
        background=True,
        scraped={_COUNTED_JOB: f"{HOST}:{port}"},
    )


def client(layout: Layout, ports: Mapping[str, int], user: str) -> dict[str, str]:
    """The environment by which a client finds Elasticsearch and logs in as `user`."""
    return {
        "ELASTICSEARCH_URL": f"http://{HOST}:{ports['elasticsearch']}",
        "ELASTICSEARCH_USERNAME": user,
        "ELASTICSEARCH_PASSWORD_FILE": str(layout.secrets / f"elasticsearch_{user}"),
    }
