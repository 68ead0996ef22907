"""What the templates say, as values: which fields, which streams, how long, and that settings reach them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from taskscope.errors import SettingsError
from taskscope.logs.fields import FIELDS
from taskscope_exporters.logs.streams import StreamSettings
from taskscope_exporters.logs.template import (
    audit_spool,
    log_template,
    stream_name,
    stream_patterns,
)


def plain(body: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(body))
    return found


def test_the_index_maps_exactly_the_fields_of_a_line_and_nothing_grows() -> None:
    found = plain(log_template("shop").component.body)["template"]["mappings"]
    assert found["dynamic"] is False
    assert set(found["properties"]) == set(FIELDS)
    assert found["properties"]["labels"]["type"] == "flattened"
    assert found["properties"]["trace.id"]["type"] == "keyword"


def test_a_longer_service_name_wins_over_its_beginning() -> None:
    longer, shorter = (
        plain(log_template(name).indices[0].body)["priority"] for name in ("task-api", "task")
    )
    assert longer > shorter > 100


def test_a_changed_setting_has_another_digest() -> None:
    bodies = [
        plain(log_template("shop", StreamSettings(retention=kept)).indices[0].body)
        for kept in ("30d", "7d")
    ]
    assert bodies[0]["_meta"]["digest"] != bodies[1]["_meta"]["digest"]


def test_audit_lines_go_to_a_stream_of_their_own_that_no_other_pattern_takes() -> None:
    assert stream_name("shop", "live") == "logs-shop-live"
    assert stream_name("shop", "live", audit=True) == "logs-shop.audit-live"
    assert stream_patterns("shop") == "logs-shop-*"
    assert not stream_name("shop", "live", audit=True).startswith(stream_patterns("shop")[:-1])
    assert audit_spool(Path("spool")) == Path("spool/audit")


def test_audit_lines_are_kept_longer() -> None:
    lines, audit = (plain(part.body) for part in log_template("shop").indices)
    assert lines["template"]["lifecycle"] == {"data_retention": "30d"}
    assert audit["template"]["lifecycle"] == {"data_retention": "400d"}
    assert audit["index_patterns"] == ["logs-shop.audit-*"]


def test_one_copy_waits_for_a_second_node_unless_a_number_was_asked_for() -> None:
    settings = plain(log_template("shop").indices[0].body)["template"]["settings"]["index"]
    assert settings["auto_expand_replicas"] == "0-1"
    asked = StreamSettings(replicas=2, shards=3)
    settings = plain(log_template("shop", asked).indices[0].body)["template"]["settings"]["index"]
    assert (settings["number_of_replicas"], settings["number_of_shards"]) == (2, 3)
    assert "auto_expand_replicas" not in settings


def test_with_ilm_a_policy_deletes_and_the_streams_own_lifecycle_is_not_asked() -> None:
    found = log_template("shop", StreamSettings(ilm=True, retention="7d"))
    policy, index = plain(found.policies[0].body), plain(found.indices[0].body)["template"]
    assert policy["phases"]["delete"]["min_age"] == "7d"
    assert "rollover" in policy["phases"]["hot"]["actions"]
    assert index["settings"]["index"]["lifecycle"] == {"name": found.policies[0].name}
    assert "lifecycle" not in index
    assert set(found.document()["lifecycle_policies"]) == {  # type: ignore[call-overload] # a mapping
        "logs-shop@lifecycle",
        "logs-shop.audit@lifecycle",
    }


def test_settings_are_read_from_the_environment() -> None:
    assert StreamSettings.from_environ({}) == StreamSettings()
    assert StreamSettings.from_environ(
        {
            "ELASTICSEARCH_RETENTION": "7d",
            "ELASTICSEARCH_AUDIT_RETENTION": "700d",
            "ELASTICSEARCH_REPLICAS": "0",
            "ELASTICSEARCH_SHARDS": "2",
            "ELASTICSEARCH_ILM": "true",
        }
    ) == StreamSettings(retention="7d", audit_retention="700d", replicas=0, shards=2, ilm=True)


def test_every_wrong_setting_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        StreamSettings.from_environ(
            {
                "ELASTICSEARCH_RETENTION": "a month",
                "ELASTICSEARCH_AUDIT_RETENTION": "0d",
                "ELASTICSEARCH_REPLICAS": "11",
                "ELASTICSEARCH_SHARDS": "-1",
                "ELASTICSEARCH_ILM": "perhaps",
            }
        )
    said = str(caught.value)
    for part in (
        "ELASTICSEARCH_RETENTION='a month' is no time; write it as 30d or 12h",
        "ELASTICSEARCH_AUDIT_RETENTION='0d'",
        "ELASTICSEARCH_REPLICAS=11 is out of bounds; take 0 to 10",
        "ELASTICSEARCH_SHARDS='-1' is no number",
        "ELASTICSEARCH_ILM='perhaps' cannot be read; write true or false",
    ):
        assert part in said
