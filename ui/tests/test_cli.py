"""The command line as its user meets it: exit codes, one line on stderr, and no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from taskscope.testing.engines import free_port
from taskscope.testing.waiting import until
from taskscope_taskapi.catalogue import CATALOGUE
from taskscope_ui import artefacts
from taskscope_ui.cli import main

SHOP = """
from taskscope.catalogue import Catalogue, Kind, Metric

CATALOGUE = Catalogue(service="shop", metrics=(Metric(
    name="shop.orders", kind=Kind.COUNTER, unit="{order}", help="Orders that were placed.", owner="shop"),))
"""
BROKEN = SHOP.replace('unit="{order}"', 'unit="ms"')


def run(
    *words: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskscope_ui", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr; anything else fails."""
    (line,) = done.stderr.splitlines()
    return line


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    began = time.perf_counter()
    done = run("--help", cwd=tmp_path)
    sys.stdout.write(f"taskscope --help took {time.perf_counter() - began:.3f} s\n")
    commands = done.stdout.partition("Commands:")[2].split("\n  ")
    assert [line.split()[0] for line in commands if line.strip()] == [
        *("up", "fault", "doctor", "build", "check", "catalogue", "version", "page", "preview"),
        *("ship", "collect-logs", "logs"),
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bild"], "taskscope: No such command 'bild'"),
        (["up", "--nope"], "taskscope: No such option: --nope; see `taskscope up --help`"),
        (["page", "--port", "x"], "taskscope: Invalid value for '--port'"),
        (["page", "--port", "0"], "taskscope: Invalid value for '--port'"),
        (["page", "--prometheus", "nowhere"], "taskscope: PROMETHEUS_URL is no address"),
        (["page", "--app", "nothing"], "taskscope: nothing: no module nothing; install it"),
        (["check", "--app", "nothing"], "taskscope: nothing: no module nothing; install it"),
        (["check", "--app", "json"], "taskscope: json has no Catalogue named CATALOGUE; write"),
        (["check", "--app", ""], "taskscope: '' names no module; write it as module, or"),
        (["check", "--app", "../x"], "taskscope: '../x' names no module; write it as module"),
        (["check", "--into", "/dev/null"], "taskscope: /dev/null is not a folder; name the"),
        (["up", "--ports", "api"], "taskscope: --ports: 'api' is no port; write it as api=8000"),
        (["up", "--ports", f"api={'9' * 5000}"], "taskscope: --ports: 'api=999"),
        (["build", "--into", "\udcff"], "taskscope: argument '\\udcff' is not UTF-8; rename"),
        (["up", "--only", "nginx"], "taskscope: --only: there is no part nginx; the parts are"),
        (["up", "--for", "-1"], "taskscope: duration is -1 s; take more than 0"),
        (["fault", "errors=2"], "taskscope: fault 'errors=2': the share is not from 0 to 1"),
        (["fault", "clear"], "taskscope: .taskscope: no stack runs there; run `taskscope up`"),
        (
            ["preview", "--prometheus", "http://x"],
            "taskscope: --prometheus: 'http://x' is not http",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, line[: len(says)]) == (2, says)


@pytest.mark.parametrize("words", [["ship", "--port", "0"], ["logs", "setup"]])
def test_a_wrong_setting_for_elasticsearch_is_one_line(
    tmp_path: Path, words: Sequence[str]
) -> None:
    done = run(*words, cwd=tmp_path, env={"ELASTICSEARCH_URL": "nowhere"})
    assert (done.returncode, one_line(done)) == (
        2,
        "taskscope: ELASTICSEARCH_URL='nowhere' is no address; write it as https://host:9200",
    )


def test_an_unreachable_elasticsearch_is_one_line(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("logs", "setup", cwd=tmp_path, env={"ELASTICSEARCH_URL": url})
    assert (done.returncode, one_line(done)[: len(url) + 31]) == (
        2,
        f"taskscope: {url} cannot be reached (",
    )


@pytest.mark.parametrize("words", ["version", "catalogue", "--help", "doctor"])
def test_an_output_that_is_full_is_one_line(tmp_path: Path, words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "taskscope_ui", words],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert one_line(done).startswith("taskscope: output: No space left on device; ")


def test_a_closed_output_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m taskscope_ui version >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shipper_that_is_told_to_stop_ends_well(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "taskscope_ui", "ship", "--port", "0", "--spool", "spool"],
        cwd=tmp_path,
        env={**os.environ, "ELASTICSEARCH_URL": f"http://127.0.0.1:{free_port()}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until((tmp_path / "spool/shipper.lock").exists, within_s=20)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False)


def test_what_a_catalogues_module_prints_does_not_spoil_the_json(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"print('hello')\n{SHOP}")
    done = run("catalogue", "--app", "shop", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["service"]) == (0, "shop")


def test_a_catalogues_module_that_raises_what_is_no_exception_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("raise BaseException('no')\n")
    done = run("check", "--app", "shop", cwd=tmp_path)
    assert done.returncode == 2
    assert one_line(done).startswith("taskscope: shop does not import: BaseException: no; mend it")


def test_a_broken_catalogue_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BROKEN)
    done = run("build", "--app", "shop", cwd=tmp_path)
    assert one_line(done) == ("taskscope: shop: shop.orders: unit 'ms' is not a base unit; write s")


def test_a_module_that_does_not_import_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("1 / 0\n")
    assert one_line(run("check", "--app", "shop", cwd=tmp_path)).startswith(
        "taskscope: shop does not import: ZeroDivisionError: division by zero; mend it until"
    )


def test_a_second_service_is_built_and_agrees(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    built = run("build", "--app", "shop", "--into", "deploy", cwd=tmp_path)
    assert (built.returncode, built.stderr) == (0, "")
    checked = run("check", "--app", "shop", "--into", "deploy", cwd=tmp_path)
    assert (checked.returncode, len(checked.stdout.splitlines())) == (0, 1)


def test_check_exits_1_and_names_each_disagreement(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    run("build", "--app", "shop", cwd=tmp_path)
    (tmp_path / "alerts/generated/alertmanager.yml").unlink()
    (tmp_path / "alerts/runbooks/Mine.md").write_text("# Mine\n")
    done = run("check", "--app", "shop", cwd=tmp_path)
    assert (done.returncode, [line.split(":")[0] for line in done.stdout.splitlines()]) == (
        1,
        ["alerts/generated/alertmanager.yml", "alerts/runbooks/Mine.md"],
    )


def test_a_misspelt_metric_in_a_board_fails_the_build_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = "dashboards/generated/taskapi-oncall.json"
    rendered = artefacts.collect(CATALOGUE)
    planted = rendered[board].replace("taskapi_tasks_created_total", "taskapi_tasks_creatd_total")
    monkeypatch.setattr(artefacts, "collect", lambda _: {**rendered, board: planted})
    with pytest.raises(SystemExit) as ended:
        main(["build", "--into", str(tmp_path)])
    assert "metric taskapi_tasks_creatd_total is not in the catalogue" in capsys.readouterr().out
    assert (ended.value.code, list(tmp_path.iterdir())) == (1, [])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "alerts").write_text("a file\n")
    done = run("build", cwd=tmp_path)
    assert (done.returncode, "make the folder writable" in one_line(done)) == (2, True)


def test_a_page_on_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = run("page", "--port", port, cwd=tmp_path)
    assert one_line(done) == (
        f"taskscope: port {port} on 127.0.0.1 is taken; "
        "stop what listens there, or choose another with --port"
    )


def test_the_catalogue_is_a_plain_table_in_a_pipe(tmp_path: Path) -> None:
    lines = run("catalogue", cwd=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["metric", "series", "kind", "unit", "labels", "owner"]
    assert any(line.startswith("taskapi.logins ") and "result (≤ 4)" in line for line in lines)


def test_the_catalogue_is_json_for_a_program(tmp_path: Path) -> None:
    found = json.loads(run("catalogue", "--json", cwd=tmp_path).stdout)
    assert found["service"] == "taskapi"
    assert {o["name"]: o["target"] for o in found["objectives"]} == {
        "availability": "0.999",
        "latency": "0.99",
    }


def test_a_reader_who_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m taskscope_ui catalogue --json | head -1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""


def test_interrupting_is_quiet_and_130(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "taskscope_ui", "check", "--app", "slow"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that starts the tests in the background has them ignore it, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until((tmp_path / "began").exists, within_s=20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A Python that has the library and the command, and no package beside."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "bare", with_pip=False)
    here = Path(__file__).parents[2]
    core = folder / "core"
    core.mkdir()
    shutil.copytree(here / "instrumentation/taskscope", core / "taskscope")
    shutil.copytree(here / "ui/taskscope_ui", core / "taskscope_ui")
    env = {"PYTHONPATH": str(core), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    return str(folder / "bare/bin/python"), env


def without_extras(
    bare: tuple[str, dict[str, str]], *words: str
) -> subprocess.CompletedProcess[str]:
    python, env = bare
    return subprocess.run(
        [python, "-m", "taskscope_ui", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [["up"], ["check", "--help"], ["nonsense"]])
def test_without_the_extras_a_command_names_what_to_install(
    bare: tuple[str, dict[str, str]], words: list[str]
) -> None:
    done = without_extras(bare, *words)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "taskscope: typer is not installed; run: pip install 'taskscope[ui]'\n",
    )


def test_without_the_extras_the_help_names_every_command(
    bare: tuple[str, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    done = without_extras(bare, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = re.findall(
        r"^  ([a-z-]+)  ", capsys.readouterr().out.split("Commands:")[1], re.MULTILINE
    )
    assert f"Commands: {' '.join(offered)}\n" in done.stdout
    assert "pip install 'taskscope[all]'" in done.stdout


@pytest.mark.parametrize(
    "command", ["up", "fault", "doctor", "build", "check", "catalogue", "page"]
)
def test_every_command_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert (ended.value.code, "Example" in capsys.readouterr().out) == (0, True)
