"""Prometheus on loopback, 2.42 (Debian 12) or 3.x, and its promtool."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from taskscope.testing.engines.spec import (
    HOST,
    HttpReady,
    Spec,
    clean_env,
    find_binary,
    required,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REMEDY = "apt-get install prometheus"


def find() -> Path | None:
    """The server's binary."""
    return find_binary("prometheus")


def find_promtool() -> Path | None:
    """promtool, which the same package brings."""
    return find_binary("promtool")


def prometheus(
    folder: Path,
    *,
    port: int,
    config: Path,
    retention: str = "40d",
    features: Sequence[str] = ("exemplar-storage",),
    lifecycle: bool = True,
    extra: Sequence[str] = (),
) -> Spec:
    """Prometheus that reads `config` where it lies and keeps its blocks in `folder`/data.

    Rule files and Alertmanagers are named by `config`, relative to it. lifecycle: `POST /-/reload`
    and `/-/quit` work. extra: further flags. Raises Missing.
    """
    folder = folder.resolve()
    data = folder / "data"
    argv = [
        str(required("prometheus", find(), REMEDY)),
        f"--config.file={config.resolve()}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={retention}",
        f"--web.listen-address={HOST}:{port}",
        *(["--web.enable-lifecycle"] if lifecycle else []),
        *([f"--enable-feature={','.join(features)}"] if features else []),
        *extra,
    ]
    return Spec(
        name="prometheus",
        argv=tuple(argv),
        cwd=folder,
        folders=(data,),
        env=clean_env(folder),
        ports=(port,),
        ready=HttpReady(url=f"http://{HOST}:{port}/-/ready"),
        stop_grace_s=20,
    )


def promtool(
    *args: str | Path, cwd: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `promtool args` said; its exit code is the caller's to judge. Raises Missing."""
    binary = required("promtool", find_promtool(), REMEDY)
    words = [str(binary), *map(str, args)]
    return subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )
