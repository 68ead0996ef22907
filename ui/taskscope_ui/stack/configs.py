"""What the engines read: the project's own files, and the few that differ from a container's, the target lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from taskscope.errors import EngineError
from taskscope.testing.engines.spec import HOST
from taskscope_ui.stack.layout import Layout

__all__ = [
    "Targets",
    "assemble_prometheus",
    "forget_rules",
    "listen_conf",
    "target_files",
    "text_of",
    "upstream_conf",
]


def target_files(config: str) -> tuple[str, ...]:
    """The target lists that a prometheus.yml reads, as it names them, sorted. Raises EngineError."""
    try:
        read: Any = yaml.safe_load(config)
        jobs = [*read.get("scrape_configs", ())]
        jobs += read.get("alerting", {}).get("alertmanagers", ())
        files = {
            str(n) for job in jobs for sd in job.get("file_sd_configs", ()) for n in sd["files"]
        }
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise EngineError(
            "prometheus.yml cannot be read as a configuration of Prometheus; run taskscope build"
        ) from error
    return tuple(sorted(files))


def text_of(path: Path) -> str:
    """What the file says. Raises EngineError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read: {error.strerror}; see its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is not UTF-8; run taskscope build") from error


def assemble_prometheus(layout: Layout, folder: Path) -> dict[Path, str]:
    """The files of Prometheus' folder but for the target lists: the generated configuration and rules, unchanged."""
    files = {folder / "prometheus.yml": text_of(layout.prometheus_config)}
    for rules in sorted(layout.rules.glob("*.rules.yml")):
        files[folder / "rules" / rules.name] = text_of(rules)
    return files


def forget_rules(folder: Path) -> None:
    """No rule file of an earlier start is left in Prometheus' folder; one that was renamed would still be loaded."""
    for rules in (folder / "rules").glob("*.yml"):
        try:
            rules.unlink()
        except OSError as error:
            raise EngineError(
                f"{rules} cannot be removed: {error.strerror}; remove it, or name another folder with --folder"
            ) from error


def upstream_conf(ports: Sequence[int]) -> str:
    """nginx's list of API instances on this machine."""
    servers = "".join(f"    server {HOST}:{port} max_fails=2 fail_timeout=2s;\n" for port in ports)
    return f"upstream api {{\n{servers}    keepalive 16;\n}}\n"


def listen_conf(port: int) -> str:
    """The address on which nginx listens here, and no access log: its default is a file that only root may write."""
    return f"listen {HOST}:{port};\naccess_log off;\n"


class Targets:
    """Prometheus' target lists; it rereads one as soon as it changes, so a part is scraped once it runs."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._files = {Path(name).stem: folder / name for name in files}
        self._known: dict[str, list[str]] = {job: [] for job in self._files}
        for job in self._files:
            self._write(job)

    def add(self, scraped: Mapping[str, str]) -> None:
        """The `host:port` of each job in `scraped` is in its list; a job without a list is left aside.

        Raises EngineError when a list cannot be written.
        """
        for job, target in scraped.items():
            if target not in self._known.get(job, (target,)):
                self._known[job].append(target)
                self._write(job)

    def _write(self, job: str) -> None:
        path = self._files[job]
        found = self._known[job]
        text = json.dumps([{"targets": found}] if found else []) + "\n"
        beside = path.with_suffix(".new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_text(text, encoding="ascii")
            beside.replace(path)  # whole at every moment: Prometheus may read it now
        except OSError as error:
            raise EngineError(
                f"{path} cannot be written: {error.strerror}; free the disk, or name another folder with --folder"
            ) from error
