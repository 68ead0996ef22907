"""Which parts a start has: decided from values alone, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from taskscope.errors import EngineError
from taskscope.testing.engines.spec import Missing, Spec, TcpReady
from taskscope_ui.stack import Absent, Credentials, Engines, UpOptions
from taskscope_ui.stack.configs import Targets, target_files, text_of, upstream_conf
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.options import PARTS, PORT_NAMES
from taskscope_ui.stack.part import Part
from taskscope_ui.stack.plan import Plan, plan
from taskscope_ui.stack.ports import USUAL, choose

ROOT: Final = Path(__file__).resolve().parents[2]
PORTS: Final = {name: 20_000 + number for number, name in enumerate(PORT_NAMES)}
SECRETS: Final = Credentials(
    jwt="j" * 32,
    elasticsearch_admin="a",
    elasticsearch_shipper="s",
    elasticsearch_reader="r",
)


def made(name: str) -> Callable[..., Spec]:
    def make(folder: Path, **_: Any) -> Spec:
        return Spec(name=name, argv=(name,), cwd=folder, ready=TcpReady(port=1), ports=())

    return make


def lacking(name: str) -> Callable[..., Spec]:
    def make(*_: object, **__: object) -> Spec:
        raise Missing(f"{name} is not installed; run: apt-get install {name}")

    return make


ALL: Final = Engines(
    prometheus=made("prometheus"),
    alertmanager=made("alertmanager"),
    nginx=made("nginx"),
    elasticsearch=made("elasticsearch"),
    must_fetch=lambda: False,
)


def planned(options: UpOptions | None = None, engines: Engines = ALL) -> Plan:
    layout = Layout(folder=Path("/stack"), project=ROOT)
    options = options or UpOptions()
    return plan(options, layout=layout, ports=PORTS, credentials=SECRETS, engines=engines)


def part(plan: Plan, name: str) -> Part:
    found = plan.part(name)
    assert found is not None, name
    return found


def test_with_all_installed_every_part_is_there() -> None:
    names = [part.name for part in planned().parts]
    assert names == [
        *("api-1", "api-2", "proxy", "traffic"),
        *("prometheus", "alertmanager", "boards", "page"),
        *("elasticsearch", "logs-setup", "shipper", "collector"),
    ]
    assert planned().absent == ()


def test_every_need_is_a_part_of_the_same_start() -> None:
    for without in (frozenset[str](), *(frozenset({name}) for name in PARTS)):
        found = planned(UpOptions(without=without))
        names = {part.name for part in found.parts}
        assert {need for part in found.parts for need in (*part.needs, *part.after)} <= names


def test_without_nginx_one_instance_stands_at_the_door_and_believes_no_header() -> None:
    found = planned(engines=replace(ALL, nginx=lacking("nginx")))
    assert found.part("api-2") is None
    assert found.addresses["api"] == found.addresses["api-1"] == f"http://127.0.0.1:{PORTS['api']}"
    assert "TASKAPI_TRUSTED_PROXIES" not in part(found, "api-1").spec().env
    assert part(found, "traffic").needs == ("api-1",)


def test_behind_nginx_the_instances_believe_loopback_alone() -> None:
    env = part(planned(), "api-2").spec().env
    assert env["TASKAPI_TRUSTED_PROXIES"] == "127.0.0.1/32"


def test_what_lacks_is_named_with_its_command() -> None:
    found = planned(engines=replace(ALL, prometheus=lacking("prometheus")))
    assert found.part("prometheus") is None
    (absent,) = found.absent
    assert absent == Absent(
        name="prometheus",
        what="metrics and alert rules",
        why="prometheus is not installed",
        remedy="apt-get install prometheus",
    )


def test_what_was_left_out_needs_no_remedy() -> None:
    found = planned(UpOptions(without=frozenset({"page", "elasticsearch"})))
    assert {absent.name: absent.remedy for absent in found.absent} == {
        "page": "",
        "elasticsearch": "",
    }
    assert found.part("shipper") is None


def test_elasticsearch_is_fetched_first_where_it_was_not_yet() -> None:
    engines = replace(ALL, must_fetch=lambda: True, elasticsearch=lacking("elasticsearch"))
    found = planned(engines=engines)
    assert part(found, "fetch").step
    assert part(found, "elasticsearch").needs == ("fetch",)
    slow = {part.name for part in found.parts if part.background}
    assert slow == {"fetch", "elasticsearch", "logs-setup", "shipper", "collector"}


def test_the_shipper_logs_in_as_one_who_may_only_add() -> None:
    env = part(planned(), "shipper").spec().env
    assert env["ELASTICSEARCH_USERNAME"] == "shipper"
    assert env["ELASTICSEARCH_PASSWORD_FILE"] == "/stack/secrets/elasticsearch_shipper"
    assert "ELASTICSEARCH_PASSWORD" not in env


def test_the_collector_logs_in_as_one_who_may_only_read() -> None:
    env = part(planned(), "collector").spec().env
    assert env["ELASTICSEARCH_USERNAME"] == "reader"
    assert env["COLLECTOR_FOLDER"] == "/stack/collector"


def test_no_rate_makes_no_traffic() -> None:
    assert planned(UpOptions(rate=0)).part("traffic") is None


def test_prometheus_reads_the_generated_files_unchanged() -> None:
    files = part(planned(), "prometheus").spec().files
    folder = Path("/stack/prometheus")
    generated = ROOT / "exporters" / "generated" / "prometheus.yml"
    assert files[folder / "prometheus.yml"] == generated.read_text()
    for rules in (ROOT / "alerts" / "generated").glob("*.rules.yml"):
        assert files[folder / "rules" / rules.name] == rules.read_text()


def test_every_job_that_is_scraped_has_a_list_and_every_list_a_job() -> None:
    config = (ROOT / "exporters" / "generated" / "prometheus.yml").read_text()
    jobs = {job for part in planned().parts for job in part.scraped}
    assert {f"targets/{job}.json" for job in jobs} == set(target_files(config))


def test_a_target_is_listed_once_it_runs(tmp_path: Path) -> None:
    targets = Targets(tmp_path, ["targets/taskapi.json"])
    assert (tmp_path / "targets" / "taskapi.json").read_text() == "[]\n"
    for port in (1, 2, 2):
        targets.add({"taskapi": f"127.0.0.1:{port}", "unknown": "127.0.0.1:3"})
    text = (tmp_path / "targets" / "taskapi.json").read_text()
    assert text == '[{"targets": ["127.0.0.1:1", "127.0.0.1:2"]}]\n'
    assert [path.name for path in (tmp_path / "targets").iterdir()] == ["taskapi.json"]


def test_nginx_hears_of_both_instances() -> None:
    text = upstream_conf((8001, 8002))
    assert "server 127.0.0.1:8001 " in text
    assert "server 127.0.0.1:8002 " in text


def test_every_name_gets_a_port_of_its_own_and_given_ones_are_kept() -> None:
    ports = choose({"page": 19_999}, usual=False)
    assert set(ports) == set(PORT_NAMES)
    assert len(set(ports.values())) == len(ports)
    assert ports["page"] == 19_999
    assert not set(ports.values()) & set(USUAL.values())


@pytest.mark.parametrize("name", PARTS)
def test_each_part_that_can_be_left_out_is(name: str) -> None:
    found = planned(UpOptions(without=frozenset({name})))
    assert found.part(name) is None
    assert name in {absent.name for absent in found.absent}


@pytest.mark.parametrize("text", ["{ : [", "[]", "3", "scrape_configs: [{file_sd_configs: [{}]}]"])
def test_a_configuration_that_is_none_is_named_with_the_remedy(text: str) -> None:
    with pytest.raises(EngineError, match=r"prometheus\.yml cannot be read.*taskscope build"):
        target_files(text)


def test_a_file_that_is_no_text_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.rules.yml").write_bytes(b"\xff")
    with pytest.raises(EngineError, match=r"a\.rules\.yml is not UTF-8; run taskscope build"):
        text_of(tmp_path / "a.rules.yml")
