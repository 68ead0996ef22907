"""The service that is watched: its instances, nginx before them, and its traffic."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from taskscope.testing.engines.spec import (
    HOST,
    HttpReady,
    Missing,
    Ready,
    Spec,
    TcpReady,
    clean_env,
)
from taskscope_ui.stack.configs import listen_conf, upstream_conf
from taskscope_ui.stack.engines import Engines
from taskscope_ui.stack.layout import Layout
from taskscope_ui.stack.options import UpOptions
from taskscope_ui.stack.part import Absent, Part

__all__ = ["absent", "plan", "python"]

_SERVICE: Final = "taskapi"
_RATE_LIMIT: Final = 1_000_000  # all of the generated traffic comes from one address
_START_S: Final = 120.0  # a laptop that is busy with something else


def plan(
    options: UpOptions, layout: Layout, ports: Mapping[str, int], engines: Engines
) -> tuple[Part | Absent, ...]:
    """The API twice behind nginx, or once where nginx is missing or not wanted; and its traffic."""
    if "api" in options.without:
        return (Absent(name="api", what="task API", why="left out"),)
    front = _front(options, layout, ports, engines)
    instances: tuple[Part, ...]
    if isinstance(front, Absent):
        instances = (_api("api-1", ports["api"], layout, behind_proxy=False),)
    else:
        instances = tuple(
            _api(name, ports[name], layout, behind_proxy=True) for name in ("api-1", "api-2")
        )
    return (*instances, front, _traffic(options, layout, ports, front))


def python(
    name: str,
    folder: Path,
    words: tuple[str, ...],
    *,
    port: int = 0,
    ready: Ready,
    env: Mapping[str, str],
    cwd: Path | None = None,
    grace_s: float = 10.0,
) -> Spec:
    """A process of this Python; `env` is all it gets besides a clean environment."""
    return Spec(
        name=name,
        argv=(sys.executable, *words),
        cwd=cwd or folder,
        env={**clean_env(folder), "PYTHONUNBUFFERED": "1", **env},
        ports=(port,) if port else (),
        ready=ready,
        stop_grace_s=grace_s,
        start_timeout_s=_START_S,
    )


def absent(name: str, what: str, missing: Missing) -> Absent:
    """The part that `missing` speaks of: its sentence, cut into why and the command."""
    why, _, remedy = str(missing).partition("; run: ")
    return Absent(name=name, what=what, why=why, remedy=remedy)


def _api(name: str, port: int, layout: Layout, *, behind_proxy: bool) -> Part:
    env = {
        "TASKAPI_STATE_DIR": str(layout.data),
        "TASKAPI_JWT_SECRET_FILE": str(layout.secrets / "jwt"),
        "TASKAPI_RATE_LIMIT": str(_RATE_LIMIT),
        "TASKAPI_FAULTS": "true",
        "TASKSCOPE_SPOOL": str(layout.spool),
        "TASKSCOPE_INSTANCE": name,
    }
    if behind_proxy:
        env["TASKAPI_TRUSTED_PROXIES"] = f"{HOST}/32"
    spec = python(
        name,
        layout.data,
        ("-m", "taskscope_taskapi", "--port", str(port)),
        port=port,
        ready=HttpReady(url=f"http://{HOST}:{port}/readyz"),
        env=env,
        grace_s=20.0,  # its own deadline for open requests is 15 s
    )
    return Part(
        name=name,
        spec=lambda: spec,
        what=f"task API, instance {name[-1]}" if behind_proxy else "task API",
        address=f"http://{HOST}:{port}",
        port=port,
        door=not behind_proxy,
        scraped={_SERVICE: f"{HOST}:{port}"},
    )


def _front(
    options: UpOptions, layout: Layout, ports: Mapping[str, int], engines: Engines
) -> Part | Absent:
    what = "task API, two instances behind nginx"
    if "proxy" in options.without:
        return Absent(name="proxy", what=what, why="left out")
    port = ports["api"]
    try:
        spec = engines.nginx(layout.folder / "proxy", ports=(port,), conf=layout.proxy_config)
    except Missing as missing:
        return absent("proxy", what, missing)
    files = {
        **spec.files,
        spec.cwd / "upstream.conf": upstream_conf((ports["api-1"], ports["api-2"])),
        spec.cwd / "listen.conf": listen_conf(port),
    }
    spec = replace(spec, name="proxy", files=files)
    return Part(
        name="proxy",
        spec=lambda: spec,
        what=what,
        address=f"http://{HOST}:{port}",
        port=port,
        after=("api-1", "api-2"),
    )


def _traffic(
    options: UpOptions, layout: Layout, ports: Mapping[str, int], front: Part | Absent
) -> Part | Absent:
    what = "seeded traffic"
    if "traffic" in options.without or options.rate == 0:
        return Absent(name="traffic", what=what, why="left out")
    words = (
        *("-m", "taskscope_taskapi.traffic", "--url", f"http://{HOST}:{ports['api']}"),
        *("--rate", f"{options.rate:g}", "--seed", str(options.seed)),
        *("--control", str(layout.traffic_control)),
    )
    # It listens nowhere and says nothing: that the door is open is the sign, and its end would be seen.
    door = TcpReady(port=ports["api"])
    spec = python("traffic", layout.data, words, ready=door, env={}, grace_s=12.0)
    return Part(
        name="traffic",
        spec=lambda: spec,
        what=f"{what}, {options.rate:g} requests a second",
        needs=("proxy",) if isinstance(front, Part) else ("api-1",),
    )
