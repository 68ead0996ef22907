"""How the page is set up from the environment."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope_ui import serve
from taskscope_ui.page_settings import PageSettings

CONFIG = Path(__file__).parents[1] / "deploy/.streamlit/config.toml"


def test_an_empty_environment_shows_the_task_api_of_this_machine() -> None:
    assert PageSettings.from_environ({}) == PageSettings(
        prometheus_url="http://127.0.0.1:9090", app="taskscope_taskapi", capacity_rps=1000.0
    )


def test_settings_survive_the_way_through_an_environment() -> None:
    settings = PageSettings(prometheus_url="https://p.example", app="shop:C", capacity_rps=12.5)
    assert PageSettings.from_environ(settings.environ()) == settings


@pytest.mark.parametrize("text", ["fast", "-1", "0", "inf", "nan"])
def test_a_capacity_that_is_none_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(SettingsError, match=r"PAGE_CAPACITY_RPS.*write how many requests"):
        PageSettings.from_environ({"PAGE_CAPACITY_RPS": text})


@pytest.mark.parametrize("url", ["9090", "ftp://x", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(SettingsError, match=r"PROMETHEUS_URL.*write it as http"):
        PageSettings.from_environ({"PROMETHEUS_URL": url})


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"PROMETHEUS_URL.*; PAGE_CAPACITY_RPS"):
        PageSettings(prometheus_url="nowhere", capacity_rps=0)


def test_a_password_in_a_wrong_address_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        PageSettings(prometheus_url="postgres://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_the_container_and_the_command_serve_the_page_alike() -> None:
    config = tomllib.loads(CONFIG.read_text())
    flat = {f"{part}.{key}": value for part, keys in config.items() for key, value in keys.items()}
    assert flat.pop("server.address") == "127.0.0.1"
    assert flat.pop("server.allowedHosts") == list(serve.LOOPBACK)
    as_flags = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in flat.items()
    }
    assert as_flags == serve.FLAGS


def test_the_page_is_served_on_loopback_alone() -> None:
    assert "--server.address=127.0.0.1" in serve.command(port=8501)


def test_a_page_on_loopback_is_asked_by_its_own_names_alone() -> None:
    given = [word for word in serve.command(port=8501) if "allowedHosts" in word]
    assert given == [f"--server.allowedHosts={name}" for name in serve.LOOPBACK]
    assert "allowedHosts" not in " ".join(serve.command(port=8501, host="0.0.0.0"))
