"""The generated files follow from the catalogue alone, and Prometheus takes its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taskscope.catalogue import Catalogue, Target
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
        "shop-collector",
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
