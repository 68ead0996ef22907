"""Fetches Elasticsearch once and completes it: one read-only home serves many instances.

The distribution that Maven's central repository holds is the small one its own developers test with.
It lacks `GET /`, and the index of API keys cannot be made on it; a plugin of ours, compiled here
against its jars, adds both. Nothing of it is ours to ship, so nothing of it is in this package.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import zipfile
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from taskscope.errors import EngineError
from taskscope.testing.engines.jdk import Jdk
from taskscope.testing.engines.place import enterable
from taskscope.testing.engines.spec import find_binary, required

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.resources.abc import Traversable

MAVEN_REMEDY = "apt-get install maven"
NEWEST = "9.5.3"
BEFORE_JAVA_21 = "8.19.21"
_PLUGIN = "taskscope-root"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_COORDINATE = "org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FETCH_S = 1_800
_COMPILE_S = 300


def version_for(jdk: Jdk) -> str:
    """The newest Elasticsearch that runs on `jdk`."""
    return NEWEST if jdk.major >= 21 else BEFORE_JAVA_21


def default_cache() -> Path:
    """Where distributions are kept: $XDG_CACHE_HOME/taskscope, or ~/.cache/taskscope.

    For root it is /var/cache/taskscope where that would be closed to the account of the server.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskscope"
    if os.geteuid() == 0 and not enterable(cache / "elasticsearch"):
        return Path("/var/cache/taskscope")
    return cache


def home_of(cache: Path, version: str) -> Path:
    """The folder that `prepare` makes; its name changes with our plugin's source."""
    digest = hashlib.sha256()
    for source in sources(version):
        digest.update(source.read_bytes())
    return cache / f"elasticsearch-{version}-{digest.hexdigest()[:8]}"


def sources(version: str) -> list[Traversable]:
    """The plugin's files for the line of `version`, the descriptor last."""
    root = files("taskscope.testing.engines") / "elasticsearch_root"
    line = root / f"v{version.split('.', maxsplit=1)[0]}"
    java = [
        file for folder in (root, line) for file in folder.iterdir() if file.name[-5:] == ".java"
    ]
    return [*sorted(java, key=lambda file: file.name), root / "plugin-descriptor.properties"]


def prepare(
    cache: Path, version: str, jdk: Jdk, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """The home of Elasticsearch `version` under `cache`, fetched by Maven if it was not there.

    It appears whole or not at all, also when two ask at once. progress: told each step, one
    sentence. Raises Missing without Maven, EngineError when the fetch or the compiler fails.
    """
    home = home_of(cache, version)
    if home.is_dir():
        return home
    maven = required("maven", find_binary("mvn"), MAVEN_REMEDY)
    try:
        with _locked(cache), tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as work:
            if not home.is_dir():
                progress(f"fetching Elasticsearch {version} with Maven (about 130 MB)")
                archive = _fetch(maven, version, jdk, Path(work))
                progress("unpacking it")
                made = _unpack(archive, Path(work), version)
                progress("compiling the plugin that answers GET /")
                _add_plugin(made, version, jdk, Path(work))
                made.rename(home)
    except OSError as error:
        raise EngineError(
            f"elasticsearch: {error.filename or cache}: {error.strerror}; "
            "free the disk, or set XDG_CACHE_HOME to a folder you may write"
        ) from error
    return home


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        cache.chmod(0o755)  # the account that the server drops to reads its home there
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # falls with the process that holds it
        yield


def _fetch(maven: Path, version: str, jdk: Jdk, work: Path) -> Path:
    """The archive, by the user's own Maven settings and local repository."""
    words = [
        str(maven),
        *("-B", "-q", "-Dstyle.color=never", _COPY, "-Dmdep.useBaseVersion=true"),
        f"-Dartifact={_COORDINATE.format(version=version)}",
        f"-DoutputDirectory={work}",
    ]
    remedy = "check the network and Maven's settings.xml"
    _run(words, work, _FETCH_S, remedy, _maven_env(jdk))
    archives = list(work.glob("*.zip"))
    if not archives:
        raise EngineError(f"elasticsearch: Maven fetched no archive for {version}; run {words}")
    return archives[0]


def _maven_env(jdk: Jdk) -> dict[str, str]:
    """Our environment, with a Java for Maven and a home that it can write."""
    env = dict(os.environ)
    if not env.get("JAVA_HOME") and not shutil.which("java"):
        env["JAVA_HOME"] = str(jdk.home)
    if not os.access(_home_in_password_file(), os.W_OK):
        env["MAVEN_OPTS"] = f"{env.get('MAVEN_OPTS', '')} -Duser.home={Path.home()}".strip()
    return env


def _home_in_password_file() -> str:
    """What Java takes for our home, whatever $HOME says; a service account's may not exist."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/nonexistent"


def _unpack(archive: Path, work: Path, version: str) -> Path:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(work)
    archive.unlink()
    home = work / f"elasticsearch-{version}"
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return home


def _add_plugin(home: Path, version: str, jdk: Jdk, work: Path) -> None:
    source, classes = work / "source", work / "classes"
    source.mkdir()
    classes.mkdir()
    *java, descriptor = sources(version)
    for file in java:
        (source / file.name).write_bytes(file.read_bytes())
    release = "21" if version == NEWEST else "17"
    words = [str(jdk.javac), "-proc:none", "-nowarn", "--release", release]
    words += ["-cp", f"{home}/lib/*", "-d", str(classes)]
    words += [str(source / file.name) for file in java]
    _run(words, work, _COMPILE_S, "report it, with the JDK's version")
    plugin = home / "plugins" / _PLUGIN
    plugin.mkdir(parents=True)
    with zipfile.ZipFile(plugin / f"{_PLUGIN}.jar", "w") as jar:
        for path in sorted(classes.rglob("*.class")):
            jar.write(path, path.relative_to(classes))
    text = descriptor.read_text().replace("@java@", release).replace("@elasticsearch@", version)
    (plugin / descriptor.name).write_text(text)


def _run(
    words: list[str], cwd: Path, timeout_s: float, remedy: str, env: dict[str, str] | None = None
) -> None:
    tool = Path(words[0]).name
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{tool}: no end after {timeout_s:g} s; {remedy}") from error
    if done.returncode:
        said = _COLOUR.sub("", done.stdout + done.stderr).splitlines()
        complaint = next((line for line in said if "error" in line.lower()), "no message")[:500]
        raise EngineError(f"{tool}: exit code {done.returncode}: {complaint}; {remedy}")
