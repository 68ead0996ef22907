"""Alertmanager on loopback, alone: without its gossip port."""

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

REMEDY = "apt-get install prometheus-alertmanager"


def find() -> Path | None:
    """The server's binary; Debian names it after its package."""
    return find_binary("prometheus-alertmanager", "alertmanager")


def find_amtool() -> Path | None:
    """amtool, which the same package brings."""
    return find_binary("amtool")


def alertmanager(folder: Path, *, port: int, config: Path, extra: Sequence[str] = ()) -> Spec:
    """Alertmanager that reads `config` where it lies and keeps silences in `folder`/data.

    extra: further flags. Raises Missing.
    """
    folder = folder.resolve()
    data = folder / "data"
    return Spec(
        name="alertmanager",
        argv=(
            str(required("alertmanager", find(), REMEDY)),
            f"--config.file={config.resolve()}",
            f"--storage.path={data}",
            f"--web.listen-address={HOST}:{port}",
            "--cluster.listen-address=",
            *extra,
        ),
        cwd=folder,
        folders=(data,),
        env=clean_env(folder),
        ports=(port,),
        ready=HttpReady(url=f"http://{HOST}:{port}/-/ready"),
    )


def amtool(*args: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """What `amtool args` said; its exit code is the caller's to judge. Raises Missing."""
    binary = required("amtool", find_amtool(), REMEDY)
    words = [str(binary), *map(str, args)]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
