"""From a call to `info` to a document in a real Elasticsearch: all of it arrives, once, whoever dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from elasticsearch import Elasticsearch
from opentelemetry.sdk.trace import TracerProvider

from taskscope.catalogue import Catalogue
from taskscope.logs import configure, get_logger
from taskscope.logs.spool import Spool
from taskscope.settings import Settings
from taskscope.testing import waiting
from taskscope.testing.engines import (
    Running,
    distribution,
    jdk,
)
from taskscope.testing.engines import elasticsearch as es
from taskscope_exporters.logs.deadletters import FILE_NAME
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.template import log_template

until = partial(waiting.until, within_s=60)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Node(Protocol):
    """What the fixture of this name is, as far as these tests use it."""

    url: str
    server: Running
    users: Mapping[str, es.EsUser]

    def again(self) -> None: ...
    def settings(self, spool: Path, user: str = "admin", **more: object) -> ShipSettings: ...
    def client(self) -> Elasticsearch: ...
    def documents(self, stream: str) -> list[dict[str, object]]: ...
    def count(self, stream: str) -> int: ...


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16)
    yield made
    made.close()


@contextmanager
def shipping(config: ShipSettings, service: str) -> Iterator[list[str]]:
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=run,
        args=(config,),
        kwargs={
            "catalogue": Catalogue(service=service),
            "stop": stop,
            "port": None,
            "say": said.append,
        },
    )
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(15)
        assert not thread.is_alive()


def line(n: int, **more: object) -> bytes:
    document = {"@timestamp": "2026-01-01T00:00:00.000000Z", "message": "m", "labels": {"n": n}}
    return json.dumps(document | more).encode() + b"\n"


def numbers(documents: Sequence[Mapping[str, object]]) -> list[int]:
    found = [document["labels"] for document in documents]
    return sorted(int(labels["n"]) for labels in found if isinstance(labels, dict))


def test_what_was_logged_is_found_by_its_trace_id(node: Node, tmp_path: Path) -> None:
    pipeline = configure(
        settings=Settings(spool=tmp_path / "spool"),
        service_name="traced",
        service_version="1",
        on_line=lambda _: None,
        on_drop=lambda *_: None,
        on_error=lambda _: None,
    )
    log = get_logger("app")
    with TracerProvider().get_tracer("t").start_as_current_span("work") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        log.info(
            "task created", task_id=7, nested={"a.b": {"c": 1}}, **{"": 1, "..": 2, "a\x00b": 3}
        )
        log.error(
            "failed", exc_info=ValueError("x" * 100_000), note="é" * 50_000, **{"trace.id": "no"}
        )
    log.info("outside")
    pipeline.close()
    with shipping(node.settings(pipeline.spool.folder), "traced"):
        until(lambda: node.count("logs-traced-local") == 3)
    assert not (pipeline.spool.folder / FILE_NAME).exists()
    with node.client() as client:
        found = client.search(
            index="logs-traced-*",
            query={
                "bool": {
                    "filter": [{"term": {"trace.id": trace_id}}, {"term": {"labels.task_id": "7"}}]
                }
            },
        )
    (hit,) = found["hits"]["hits"]
    assert hit["_source"]["message"] == "task created"
    with node.client() as client:
        assert (
            client.count(index="logs-traced-*", query={"term": {"trace.id": trace_id}})["count"]
            == 2
        )


def test_keys_of_a_user_add_no_field_to_the_index(node: Node, spool: Spool) -> None:
    for n in range(50):
        spool.write(line(n, **{f"planted_{n}": n}))
    with shipping(node.settings(spool.folder), "narrow"):
        until(lambda: node.count("logs-narrow-local") == 50)
    with node.client() as client:
        mapping = client.indices.get_mapping(index="logs-narrow-local").body
    assert "planted" not in json.dumps(mapping)


def test_all_lines_arrive_once_though_the_server_is_killed(node: Node, spool: Spool) -> None:
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not done.wait(0.01):
            spool.write(line(len(written)))
            written.append(len(written))

    writer = threading.Thread(target=write)
    writer.start()
    with shipping(node.settings(spool.folder), "killed") as said:
        until(lambda: node.count("logs-killed-local") > 200)
        node.server.kill()
        until(lambda: any("cannot be reached" in sentence for sentence in said))
        node.again()
        before = len(written)
        until(lambda: len(written) > before + 100)
        done.set()
        writer.join()
        until(lambda: node.count("logs-killed-local") >= len(written))
    assert numbers(node.documents("logs-killed-local")) == written
    assert sum("takes lines again" in sentence for sentence in said) == 1


def test_a_shipper_killed_at_any_moment_sends_nothing_twice(node: Node, spool: Spool) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from taskscope.catalogue import Catalogue\n"
        "from taskscope_exporters.logs.run import run\n"
        "from taskscope_exporters.logs.settings import Secret, ShipSettings\n"
        "run(ShipSettings(spool=Path(sys.argv[1]), url=sys.argv[2], username='admin', batch_lines=50, pause_s=0.01,\n"
        "    password=Secret(text=sys.argv[3])), catalogue=Catalogue(service='torn'), stop=threading.Event(),\n"
        "    port=None)\n"
    )
    for n in range(2000):
        spool.write(line(n))
    words = [sys.executable, "-c", code, str(spool.folder), node.url, node.users["admin"].password]
    for least in (1, 600):
        shipper = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        until(lambda least=least: node.count("logs-torn-local") >= least)  # type: ignore[misc] # bound at once
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
    with shipping(node.settings(spool.folder), "torn"):
        until(lambda: node.count("logs-torn-local") >= 2000)
    assert numbers(node.documents("logs-torn-local")) == list(range(2000))


def test_a_wrong_password_pauses_and_a_corrected_one_resumes(
    node: Node, spool: Spool, tmp_path: Path
) -> None:
    with node.client() as client:
        install(client, log_template("locked"))
    file = tmp_path / "password"
    file.write_text("wrong")
    for n in range(100):
        spool.write(line(n))
    config = node.settings(spool.folder, "shipper", password=Secret(file=file))
    with shipping(config, "locked") as said:
        until(lambda: any("does not know this login (401)" in sentence for sentence in said))
        assert node.count("logs-locked-local") == 0
        file.write_text(node.users["shipper"].password)
        until(lambda: node.count("logs-locked-local") == 100)
    assert sum("(401)" in sentence for sentence in said) == 1
    assert not (spool.folder / FILE_NAME).exists()


def test_a_login_that_may_only_write_waits_for_the_template(node: Node, spool: Spool) -> None:
    for n in range(100):
        spool.write(line(n))
    with shipping(node.settings(spool.folder, "shipper"), "bare") as said:
        until(lambda: any("has no template for the data stream" in sentence for sentence in said))
        with node.client() as client:
            install(client, log_template("bare"))
        until(lambda: node.count("logs-bare-local") == 100)
    assert not (spool.folder / FILE_NAME).exists()


def test_a_line_the_server_can_never_take_is_a_dead_letter_and_the_rest_ships(
    node: Node, spool: Spool
) -> None:
    for n in range(100):
        spool.write(line(n) if n != 42 else line(n, **{"@timestamp": "yesterday"}))
    spool.write(b'{"@timestamp":"2026-01-01T00:00:00Z","trace.id":{"not":"a keyword"}}\n')
    spool.write(b'{"@timestamp":"2026-01-01T00:00:00Z",broken}\n')
    with shipping(node.settings(spool.folder), "strict"):
        until(lambda: node.count("logs-strict-local") == 99)
        until(lambda: (spool.folder / FILE_NAME).exists())
    letters = [json.loads(text) for text in (spool.folder / FILE_NAME).read_text().splitlines()]
    assert len(letters) == 3
    assert all("exception" in letter["error"]["type"] for letter in letters)
    assert numbers(node.documents("logs-strict-local")) == [n for n in range(100) if n != 42]


def test_a_cluster_with_no_room_for_an_index_loses_no_line(node: Node, spool: Spool) -> None:
    for n in range(100):
        spool.write(line(n))
    with node.client() as client:
        client.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    try:
        with shipping(node.settings(spool.folder), "crowded") as said:
            until(lambda: any("cannot write to the data stream" in sentence for sentence in said))
            with node.client() as client:
                client.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
            until(lambda: node.count("logs-crowded-local") == 100)
    finally:
        with node.client() as client:
            client.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    assert not (spool.folder / FILE_NAME).exists()


def _other_lines() -> list[jdk.Jdk | None]:
    """A JDK for each server line that is here beside the default one; None, the default, if there is no other."""
    default = jdk.find()
    homes = Path("/usr/lib/jvm").glob("*") if default else []
    found = {
        distribution.version_for(java): java for home in sorted(homes) if (java := jdk.read(home))
    }
    cache = distribution.default_cache()
    others = [
        java
        for version, java in found.items()
        if default
        and version != distribution.version_for(default)
        and distribution.home_of(cache, version).is_dir()
    ]
    return [*others] or [default]


@pytest.mark.parametrize(
    "java", _other_lines(), ids=lambda java: f"jdk{java.major}" if java else "none"
)
def test_the_other_line_of_servers_takes_the_same_template_and_lines(
    another_node: Callable[..., Node], tmp_path: Path, spool: Spool, java: jdk.Jdk | None
) -> None:
    other = another_node(tmp_path / "elasticsearch", java)
    try:
        for n in range(100):
            spool.write(line(n, **{"trace.id": TRACE}))
        with shipping(other.settings(spool.folder), "elder"):
            until(lambda: other.count("logs-elder-local") == 100)
        with other.client() as client:
            found = client.count(index="logs-elder-local", query={"term": {"trace.id": TRACE}})
        assert found["count"] == 100
    finally:
        other.server.stop()
