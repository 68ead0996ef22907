"""Which package brings which engine, why it is wanted, and what of it lacks here.

Read by the installer, by `taskscope up` and by `taskscope doctor`; looking costs no process, only
`version_of` starts the binary to ask.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskscope.testing.engines import (
    alertmanager,
    chromium,
    distribution,
    elasticsearch,
    jdk,
    nginx,
    postgres,
    prometheus,
    rabbitmq,
    redis,
)
from taskscope.testing.engines.spec import find_binary

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_ASK_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An engine and the Debian packages that bring it, the preferred one first.

    debian is empty for what no package brings. services: units its package may start by itself.
    for_tests: the local stack does without it.
    """

    engine: str
    why: str
    find: Callable[[], Path | None]
    remedy: str
    debian: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    version_flag: str = "--version"
    for_tests: bool = False


def _java() -> Path | None:
    found = jdk.find()
    return found.java if found else None


def _maven() -> Path | None:
    return find_binary("mvn")


def _compiler() -> Path | None:
    # Debian's compiler comes without the headers of the C library.
    return find_binary("cc") if Path("/usr/include/dlfcn.h").exists() else None


PACKAGES = (
    Package(
        engine="prometheus",
        why="scrapes, evaluates rules, answers boards",
        find=prometheus.find,
        remedy=prometheus.REMEDY,
        debian=("prometheus",),
        services=("prometheus",),
    ),
    Package(
        engine="alertmanager",
        why="routes alerts",
        find=alertmanager.find,
        remedy=alertmanager.REMEDY,
        debian=("prometheus-alertmanager",),
        services=("prometheus-alertmanager",),
    ),
    Package(
        engine="nginx",
        why="balances the instances of the API",
        find=nginx.find,
        remedy=nginx.REMEDY,
        debian=("nginx",),
        services=("nginx",),
        version_flag="-v",
    ),
    Package(
        engine="postgres",
        why="database of the API by URL",
        find=postgres.find,
        remedy=postgres.REMEDY,
        debian=("postgresql",),
        services=("postgresql",),
    ),
    Package(
        engine="redis",
        why="cache and rate limit of the API by URL",
        find=redis.find,
        remedy=redis.REMEDY,
        debian=("redis-server",),
        services=("redis-server",),
    ),
    Package(
        engine="rabbitmq",
        why="carries messages in tests",
        find=rabbitmq.find,
        remedy=rabbitmq.REMEDY,
        debian=("rabbitmq-server",),
        services=("rabbitmq-server",),
        for_tests=True,
    ),
    Package(
        engine="compiler",
        why="makes a clock that tests can set",
        find=_compiler,
        remedy="apt-get install build-essential",
        debian=("build-essential",),
        for_tests=True,
    ),
    Package(
        engine="chromium",
        why="opens the pages in tests",
        find=chromium.find,
        remedy=chromium.REMEDY,
        debian=("chromium", "chromium-browser"),
    ),
    Package(
        engine="jdk",
        why="runs Elasticsearch and decides its version",
        find=_java,
        remedy=jdk.REMEDY,
        debian=("openjdk-17-jdk-headless", "openjdk-21-jdk-headless", "openjdk-25-jdk-headless"),
        version_flag="-version",
    ),
    Package(
        engine="maven",
        why="fetches Elasticsearch",
        find=_maven,
        remedy=distribution.MAVEN_REMEDY,
        debian=("maven",),
    ),
    Package(
        engine="elasticsearch",
        why="keeps and searches the logs",
        find=elasticsearch.find,
        remedy=elasticsearch.REMEDY,
    ),
)


def missing(*, for_tests: bool = True) -> list[Package]:
    """The engines that are not here, in the order in which they are to be installed.

    for_tests: those too that only tests run.
    """
    return [
        package
        for package in PACKAGES
        if package.find() is None and (for_tests or not package.for_tests)
    ]


def version_of(package: Package) -> str | None:
    """The version its binary tells, None if it is missing or tells none."""
    found = package.find()
    if found is None:
        return None
    # Where a folder was found, it bears the version; asking these servers would start them.
    said = _ask(found, package.version_flag) if found.is_file() else found.name
    version = _VERSION.search(said)
    return version[0] if version else None


def _ask(binary: Path, flag: str) -> str:
    try:
        done = subprocess.run(
            [binary, flag], capture_output=True, text=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
