"""Finds the Java that decides which Elasticsearch is taken."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from taskscope.errors import EngineError

REMEDY = "apt-get install openjdk-17-jdk-headless"
OLDEST = 17
_FOLDERS = (Path("/usr/lib/jvm"), Path("/opt/java"))
_VERSION = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jdk:
    """A Java development kit: its folder and its feature release, such as 17."""

    home: Path
    major: int

    @property
    def java(self) -> Path:
        return self.home / "bin" / "java"

    @property
    def javac(self) -> Path:
        return self.home / "bin" / "javac"


def find() -> Jdk | None:
    """The JDK of 17 or newer that ES_JAVA_HOME or JAVA_HOME names, else the newest installed one.

    Raises EngineError if ES_JAVA_HOME is set to something else.
    """
    if chosen := os.environ.get("ES_JAVA_HOME"):
        if (jdk := read(Path(chosen))) is None:
            raise EngineError(
                f"ES_JAVA_HOME: {chosen} holds no JDK of {OLDEST} or newer; unset it or name one"
            )
        return jdk
    if (chosen := os.environ.get("JAVA_HOME")) and (jdk := read(Path(chosen))):
        return jdk
    homes = [home for folder in _FOLDERS if folder.is_dir() for home in sorted(folder.iterdir())]
    if compiler := shutil.which("javac"):
        homes.append(Path(compiler).resolve().parents[1])
    found = [jdk for home in homes if (jdk := read(home))]
    return max(found, key=lambda jdk: jdk.major, default=None)


def read(home: Path) -> Jdk | None:
    """The JDK in `home`, None if there is none, or no compiler, or one older than 17."""
    try:
        version = _VERSION.search((home / "release").read_text())
    except OSError:
        return None
    if version is None or int(version[1]) < OLDEST:
        return None
    jdk = Jdk(home=home.resolve(), major=int(version[1]))
    return jdk if os.access(jdk.java, os.X_OK) and os.access(jdk.javac, os.X_OK) else None
