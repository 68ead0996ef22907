"""What the server of these tests lacks: lifecycles of streams that exist, and index lifecycle management.

In front of the real server stands one that answers these two itself, as a full one does, and passes on all else.
"""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from elasticsearch import Elasticsearch

from taskscope.testing.engines import HOST
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.prepare import plan, prepare
from taskscope_exporters.logs.streams import StreamSettings
from taskscope_exporters.logs.template import log_template

from .conftest import ADMIN, Secured

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


class Full(ThreadingHTTPServer):
    """retentions: of each stream, as `_lifecycle` has them. policies: of index lifecycle management."""

    daemon_threads = True

    def __init__(self, secured: Secured) -> None:
        super().__init__((HOST, 0), _Handler)
        self.secured = secured
        self.context = ssl.create_default_context(cafile=str(secured.authority.certificate))
        self.retentions: dict[str, str] = {}
        self.policies: dict[str, dict[str, Any]] = {}

    def lifecycle(self, stream: str, body: Any) -> tuple[int, object]:
        if stream not in self.retentions:
            return 404, {"error": {"type": "index_not_found_exception"}, "status": 404}
        if body is not None:
            self.retentions[stream] = body["data_retention"]
            return 200, {"acknowledged": True}
        kept = {"enabled": True, "data_retention": self.retentions[stream]}
        return 200, {"data_streams": [{"name": stream, "lifecycle": kept}]}

    def policy(self, name: str, body: Any) -> tuple[int, object]:
        if body is not None:
            self.policies[name] = body["policy"]
            return 200, {"acknowledged": True}
        if name not in self.policies:
            return 404, {"error": {"type": "resource_not_found_exception"}, "status": 404}
        policy = json.loads(json.dumps(self.policies[name]))
        policy["phases"]["hot"]["min_age"] = "0ms"  # a full server adds this
        policy["phases"]["delete"]["actions"]["delete"]["delete_searchable_snapshot"] = True
        return 200, {name: {"version": 1, "policy": policy, "in_use_by": {}}}


class _Handler(BaseHTTPRequestHandler):
    server: Full

    def do_GET(self) -> None:
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(text) if text and self.command == "PUT" else None
        if words[0] == "_data_stream" and words[-1] == "_lifecycle":
            self._answer(*self.server.lifecycle(words[1], body))
        elif words[:2] == ["_ilm", "policy"]:
            self._answer(*self.server.policy(words[2], body))
        else:
            self._answer(*self._passed_on(text))

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 # http.server's own names

    def _passed_on(self, text: bytes) -> tuple[int, object]:
        request = urllib.request.Request(
            self.server.secured.url + self.path, data=text or None, method=self.command
        )
        for name in ("content-type", "accept", "authorization"):
            if name in self.headers:
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, context=self.server.context) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the signature is given
        pass


@pytest.fixture
def full(secured: Secured) -> Iterator[Full]:
    with Full(secured) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.fixture
def client(full: Full) -> Iterator[Elasticsearch]:
    with Elasticsearch(
        f"http://{HOST}:{full.server_address[1]}", basic_auth=(ADMIN.name, ADMIN.password)
    ) as made:
        yield made


def test_a_stream_that_exists_keeps_its_lines_as_long_as_is_asked_now(
    full: Full, client: Elasticsearch
) -> None:
    full.retentions = {"logs-aged-local": "30d", "logs-aged.audit-local": "400d"}
    template = log_template("aged", StreamSettings(retention="7d"))
    assert plan(client, template, "local")[-3:] == (
        "stream logs-aged-local",
        "  - retention: 30d",
        "  + retention: 7d",
    )
    assert full.retentions["logs-aged-local"] == "30d"
    done = prepare(client, template, "local")
    assert done.changed[-1] == "stream logs-aged-local keeps a line for 7d, not for 30d"
    assert full.retentions == {"logs-aged-local": "7d", "logs-aged.audit-local": "400d"}
    again = prepare(client, template, "local")
    assert (again.changed, again.notes) == ((), ())


def test_a_policy_is_put_once_whatever_a_full_server_adds_to_it(
    full: Full, client: Elasticsearch
) -> None:
    # The server behind refuses an index template that names a policy: it does not know that setting.
    policies = replace(log_template("managed", StreamSettings(ilm=True)), indices=())
    assert install(client, policies) == (
        "lifecycle policy logs-managed@lifecycle was put",
        "lifecycle policy logs-managed.audit@lifecycle was put",
        "component template logs-managed@fields was put",
    )
    assert full.policies["logs-managed@lifecycle"]["phases"]["delete"]["min_age"] == "30d"
    assert install(client, policies) == ()
    sooner = StreamSettings(ilm=True, retention="7d")
    shorter = replace(log_template("managed", sooner), indices=())
    assert install(client, shorter) == ("lifecycle policy logs-managed@lifecycle was replaced",)


def test_a_server_without_lifecycle_management_is_told_apart(secured: Secured) -> None:
    with (
        secured.client() as client,
        pytest.raises(Trouble, match="has no index lifecycle management; leave out --ilm"),
    ):
        install(client, log_template("unmanaged", StreamSettings(ilm=True)))
