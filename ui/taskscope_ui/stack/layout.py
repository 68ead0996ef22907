"""Where everything of one stack lies: in its own folder, and in the project it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taskscope.errors import EngineError
from taskscope_ui.stack.credentials import private_folder

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Absolute paths. folder: the stack's own, private to its owner. project: where the configuration lies."""

    folder: Path
    project: Path

    @property
    def run(self) -> Path:
        """What is true only while the stack runs."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """One file of output for each part."""
        return self.folder / "logs"

    @property
    def secrets(self) -> Path:
        """One file for each secret."""
        return self.folder / "secrets"

    @property
    def spool(self) -> Path:
        """The service's log lines until they are shipped."""
        return self.folder / "spool"

    @property
    def data(self) -> Path:
        """The service's own database."""
        return self.folder / "data"

    @property
    def traffic_control(self) -> Path:
        """The file by which the running traffic is told its rate and faults."""
        return self.run / "traffic.json"

    @property
    def prometheus_config(self) -> Path:
        """What the catalogue makes for Prometheus; the container mounts the same file."""
        return self.project / "exporters" / "generated" / "prometheus.yml"

    @property
    def rules(self) -> Path:
        """The folder of the generated rules."""
        return self.project / "alerts" / "generated"

    @property
    def runbooks(self) -> Path:
        """The folder of the runbooks that alerts link to; Grafana's container mounts the same."""
        return self.project / "alerts" / "runbooks"

    @property
    def alertmanager_config(self) -> Path:
        """What the catalogue makes for Alertmanager; the container mounts the same file."""
        return self.rules / "alertmanager.yml"

    @property
    def proxy_config(self) -> Path:
        """nginx's configuration, but for its upstreams and its port."""
        return self.project / "taskapi" / "deploy" / "nginx" / "nginx.conf"

    def make(self) -> None:
        """The stack's folders exist and are private. Raises EngineError."""
        for folder in (self.folder, self.run, self.logs, self.secrets, self.spool, self.data):
            private_folder(folder)

    def check(self) -> None:
        """The project's configuration is there. Raises EngineError naming the command that makes it."""
        for made in (self.prometheus_config, self.alertmanager_config):
            if not made.is_file():
                raise EngineError(
                    f"{made} is not there; run taskscope build in the project's folder, or start from there"
                )
        if not self.proxy_config.is_file():
            raise EngineError(f"{self.proxy_config} is not there; start from the project's folder")
