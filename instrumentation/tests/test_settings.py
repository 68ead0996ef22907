"""The environment is read once, and every fault in it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope.settings import Settings


def test_an_empty_environment_gives_safe_defaults() -> None:
    settings = Settings.from_environ({})
    assert settings.redact
    assert settings.otlp_endpoint is None
    assert settings.spool_max_bytes == 256 * 1024 * 1024


def test_what_the_environment_says_is_taken() -> None:
    settings = Settings.from_environ(
        {
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "TASKSCOPE_SPOOL": "lines",
            "TASKSCOPE_ACCESS_LOG": "off",
            "TASKSCOPE_LOG_LEVEL": "warning",
            "TASKSCOPE_EXCLUDED_PATHS": "/a, /b",
            "HOME": "elsewhere",
        }
    )
    assert (settings.trace_ratio, settings.spool, settings.access_log) == (
        0.25,
        Path("lines"),
        False,
    )
    assert (settings.log_level, settings.excluded_paths) == ("WARNING", ("/a", "/b"))


def test_all_faults_are_told_at_once_with_their_remedies() -> None:
    environ = {
        "OTEL_TRACES_SAMPLER_ARG": "often",
        "TASKSCOPE_REDACT": "perhaps",
        "TASKSCOPE_LOG_LEVEL": "loud",
        "TASKSCOPE_SPOOOL": "x",
    }
    with pytest.raises(SettingsError) as told:
        Settings.from_environ(environ)
    for sentence in (
        "OTEL_TRACES_SAMPLER_ARG='often' cannot be read; write a share from 0 to 1",
        "TASKSCOPE_REDACT='perhaps' cannot be read; write true or false",
        "setting log_level is 'LOUD'; take one of DEBUG",
        "TASKSCOPE_SPOOOL is not a setting; the settings are TASKSCOPE_ACCESS_LOG",
    ):
        assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318/v1/traces"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("TASKSCOPE_METRICS_PATH", "metrics"),
        ("TASKSCOPE_SEGMENT_BYTES", "12"),
        ("TASKSCOPE_SPOOL_MAX_BYTES", "65536"),
    ],
)
def test_a_value_out_of_bounds_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match="setting "):
        Settings.from_environ({variable: value})


def test_the_key_of_the_users_is_a_files_bytes_and_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(b" \n\x00secret bytes\n")
    settings = Settings.from_environ({"TASKSCOPE_USER_KEY_FILE": str(path)})
    assert settings.user_key == b" \n\x00secret bytes\n"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("size", [0, 15, 4097])
def test_a_key_too_short_or_too_long_is_refused_and_not_told(tmp_path: Path, size: int) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"x" * size)
    with pytest.raises(SettingsError, match=r"setting user_key is|USER_KEY_FILE=.* read") as told:
        Settings.from_environ({"TASKSCOPE_USER_KEY_FILE": str(path)})
    assert "xxx" not in str(told.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "absent"])
def test_what_is_no_file_of_a_key_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="name a file of 16 to 4096 random bytes"):
        Settings.from_environ({"TASKSCOPE_USER_KEY_FILE": path})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "tcp://10.0.0.1:8000"),
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8000"),
        ("SERVICE_PORT_HTTP", "8000"),
        ("PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("METRICS_SERVICE_HOST", "10.0.0.2"),
    ],
)
def test_what_kubernetes_tells_of_a_service_of_that_name_is_no_setting(
    variable: str, text: str
) -> None:
    assert Settings.from_environ({f"TASKSCOPE_{variable}": text}) == Settings()


def test_a_port_is_still_no_setting() -> None:
    with pytest.raises(SettingsError, match="TASKSCOPE_PORT is not a setting"):
        Settings.from_environ({"TASKSCOPE_PORT": "8000"})


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"ENDPOINT": "http://a:4318"}, "http://a:4318/v1/traces"),
        ({"ENDPOINT": "http://a:4318/"}, "http://a:4318/v1/traces"),
        ({"TRACES_ENDPOINT": "http://b/in"}, "http://b/in"),
        ({"ENDPOINT": "http://a:4318", "TRACES_ENDPOINT": "http://b/in"}, "http://b/in"),
    ],
)
def test_spans_go_to_the_endpoint_of_traces_or_below_the_common_one(
    variables: dict[str, str], endpoint: str | None
) -> None:
    environ = {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in variables.items()}
    assert Settings.from_environ(environ).traces_endpoint == endpoint


def test_a_sampler_is_named_in_any_case() -> None:
    settings = Settings.from_environ({"OTEL_TRACES_SAMPLER": "Always_On"})
    assert settings.trace_sampler == "always_on"
