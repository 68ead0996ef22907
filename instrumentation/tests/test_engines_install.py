"""What is here, what lacks, and how it would be installed; nothing is installed by a test."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from taskscope.testing.engines import EngineError, install, packages
from taskscope.testing.engines import __main__ as command

ROOT = Path(__file__).resolve().parents[1]
BARE = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["engines", *sys.argv[1:]]
runpy.run_module("taskscope.testing.engines", run_name="__main__")
"""


def test_the_check_runs_on_a_python_without_any_package() -> None:
    words = [sys.executable, "-I", "-S", "-c", BARE, "--check"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert done.returncode in {0, 1}
    assert len(done.stdout.splitlines()) == 1 + len(packages.PACKAGES)


def test_what_lacks_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = packages.Package(
        engine="absent", why="for nothing", find=lambda: None, remedy="apt-get install absent"
    )
    monkeypatch.setattr(packages, "PACKAGES", (absent,))
    monkeypatch.setattr(command, "PACKAGES", (absent,))

    code = command.main(["--check"])

    assert code == 1
    assert capsys.readouterr().out == (
        "ENGINE  VERSION  STATE    REMEDY OR USE\n"
        "absent  -        missing  apt-get install absent\n"
    )


def test_a_wrong_jdk_ends_the_check_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ES_JAVA_HOME", str(tmp_path))

    code = command.main([])

    assert code == 2
    assert capsys.readouterr().err.startswith("taskscope: ES_JAVA_HOME: ")


@pytest.mark.engine
def test_each_engine_tells_its_version() -> None:
    here = [package for package in packages.PACKAGES if package.find()]
    if not here:
        pytest.skip("no engine is installed; run: python -m taskscope.testing.engines --install")

    assert [package.engine for package in here if not packages.version_of(package)] == []


def named(engine: str) -> packages.Package:
    return next(package for package in packages.PACKAGES if package.engine == engine)


def test_the_first_package_that_the_system_offers_is_taken() -> None:
    offered = {"openjdk-21-jdk-headless", "openjdk-25-jdk-headless"}

    assert install.choose(named("jdk"), offered.__contains__) == "openjdk-21-jdk-headless"


def test_an_engine_that_no_package_brings_is_named() -> None:
    with pytest.raises(EngineError, match=r"^install: no package redis-server for redis; "):
        install.choose(named("redis"), lambda _: False)


def test_root_needs_no_sudo_and_others_use_it() -> None:
    assert install.rights(0, None, ["nginx"]) == ()
    assert install.rights(1000, "/usr/bin/sudo", ["nginx"]) == ("/usr/bin/sudo",)


def test_without_root_and_sudo_the_command_is_told() -> None:
    with pytest.raises(EngineError, match=r"run as root: apt-get install nginx maven$"):
        install.rights(1000, None, ["nginx", "maven"])


def test_the_stack_is_not_asked_for_what_only_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = [replace(package, find=lambda: None) for package in packages.PACKAGES]
    monkeypatch.setattr(packages, "PACKAGES", tuple(nowhere))
    monkeypatch.setattr(command, "PACKAGES", tuple(nowhere))
    everything = {package.engine for package in packages.missing()}
    assert everything - {p.engine for p in packages.missing(for_tests=False)} == {
        "rabbitmq",
        "compiler",
    }
    assert "rabbitmq" in command.table()
    assert "rabbitmq" not in command.table(for_tests=False)
