"""What Grafana reads at its start fits the boards, and holds no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from taskscope.catalogue.links import board_uid
from taskscope_dashboards.board import Source
from taskscope_taskapi.catalogue import CATALOGUE

PROVISIONING = Path(__file__).parents[1] / "deploy" / "provisioning"


def sources() -> dict[str, dict[str, Any]]:
    text = (PROVISIONING / "datasources" / "taskscope.yml").read_text("utf-8")
    return {source["type"]: source for source in yaml.safe_load(text)["datasources"]}


def test_the_sources_have_the_uids_that_the_boards_default_to() -> None:
    assert {kind: source["uid"] for kind, source in sources().items()} == {
        source.value: source.value for source in Source
    }


def test_addresses_and_the_password_come_from_the_environment() -> None:
    found = sources()

    assert found["prometheus"]["url"] == "${PROMETHEUS_URL}"
    assert found["elasticsearch"]["url"] == "${ELASTICSEARCH_URL}"
    assert found["elasticsearch"]["secureJsonData"] == {
        "basicAuthPassword": "$ELASTICSEARCH_READER_PASSWORD"
    }


def test_a_trace_leads_to_the_lines_on_the_requests_board() -> None:
    (exemplar,) = sources()["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]

    assert exemplar["name"] == "trace_id"
    assert exemplar["url"].startswith(f"/d/{board_uid(CATALOGUE.service, 'requests')}?")


def test_boards_changed_by_hand_are_not_kept() -> None:
    text = (PROVISIONING / "dashboards" / "taskscope.yml").read_text("utf-8")
    (provider,) = yaml.safe_load(text)["providers"]

    assert provider["allowUiUpdates"] is False
    assert provider["options"]["path"] == "/etc/taskscope/dashboards"
