"""What may be set, and the sentence for what may not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from taskscope.errors import SettingsError
from taskscope_taskapi.settings import Settings


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ({f"TASKAPI_{name}": text for name, text in variables.items()})
    return str(refused.value)


def test_an_empty_environment_asks_for_the_limits_of_the_specification() -> None:
    settings = Settings.from_environ({})
    assert (settings.rate_limit, settings.rate_window_s, settings.access_s) == (100, 900, 900)
    assert settings.refresh_s == 30 * 86400
    assert settings.body_bytes == 1024 * 1024
    assert settings.pool_size + settings.pool_overflow <= 20
    assert not settings.trusted_proxies
    assert not settings.cors_origins
    assert not settings.faults


def test_lists_are_written_with_commas() -> None:
    settings = Settings.from_environ(
        {
            "TASKAPI_TRUSTED_PROXIES": "127.0.0.1/32, fd00::/8",
            "TASKAPI_CORS_ORIGINS": "https://a.example,http://b.example:3000",
        }
    )
    assert settings.trusted_proxies == (ip_network("127.0.0.1/32"), ip_network("fd00::/8"))
    assert settings.cors_origins == ("https://a.example", "http://b.example:3000")


@pytest.mark.parametrize("everybody", ["*", "127.0.0.1/32,*", "0.0.0.0/0", "::/0"])
def test_nobody_may_trust_everybody(everybody: str) -> None:
    assert "forwarded headers of anybody" in refusal(TRUSTED_PROXIES=everybody)


@pytest.mark.parametrize("origin", ["*", "https://*.example", "example", "https://a.example/path"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    assert refusal(CORS_ORIGINS=origin).startswith("TASKAPI_CORS_ORIGINS=")


def test_every_wrong_variable_gets_its_own_sentence() -> None:
    told = refusal(POOL_SIZE="abc", RATE_LIMIT="0", WRONG="1").splitlines()
    assert sorted(line.split("=")[0].split(" ")[0] for line in told) == [
        "TASKAPI_POOL_SIZE",
        "TASKAPI_RATE_LIMIT",
        "TASKAPI_WRONG",
    ]


def test_a_sentence_ends_with_the_remedy() -> None:
    assert refusal(POOL_SIZE="99").endswith("write 1 to 20")


def test_a_pool_of_more_than_twenty_is_refused() -> None:
    assert "more than 20 connections" in refusal(POOL_SIZE="15", POOL_OVERFLOW="6")


@pytest.mark.parametrize("secret", ["short-but-secret", "a" * 64])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    assert secret not in refusal(JWT_SECRET=secret)


def test_a_password_in_the_database_url_is_not_shown() -> None:
    assert "hunter2" not in refusal(DATABASE_URL="mysql://user:hunter2@host/name")


def test_a_database_in_memory_is_refused() -> None:
    assert "in memory" in refusal(DATABASE_URL="sqlite+aiosqlite:///:memory:")


def test_a_secret_is_given_in_one_way_only() -> None:
    told = refusal(JWT_SECRET="0123456789abcdef0123456789abcdef", JWT_SECRET_FILE="/some/file")
    assert "keep one of them" in told


def test_the_settings_do_not_print_their_secret() -> None:
    settings = Settings.from_environ({"TASKAPI_JWT_SECRET": "0123456789abcdef0123456789abcdef"})
    assert "0123456789abcdef" not in repr(settings)


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
    assert Settings.from_environ({f"TASKAPI_{variable}": text}) == Settings()
