"""The generated files follow from the catalogue alone, and Prometheus takes its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taskscope.catalogue import Catalogue, Target
from taskscope.logs.fields import FIELDS
from taskscope_exporters.logs.template import log_template
from taskscope_exporters.prometheus import prometheus_config
from taskscope_exporters.render import render
from taskscope_taskapi import CATALOGUE

FOLDER = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(render(CATALOGUE)))
def test_the_committed_file_is_what_the_catalogue_gives(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == render(CATALOGUE)[name]


def test_every_target_of_the_catalogue_is_a_job() -> None:
    catalogue = Catalogue(service="shop", targets=(Target(name="worker", job="shop-worker"),))
    config = yaml.safe_load(render(catalogue)["generated/prometheus.yml"])
    assert [job["job_name"] for job in config["scrape_configs"]] == [
        "shop-worker",
        "shop",
        "shop-shipper",
        "prometheus",
        "alertmanager",
    ]
    assert config == prometheus_config(catalogue)


def test_no_address_stands_in_the_configuration() -> None:
    assert "127.0.0.1" not in render(CATALOGUE)["generated/prometheus.yml"]


@pytest.mark.engine
def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "apt-get install prometheus"
    (tmp_path / "prometheus.yml").write_text(render(CATALOGUE)["generated/prometheus.yml"])
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_index_maps_exactly_the_fields_of_a_line_and_nothing_grows() -> None:
    found = json.loads(json.dumps(log_template("shop").component))["template"]["mappings"]
    assert found["dynamic"] is False
    assert set(found["properties"]) == set(FIELDS)
    assert found["properties"]["labels"]["type"] == "flattened"
    assert found["properties"]["trace.id"]["type"] == "keyword"


def test_a_longer_service_name_wins_over_its_beginning() -> None:
    assert log_template("task-api").index["priority"] > log_template("task").index["priority"] > 100  # type: ignore[operator] # both are numbers


def test_a_changed_template_has_another_digest() -> None:
    assert log_template("shop").index != log_template("shop", retention="7d").index
    assert (
        log_template("shop").index["_meta"] != log_template("shop", retention="7d").index["_meta"]
    )
