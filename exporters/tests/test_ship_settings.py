"""Everything that is wrong with the shipper's environment is told at once, and no secret is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope_exporters.logs.settings import Secret, ShipSettings


def test_without_variables_the_defaults_hold() -> None:
    found = ShipSettings.from_environ({})
    assert (found.url, found.spool, found.environment) == (
        "http://127.0.0.1:9200",
        Path(".taskscope/spool"),
        "local",
    )
    assert found.api_key is None


def test_variables_are_read_and_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" the-key\n")
    found = ShipSettings.from_environ(
        {
            "ELASTICSEARCH_URL": "https://es:9200",
            "ELASTICSEARCH_API_KEY_FILE": str(tmp_path / "key"),
            "TASKSCOPE_SPOOL": "/var/spool/x",
            "TASKSCOPE_ENVIRONMENT": "production",
        }
    )
    assert found.api_key is not None
    assert found.api_key.read() == "the-key"
    assert (found.url, found.spool, found.environment) == (
        "https://es:9200",
        Path("/var/spool/x"),
        "production",
    )


def test_a_key_for_look_ups_that_cannot_be_read_stops_no_shipper(tmp_path: Path) -> None:
    found = ShipSettings.from_environ({"ELASTICSEARCH_CHECK_KEY_FILE": str(tmp_path / "none")})
    assert found.check_key == Secret(file=tmp_path / "none")
    found = ShipSettings.from_environ({"ELASTICSEARCH_CHECK_KEY": "n33dle"})
    assert found.check_key is not None
    assert found.check_key.read() == "n33dle"
    assert "n33dle" not in repr(found)


def test_a_secrets_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    secret = Secret(file=file)
    assert secret.read() == "old"
    file.write_text("new")
    assert secret.read() == "new"


def test_a_secret_is_not_printed() -> None:
    found = ShipSettings.from_environ(
        {"ELASTICSEARCH_USERNAME": "shipper", "ELASTICSEARCH_PASSWORD": "n33dle"}
    )
    assert "n33dle" not in repr(found)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        ShipSettings.from_environ(
            {
                "ELASTICSEARCH_URL": "http://u:n33dle@",
                "ELASTICSEARCH_API_KEY": "k",
                "ELASTICSEARCH_USERNAME": "u",
                "ELASTICSEARCH_CA_CERT": "/none",
                "TASKSCOPE_ENVIRONMENT": "Über",
                "TASKSCOPE_LOG_LEVEL": "LOUD",
            }
        )
    said = str(caught.value)
    assert "n33dle" not in said
    for part in ("ELASTICSEARCH_URL", "keep one of them", "ELASTICSEARCH_CA_CERT", "log_level"):
        assert part in said


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ELASTICSEARCH_URL": "es:9200"}, "write it as https://host:9200"),
        ({"ELASTICSEARCH_URL": "http://[::1"}, "write it as https://host:9200"),
        ({"ELASTICSEARCH_URL": "http://es:port"}, "write it as https://host:9200"),
        ({"ELASTICSEARCH_URL": "https://es"}, "write it as https://host:9200"),
        ({"ELASTICSEARCH_URL": "http://u:p@es:9200"}, "move it to ELASTICSEARCH_USERNAME"),
        ({"ELASTICSEARCH_USERNAME": "u"}, "without ELASTICSEARCH_PASSWORD; set it too"),
        ({"ELASTICSEARCH_PASSWORD": "p"}, "without ELASTICSEARCH_USERNAME; set it too"),
        ({"ELASTICSEARCH_API_KEY": "k", "ELASTICSEARCH_API_KEY_FILE": "f"}, "keep one of them"),
        ({"ELASTICSEARCH_CHECK_KEY": "k", "ELASTICSEARCH_CHECK_KEY_FILE": "f"}, "keep one"),
        ({"ELASTICSEARCH_API_KEY_FILE": "/none/key"}, "No such file or directory; name a file"),
        ({"TASKSCOPE_ENVIRONMENT": "A/B"}, "cannot end a data stream's name; write lower-case"),
    ],
)
def test_a_fault_names_its_variable_and_the_remedy(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ShipSettings.from_environ(environ)


@pytest.mark.parametrize(
    ("url", "clear"),
    [("http://10.1.2.3:9200", True), ("http://localhost:9200", False), ("https://es:9200", False)],
)
def test_a_login_that_crosses_a_network_in_the_clear_is_noticed(url: str, clear: bool) -> None:
    assert ShipSettings(url=url, api_key=Secret(text="k")).in_the_clear is clear
