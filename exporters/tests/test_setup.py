"""`logs setup` on a real Elasticsearch: what it puts, what it leaves alone, and that the mapping cannot explode."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from taskscope.catalogue import Catalogue
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.deadletters import FILE_NAME
from taskscope_exporters.logs.install import ensure, install
from taskscope_exporters.logs.prepare import plan, prepare
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.streams import StreamSettings
from taskscope_exporters.logs.template import VERSION, log_template

from .conftest import Secured

until = partial(waiting.until, within_s=30, every_s=0.2)
pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]
LINE: Mapping[str, object] = {"@timestamp": "2026-01-01T00:00:00Z", "message": "m"}


@pytest.fixture
def client(secured: Secured) -> Iterator[Elasticsearch]:
    with secured.client() as made:
        yield made


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


def test_to_set_up_twice_changes_nothing_the_second_time(client: Elasticsearch) -> None:
    template = log_template("twice")
    assert prepare(client, template, "local").changed == (
        "component template logs-twice@fields was put",
        "index template logs-twice was put",
        "index template logs-twice.audit was put",
    )
    assert prepare(client, template, "local").changed == ()
    assert plan(client, template, "local") == ()


def test_a_plan_tells_each_leaf_that_changes_and_changes_nothing(client: Elasticsearch) -> None:
    install(client, log_template("planned"))
    other = log_template("planned", StreamSettings(retention="7d", shards=2))
    expected = (
        "index template logs-planned",
        "  - template.lifecycle.data_retention: 30d",
        "  + template.lifecycle.data_retention: 7d",
        "  - template.settings.index.number_of_shards: 1",
        "  + template.settings.index.number_of_shards: 2",
        "index template logs-planned.audit",
        "  - template.settings.index.number_of_shards: 1",
        "  + template.settings.index.number_of_shards: 2",
    )
    assert plan(client, other, "local") == expected
    assert plan(client, other, "local") == expected


def test_a_template_changed_by_hand_is_put_back(client: Elasticsearch) -> None:
    template = log_template("bent")
    install(client, template)
    part = template.indices[0]
    body = json.loads(json.dumps(part.body))
    body["template"]["lifecycle"]["data_retention"] = "1h"
    client.indices.put_index_template(name=part.name, body=body)
    assert install(client, template) == ("index template logs-bent was replaced",)


def test_an_older_version_is_replaced_and_says_so(client: Elasticsearch) -> None:
    client.indices.put_index_template(
        name="logs-elder",
        body={
            "index_patterns": ["logs-elder-*"],
            "data_stream": {},
            "priority": 205,
            "_meta": {"managed_by": "taskscope", "digest": "0" * 16},
        },
    )
    assert ensure(client, log_template("elder"))[1] == (
        f"index template logs-elder was replaced (version 1 by {VERSION})"
    )


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({}, "is there and not taskscope's; rename or delete it"),
        (
            {"managed_by": "taskscope", "service": "other"},
            "belongs to the service other; give this one another name",
        ),
        (
            {"managed_by": "taskscope", "version": VERSION + 1},
            f"was put by a younger taskscope .version {VERSION + 1}.*update this one",
        ),
    ],
)
def test_what_is_anothers_is_left_as_it_is(
    client: Elasticsearch, meta: dict[str, object], said: str
) -> None:
    body = {"index_patterns": ["logs-foreign-*"], "data_stream": {}, "priority": 7, "_meta": meta}
    client.indices.put_index_template(name="logs-foreign", body=body)
    with pytest.raises(Trouble, match=said):
        install(client, log_template("foreign"))
    (found,) = client.indices.get_index_template(name="logs-foreign")["index_templates"]
    assert found["index_template"]["priority"] == 7


def test_a_shipper_takes_back_no_setting_and_no_younger_version(client: Elasticsearch) -> None:
    asked = log_template("settled", StreamSettings(retention="7d"))
    install(client, asked)
    part = asked.component
    younger = {"managed_by": "taskscope", "service": "settled", "version": VERSION + 1}
    client.cluster.put_component_template(name=part.name, body={**part.body, "_meta": younger})
    assert ensure(client, log_template("settled")) == ()
    (found,) = client.indices.get_index_template(name="logs-settled")["index_templates"]
    assert found["index_template"]["template"]["lifecycle"]["data_retention"] == "7d"


def test_a_template_that_outranks_ours_is_named(client: Elasticsearch) -> None:
    body = {"index_patterns": ["logs-outranked-l*"], "data_stream": {}, "priority": 9_000}
    client.indices.put_index_template(name="somebody", body=body)
    try:
        with pytest.raises(
            Trouble, match=r"another index template outranks logs-outranked .*logs-outranked-local"
        ):
            prepare(client, log_template("outranked"), "local")
    finally:
        client.indices.delete_index_template(name="somebody")


def test_settings_reach_the_stream_and_a_changed_one_its_next_backing_index(
    client: Elasticsearch,
) -> None:
    streams = StreamSettings(retention="7d", audit_retention="800d", replicas=0, shards=2)
    prepare(client, log_template("kept", streams), "local")
    for name, days in (("logs-kept", "7d"), ("logs-kept.audit", "800d")):
        found = client.indices.simulate_index_template(name=f"{name}-local")["template"]
        assert found["lifecycle"]["data_retention"] == days
        client.bulk(index=f"{name}-local", operations=[{"create": {}}, LINE])
    shards = {
        index: found["settings"]["index"]["number_of_shards"]
        for index, found in client.indices.get_settings(index="logs-kept-local").items()
    }
    assert list(shards.values()) == ["2"]
    wider = log_template("kept", StreamSettings(replicas=0, shards=1))
    done = prepare(client, wider, "local", rollover=True)
    assert "stream logs-kept-local begins a new backing index with its next line" in done.changed
    client.bulk(index="logs-kept-local", operations=[{"create": {}}, LINE])
    assert len(client.indices.get_settings(index="logs-kept-local")) == 2


def test_five_thousand_unknown_fields_lose_no_line_and_grow_no_mapping(
    secured: Secured, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 20)
    for n in range(250):
        strange = {f"top_{n}_{i}": {"deep": i, "er": [{"x": "y"}]} for i in range(10)}
        labels = {f"own_{n}_{i}": i if i % 2 else {"in": str(i)} for i in range(10)}
        line = {**LINE, "event.dataset": "wild", "labels": {**labels, "n": n}, **strange}
        spool.write(json.dumps(line).encode() + b"\n")
    with shipping(secured.settings(spool.folder), "wild"):
        until(lambda: secured.count("logs-wild-local") == 250)
    spool.close()
    assert not (spool.folder / FILE_NAME).exists()
    with secured.client() as client:
        mapping = client.indices.get_mapping(index="logs-wild-local").body
        fields = client.field_caps(index="logs-wild-local", fields="*").body["fields"]
        found = client.count(index="logs-wild-local", query={"term": {"labels.own_7_1": "1"}})
    assert "top_" not in json.dumps(mapping)
    assert not [name for name in fields if "own_" in name or "top_" in name]
    assert found["count"] == 1


def test_even_a_custom_template_that_maps_everything_stops_at_its_limit_and_loses_no_line(
    client: Elasticsearch, secured: Secured, tmp_path: Path
) -> None:
    client.cluster.put_component_template(
        name="logs-open@custom", template={"mappings": {"dynamic": True}}
    )
    spool = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 20)
    for n in range(100):
        spool.write(json.dumps({**LINE, **{f"top_{n}_{i}": i for i in range(50)}}).encode() + b"\n")
    with shipping(secured.settings(spool.folder), "open"):
        until(lambda: secured.count("logs-open-local") == 100)
    spool.close()
    (mapping,) = client.indices.get_mapping(index="logs-open-local").values()
    assert 100 < len(json.dumps(mapping).split('"type"')) <= 501
