"""Installs the engines that lack, by apt-get, and fetches Elasticsearch.

A package that starts a service is stopped from doing so for longer than its installation: ours run
on ports and folders of their own, and a server that nobody asked for is none of our business to leave.
A service that ran before is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from taskscope.errors import EngineError
from taskscope.testing.engines import distribution, jdk
from taskscope.testing.engines.packages import Package, missing
from taskscope.testing.engines.spec import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")


def install(progress: Callable[[str], None], *, for_tests: bool = True) -> None:
    """Every engine is here. progress: told each step, one sentence. for_tests: those too that only tests run.

    Raises EngineError when apt-get, Maven or the compiler fails, or root's rights are needed.
    """
    lacking = [package for package in missing(for_tests=for_tests) if package.debian]
    if lacking:
        _install_packages(lacking, progress)
    if left := [package for package in missing(for_tests=for_tests) if package.debian]:
        names = ", ".join(package.engine for package in left)
        raise EngineError(f"install: {names} still missing after apt-get; install it by hand")
    java = jdk.find()
    if java is None:
        raise Missing(f"elasticsearch needs a JDK of 17 or newer; run: {jdk.REMEDY}")
    version = distribution.version_for(java)
    home = distribution.prepare(distribution.default_cache(), version, java, progress)
    progress(f"Elasticsearch {version} is in {home}")


def choose(package: Package, offered: Callable[[str], bool]) -> str:
    """The first of the package's names that is `offered` here.

    Raises EngineError when none is.
    """
    for name in package.debian:
        if offered(name):
            return name
    names = " or ".join(package.debian)
    raise EngineError(f"install: no package {names} for {package.engine}; install it by hand")


def rights(uid: int, sudo: str | None, names: Iterable[str]) -> tuple[str, ...]:
    """The words before a command that needs root's rights.

    Raises EngineError when we are not root and there is no sudo.
    """
    if uid == 0:
        return ()
    if sudo is None:
        words = " ".join(names)
        raise EngineError(f"install: needs root's rights; run as root: apt-get install {words}")
    return (sudo,)


def _install_packages(lacking: list[Package], progress: Callable[[str], None]) -> None:
    wanted = [package.debian[0] for package in lacking]
    if shutil.which("apt-get") is None:
        raise EngineError(f"install: no apt-get here; install by hand: {', '.join(wanted)}")
    before = rights(os.geteuid(), shutil.which("sudo"), wanted)
    progress("reading the list of packages")
    _run([*before, *_APT, "update"], "check the network and /etc/apt/sources.list")
    names = [choose(package, _offered) for package in lacking]
    running = {service for package in lacking for service in package.services if _runs(service)}
    progress(f"installing {', '.join(names)}; this takes a minute or two")
    _run(
        [*before, *_APT, "install", "-y", "--no-install-recommends", *names],
        f"run apt-get install {' '.join(names)} by hand to see more",
    )
    for package in lacking:
        for service in package.services:
            if service not in running and _runs(service):
                progress(f"stopping the service {service}, which its package started")
                _run([*before, *_stop(service)], f"stop {service} by hand")


def _offered(name: str) -> bool:
    words = ["apt-cache", "show", "--no-all-versions", name]
    return _quiet(words) == 0


def _systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _runs(service: str) -> bool:
    if _systemd():
        return _quiet(["systemctl", "is-active", "--quiet", service]) == 0
    return shutil.which("service") is not None and _quiet(["service", service, "status"]) == 0


def _stop(service: str) -> list[str]:
    if _systemd():
        return ["systemctl", "disable", "--now", service]
    return ["service", service, "stop"]


def _quiet(words: list[str]) -> int:
    return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode


def _run(words: list[str], remedy: str) -> None:
    """What apt-get says fills screens and is of interest only when it fails; sudo asks on the terminal itself."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        error = EngineError(
            f"install: {' '.join(words)}: exit code {done.returncode}: {said[-1]}; {remedy}"
        )
        error.add_note("\n".join(said[-20:]))
        raise error
