"""docker-compose.yml: valid, pinned, closed, and made of the files that the native stack runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import taskscope.settings
import taskscope_taskapi.settings
from taskscope.errors import EngineError
from taskscope.testing.engines import nginx
from taskscope_exporters.logs.collecting import CollectSettings
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_ui.page_settings import PageSettings
from taskscope_ui.stack.compose_secrets import NAMES, ensure, main
from taskscope_ui.stack.configs import target_files
from taskscope_ui.stack.layout import Layout

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final = ROOT / "docker-compose.yml"
TEXT: Final = COMPOSE.read_text(encoding="utf-8")
READ: Final[dict[str, Any]] = yaml.safe_load(TEXT)
SERVICES: Final[Mapping[str, dict[str, Any]]] = READ["services"]
LAYOUT: Final = Layout(folder=ROOT / ".taskscope", project=ROOT)

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def schema_check(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("check-jsonschema")
    words = [str(tool), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def host_paths(service: Mapping[str, Any]) -> list[Path]:
    mounts = [str(volume).split(":")[0] for volume in service.get("volumes", ())]
    return [ROOT / mount for mount in mounts if mount.startswith(".")]


def test_it_agrees_with_the_compose_specification() -> None:
    found = schema_check(COMPOSE)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "docker-compose.yml"
    planted.write_text(TEXT.replace("    healthcheck:", "    healtcheck:", 1))
    found = schema_check(planted)
    assert found.returncode != 0
    assert "healtcheck" in found.stdout


@each_service
def test_each_image_is_pinned_to_a_release_or_built_here(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", image), image
    if "build" in SERVICES[name]:
        assert (ROOT / SERVICES[name]["build"]["dockerfile"]).is_file()


def test_every_image_of_ours_is_built_here() -> None:
    images = {service["image"] for service in SERVICES.values()}
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    assert {image for image in images if image.startswith("taskscope/")} == built


@each_service
def test_each_service_says_how_its_health_is_asked(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    if check.get("disable"):
        assert name in {"logs-setup", "traffic"}  # they answer nobody
    else:
        assert check["test"][0] in {"CMD", "CMD-SHELL"}


@each_service
def test_what_a_service_waits_for_has_a_health_or_an_end(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        disabled = SERVICES[needed]["healthcheck"].get("disable", False)
        wanted = "service_completed_successfully" if disabled else "service_healthy"
        assert how["condition"] == wanted


@each_service
def test_each_mounted_path_is_in_the_project(name: str) -> None:
    assert [path for path in host_paths(SERVICES[name]) if not path.exists()] == []


@each_service
def test_mounted_configuration_is_read_only(name: str) -> None:
    mounts = [volume for volume in SERVICES[name].get("volumes", ()) if volume.startswith(".")]
    assert [mount for mount in mounts if not mount.endswith(":ro")] == []


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))
    # The traffic sits beside nginx, as it sends to loopback alone.
    wanted = "service:proxy" if name == "traffic" else None
    assert SERVICES[name].get("network_mode") == wanted


@each_service
def test_each_service_has_the_least_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service.get("read_only", False) or name == "elasticsearch"
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["restart"] == ("no" if name == "logs-setup" else "unless-stopped")


@each_service
def test_no_service_runs_as_root(name: str) -> None:
    # These images name an account of their own; the others are told one here.
    own = ("prom/", "grafana/", "nginxinc/nginx-unprivileged", "docker.elastic.co/")
    service = SERVICES[name]
    assert service.get("user", "") not in {"root", "0", "0:0"}
    assert "user" in service or service["image"].startswith(own)


@each_service
def test_each_secret_comes_from_the_environment_and_has_no_default(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEY$|DATABASE_URL", key):
            assert re.fullmatch(r"[^$]*\$\{[A-Z_]+:\?run make secrets\}[^$]*", str(value)), key


def test_the_secrets_that_are_asked_for_are_those_that_are_made() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", TEXT))
    assert asked == set(NAMES)


def test_grafana_lets_nobody_in_without_a_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_grafana_is_given_every_word_that_its_provisioning_reads() -> None:
    provisioning = ROOT / "dashboards" / "deploy" / "provisioning"
    texts = [path.read_text(encoding="utf-8") for path in provisioning.rglob("*.yml")]
    asked = {name for text in texts for name in re.findall(r"\$\{?([A-Z][A-Z_]+)\b", text)}
    assert asked <= set(SERVICES["grafana"]["environment"])


def test_compose_mounts_the_very_files_that_the_native_stack_reads() -> None:
    mounted = {path.resolve() for service in SERVICES.values() for path in host_paths(service)}
    rules = sorted(LAYOUT.rules.glob("*.rules.yml"))
    assert rules
    assert {
        LAYOUT.prometheus_config,
        LAYOUT.alertmanager_config,
        LAYOUT.proxy_config,
        *rules,
        ROOT / "dashboards" / "generated",
    } <= mounted


def test_there_is_a_target_list_for_each_that_prometheus_reads() -> None:
    deploy = ROOT / "exporters" / "deploy"
    wanted = target_files(LAYOUT.prometheus_config.read_text(encoding="utf-8"))
    assert sorted(str(path.relative_to(deploy)) for path in deploy.glob("targets/*.json")) == list(
        wanted
    )


def test_each_target_is_a_service_that_prometheus_shares_a_network_with() -> None:
    lists = (ROOT / "exporters" / "deploy" / "targets").glob("*.json")
    for path in lists:
        for target in json.loads(path.read_text())[0]["targets"]:
            host = target.partition(":")[0]
            networks = set(SERVICES[host]["networks"])
            assert networks & set(SERVICES["prometheus"]["networks"]), target


def test_the_instances_believe_the_forwarded_headers_of_the_proxy_alone() -> None:
    address = SERVICES["proxy"]["networks"]["service"]["ipv4_address"]
    for instance in ("api-1", "api-2"):
        assert SERVICES[instance]["environment"]["TASKAPI_TRUSTED_PROXIES"] == f"{address}/32"


@pytest.mark.engine
def test_nginx_takes_the_configuration_that_the_container_mounts(tmp_path: Path) -> None:
    deploy = ROOT / "taskapi" / "deploy" / "nginx"
    shutil.copy(deploy / "nginx.conf", tmp_path)
    for path in (deploy / "compose").glob("*.conf"):
        text = re.sub(r"api-(\d):8000", r"127.0.0.1:800\1", path.read_text())
        (tmp_path / path.name).write_text(text.replace("/tmp", str(tmp_path)))
    words = [
        str(nginx.find()),
        "-t",
        "-p",
        f"{tmp_path}/",
        "-c",
        f"{tmp_path}/nginx.conf",
        "-e",
        "stderr",
    ]
    found = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


def test_the_image_leaves_out_all_but_what_it_needs() -> None:
    dockerfile = (ROOT / "taskapi" / "deploy" / "Dockerfile").read_text()
    ignored = (ROOT / "taskapi" / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY ([^-\n].*) \S+$", dockerfile, re.MULTILINE)
    needed = {word.rstrip("/") for words in copied for word in words.split()}
    assert needed == {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert all((ROOT / name).exists() for name in needed)


def test_the_image_runs_as_an_account_of_its_own_and_keeps_to_the_lock() -> None:
    dockerfile = (ROOT / "taskapi" / "deploy" / "Dockerfile").read_text()
    assert "USER 10001:10001" in dockerfile
    assert dockerfile.count("uv sync --locked --no-dev") == 2
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nTASKAPI_FAULTS=true\nELASTIC_PASSWORD=kept\nPOSTGRES_PASSWORD=")
    added = ensure(path)
    first = path.read_text()
    assert set(added) == set(NAMES) - {"ELASTIC_PASSWORD"}
    assert first.startswith("# mine\nTASKAPI_FAULTS=true\nELASTIC_PASSWORD=kept\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure(path) == ()
    assert path.read_text() == first


def test_the_secrets_differ_and_are_long(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    ensure(path)
    words = [line.partition("=")[2] for line in path.read_text().splitlines()]
    assert len(set(words)) == len(NAMES)
    assert all(re.fullmatch(r"[0-9a-f]{64}", word) for word in words)


def test_make_secrets_never_prints_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / ".env")]) == 0
    out = capsys.readouterr().out
    assert "POSTGRES_PASSWORD" in out
    assert not re.search(r"[0-9a-f]{64}", out)


def test_make_secrets_names_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none" / ".env")]) == 2
    assert "No such file or directory; run this in a folder" in capsys.readouterr().err


def environment(name: str) -> dict[str, str]:
    """What the container is given, with a word in the place of each secret and each default taken."""
    given = {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}
    filled = {
        key: re.sub(r"\$\{[A-Z_]+:\?[^}]*\}", "0123456789abcdef" * 4, value)
        for key, value in given.items()
    }
    return {key: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value) for key, value in filled.items()}


@pytest.mark.parametrize("name", ["api-1", "api-2"])
def test_the_instances_are_given_settings_that_they_take(name: str) -> None:
    api = taskscope_taskapi.settings.Settings.from_environ(environment(name))
    library = taskscope.settings.Settings.from_environ(environment(name))
    assert api.database.startswith("postgresql+asyncpg://taskapi:")
    assert api.rate_limit == 100
    assert not api.faults
    assert library.instance == name
    # A caller from outside decides on no trace of ours; it becomes a link.
    assert library.trusted_hops == ()


@pytest.mark.parametrize("name", ["api-1", "api-2"])
def test_the_workers_of_an_instance_share_a_folder_in_memory_that_nobody_else_sees(
    name: str,
) -> None:
    folder = SERVICES[name]["environment"]["TASKSCOPE_MULTIPROCESS_DIR"]
    account = SERVICES[name]["user"].partition(":")[0]
    (options,) = (o for path, _, o in map(_parted, SERVICES[name]["tmpfs"]) if path == folder)
    assert {"mode=0700", f"uid={account}"} <= set(options.split(","))
    assert SERVICES[name]["command"][-2] == "--workers"


def _parted(mount: str) -> tuple[str, str, str]:
    return mount.partition(":")


def test_the_image_bears_the_commit_that_it_is_built_from() -> None:
    dockerfile = (ROOT / "taskapi" / "deploy" / "Dockerfile").read_text()
    last = dockerfile.rpartition("FROM ")[2]
    assert "ARG COMMIT" in last
    assert "ENV TASKSCOPE_COMMIT=${COMMIT}" in last
    for name in ("api-1", "api-2"):
        assert SERVICES[name]["build"]["args"]["COMMIT"] == "${TASKSCOPE_COMMIT:-unknown}"


def test_no_instance_answers_prometheus_but_inside_the_network() -> None:
    for name in ("api-1", "api-2"):
        assert "ports" not in SERVICES[name]
        assert SERVICES[name].get("network_mode") is None
    proxy = (ROOT / "taskapi" / "deploy" / "nginx" / "nginx.conf").read_text()
    assert "location = /metrics { return 404; }" in proxy


def test_the_shipper_is_given_settings_that_it_takes() -> None:
    settings = ShipSettings.from_environ(environment("shipper"))
    assert settings.username == "taskscope_shipper"
    assert taskscope.settings.Settings.from_environ(environment("api-1")).spool == settings.spool


def test_the_collector_reads_the_stream_that_the_shipper_writes_and_keeps_its_counts() -> None:
    found = CollectSettings.from_environ(environment("collector"))
    assert found.elasticsearch.username == "taskscope_reader"
    shipper = ShipSettings.from_environ(environment("shipper"))
    assert found.elasticsearch.environment == shipper.environment
    assert SERVICES["collector"]["volumes"] == [f"counts:{found.folder}"]


def test_the_page_is_given_settings_that_it_takes() -> None:
    settings = PageSettings.from_environ(environment("page"))
    assert settings.prometheus_url == "http://prometheus:9090"


def test_images_are_built_with_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    asked = set(re.findall(r"--extra (\w+)", TEXT))
    assert asked == {"taskapi", "exporters", "ui"}
    assert asked <= extras


def test_a_word_in_quotes_or_behind_export_is_kept_and_an_empty_one_is_made(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "export POSTGRES_PASSWORD=mine\nELASTIC_PASSWORD='mine'\nGRAFANA_ADMIN_PASSWORD=\"\"\n"
    )
    added = ensure(path)
    assert "GRAFANA_ADMIN_PASSWORD" in added
    assert {"POSTGRES_PASSWORD", "ELASTIC_PASSWORD"}.isdisjoint(added)


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff")
    with pytest.raises(EngineError, match=r"\.env: is not UTF-8; mend it"):
        ensure(tmp_path / ".env")
