"""One frozen Settings for the library, read once from the environment.

OpenTelemetry's own variables come first; a `TASKSCOPE_*` variable exists only where OpenTelemetry has none.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskscope.errors import SettingsError
from taskscope.redaction import DEFAULT, PRESETS, Redaction

__all__ = ["Settings", "is_service_link"]

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SIGNALS: Final = ("SIGUSR1", "SIGUSR2", "none")
_SAMPLERS: Final = (
    "always_off",
    "always_on",
    "parentbased_always_off",
    "parentbased_always_on",
    "parentbased_traceidratio",
    "traceidratio",
)
_SHORTEST_TOKEN: Final = 16
_SHORTEST_KEY: Final = 16
_LEAST_AUDIT_BYTES: Final = 1024 * 1024
_LONGEST_KEY: Final = 4096
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LINK: Final = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINKED: Final = ("tcp://", "udp://", "sctp://")


def is_service_link(variable: str, text: str) -> bool:
    """Whether Kubernetes put the variable there: it names each Service of a namespace to all pods in it.

    A Service called taskapi gives `TASKAPI_SERVICE_HOST`, `TASKAPI_PORT=tcp://…` and more, which nobody set.
    """
    return _LINK.fullmatch(variable) is not None or (
        variable.endswith("_PORT") and text.startswith(_LINKED)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the library behaves in one process. `from_environ` reads it; a test or an app may build its own.

    metrics_path: where the exposition answers. excluded_paths: paths that are neither measured nor traced.
    environment: `deployment.environment.name`. instance: `service.instance.id`, the host and process by default.
    log_level: the least level that is written. log_stderr: whether lines are printed as well.
    log_sample: share of access lines of requests that went well, 0 to 1; errors and slow ones are always written.
    log_rate: lines a second of one event (logger, level and message) in the long run, 0 for no bound. log_burst: the
    most of them at once. log_locals: whether an exception's frames tell their local variables, redacted and cut.
    log_signal: what asks for DEBUG for ten minutes, and for the settings again: SIGUSR1, SIGUSR2 or none.
    spool: the folder that lines are written to before they are shipped.
    spool_max_bytes: above it, new lines are dropped and counted. segment_bytes: size at which a file is rolled.
    access_log: whether each request leaves one line.
    trace_ratio: share of traces that are sampled, 0 to 1. otlp_endpoint: base URL of an OTLP/HTTP receiver, or None.
    otlp_traces_endpoint: the whole URL that takes traces, where it is not below the base.
    trace_sampler: who decides on a trace, by OpenTelemetry's name; `always_…` takes the ratio for 1 or 0.
    redact: what is replaced before it leaves the process: a `Redaction`, True for the default, False for nothing.
    trusted_hops: networks of callers whose `traceparent` is continued; anybody else's becomes a link.
    max_traces_per_second: the most requests a second that are sampled in one process.
    slow_request_s: an unsampled request that takes longer still gets its server span, as one that fails does.
    metrics_token: what a scrape must present as its bearer token, or None. metrics_port: a port of the loopback
    that alone answers scrapes, or None for the app's own.
    admin_token: what a change of the log level must present at that port; without it nobody can ask for one there.
    user_key: what keys the hash of a user's id, at least 16 random bytes; by default a key in the spool's folder.
    Hosts with spools of their own need one in common for a user to have one hash on all of them.
    audit_max_bytes: the most that audit lines take on disk before they are shipped; no other line takes their room.
    audit_key: what seals the audit lines, at least 16 random bytes; by default a key in the folder where they wait.
    multiprocess_dir: the folder that all worker processes of one instance share, or None for a single process.
    commit: `vcs.ref.head.revision` of the service, for `taskscope_build_info`.
    """

    metrics_path: str = "/metrics"
    excluded_paths: tuple[str, ...] = ("/metrics", "/livez", "/readyz")
    environment: str = "local"
    instance: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    log_level: str = "INFO"
    log_stderr: bool = False
    log_sample: float = 1.0
    log_rate: float = 5_000.0
    log_burst: int = 50_000
    log_locals: bool = False
    log_signal: str = "SIGUSR2"
    access_log: bool = True
    spool: Path = Path(".taskscope/spool")
    spool_max_bytes: int = 256 * 1024 * 1024
    segment_bytes: int = 4 * 1024 * 1024
    trace_ratio: float = 1.0
    otlp_endpoint: str | None = None
    otlp_traces_endpoint: str | None = None
    trace_sampler: str = "parentbased_traceidratio"
    redact: Redaction | bool = True
    trusted_hops: tuple[str, ...] = ()
    max_traces_per_second: float = 100.0
    slow_request_s: float = 1.0
    metrics_token: str | None = field(default=None, repr=False)
    metrics_port: int | None = None
    admin_token: str | None = field(default=None, repr=False)
    user_key: bytes | None = field(default=None, repr=False)
    multiprocess_dir: Path | None = None
    audit_max_bytes: int = 64 * 1024 * 1024
    audit_key: bytes | None = field(default=None, repr=False)
    commit: str = "unknown"

    def __post_init__(self) -> None:
        faults = [
            fault
            for fault in (
                _unless(
                    self.metrics_path.startswith("/"),
                    "metrics_path",
                    self.metrics_path,
                    "begin it with /",
                ),
                *(
                    _unless(
                        found is None or isinstance(found, Path),
                        name,
                        found,
                        f"write Path({str(found)!r})",
                    )
                    for name, found in (
                        ("spool", self.spool),
                        ("multiprocess_dir", self.multiprocess_dir),
                    )
                ),
                _unless(
                    self.log_level in _LEVELS,
                    "log_level",
                    self.log_level,
                    f"take one of {', '.join(_LEVELS)}",
                ),
                _unless(
                    0 <= self.trace_ratio <= 1,
                    "trace_ratio",
                    self.trace_ratio,
                    "take a share from 0 to 1",
                ),
                _unless(
                    self.segment_bytes >= 65_536,
                    "segment_bytes",
                    self.segment_bytes,
                    "take at least 65536",
                ),
                _unless(
                    self.spool_max_bytes >= self.segment_bytes,
                    "spool_max_bytes",
                    self.spool_max_bytes,
                    f"take at least one segment, {self.segment_bytes}",
                ),
                _unless(
                    self.otlp_endpoint is None
                    or urlsplit(self.otlp_endpoint).scheme in ("http", "https"),
                    "otlp_endpoint",
                    self.otlp_endpoint,
                    "write it as http://host:4318",
                ),
                _unless(
                    self.otlp_traces_endpoint is None
                    or urlsplit(self.otlp_traces_endpoint).scheme in ("http", "https"),
                    "otlp_traces_endpoint",
                    self.otlp_traces_endpoint,
                    "write it as http://host:4318/v1/traces",
                ),
                _unless(
                    self.trace_sampler in _SAMPLERS,
                    "trace_sampler",
                    self.trace_sampler,
                    f"take one of {', '.join(_SAMPLERS)}",
                ),
                _unless(
                    all(map(_is_network, self.trusted_hops)),
                    "trusted_hops",
                    self.trusted_hops,
                    "write addresses or networks such as 10.0.0.0/8",
                ),
                _unless(
                    self.max_traces_per_second > 0,
                    "max_traces_per_second",
                    self.max_traces_per_second,
                    "take a number above 0",
                ),
                _unless(
                    isinstance(self.redact, Redaction | bool),
                    "redact",
                    self.redact,
                    "take a Redaction, True or False",
                ),
                _unless(
                    self.slow_request_s > 0,
                    "slow_request_s",
                    self.slow_request_s,
                    "take a number of seconds above 0",
                ),
                _unless(
                    self.metrics_token is None or len(self.metrics_token) >= _SHORTEST_TOKEN,
                    "metrics_token",
                    f"{len(self.metrics_token or '')} characters long",
                    f"take at least {_SHORTEST_TOKEN} random ones",
                ),
                _unless(
                    self.admin_token is None or len(self.admin_token) >= _SHORTEST_TOKEN,
                    "admin_token",
                    f"{len(self.admin_token or '')} characters long",
                    f"take at least {_SHORTEST_TOKEN} random ones",
                ),
                _unless(
                    0 <= self.log_sample <= 1,
                    "log_sample",
                    self.log_sample,
                    "take a share from 0 to 1",
                ),
                _unless(
                    self.log_rate == 0 or 1 <= self.log_rate < math.inf,
                    "log_rate",
                    self.log_rate,
                    "take a number of lines a second from 1 up, or 0 for no bound",
                ),
                _unless(self.log_burst >= 2, "log_burst", self.log_burst, "take at least 2 lines"),
                _unless(
                    self.log_signal in _SIGNALS,
                    "log_signal",
                    self.log_signal,
                    f"take one of {', '.join(_SIGNALS)}",
                ),
                _unless(
                    self.metrics_port is None or 0 <= self.metrics_port < 65_536,
                    "metrics_port",
                    self.metrics_port,
                    "take a free port, or 0 for any",
                ),
                _unless(
                    self.audit_max_bytes >= _LEAST_AUDIT_BYTES,
                    "audit_max_bytes",
                    self.audit_max_bytes,
                    f"take at least {_LEAST_AUDIT_BYTES}",
                ),
                _unless(
                    self.audit_key is None or len(self.audit_key) >= _SHORTEST_KEY,
                    "audit_key",
                    f"{len(self.audit_key or b'')} bytes long",
                    f"take at least {_SHORTEST_KEY} random ones",
                ),
                _unless(
                    self.user_key is None or len(self.user_key) >= _SHORTEST_KEY,
                    "user_key",
                    f"{len(self.user_key or b'')} bytes long",
                    f"take at least {_SHORTEST_KEY} random ones",
                ),
            )
            if fault
        ]
        if faults:
            raise SettingsError("; ".join(faults))

    @property
    def redaction(self) -> Redaction | None:
        """What is hidden, or None where nothing is."""
        if isinstance(self.redact, Redaction):
            return self.redact
        return DEFAULT if self.redact else None

    @property
    def traces_endpoint(self) -> str | None:
        """The whole URL that spans are sent to, or None."""
        if self.otlp_traces_endpoint is not None or self.otlp_endpoint is None:
            return self.otlp_traces_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/traces"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` asks for. Raises SettingsError naming every wrong variable at once."""
        values: dict[str, object] = {}
        faults: list[str] = []
        for variable, (name, read, remedy) in _VARIABLES.items():
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[name] = read(text)
            except ValueError:
                faults.append(f"{variable}={text!r} cannot be read; {remedy}")
        faults += [
            f"{variable} is not a setting; the settings are {', '.join(sorted(_own()))}"
            for variable, text in environ.items()
            if variable.startswith("TASKSCOPE_")
            and variable not in _VARIABLES
            and not is_service_link(variable, text)
        ]
        try:
            settings = cls(**values)  # type: ignore[arg-type] # each reader returns its field's type
        except SettingsError as error:
            raise SettingsError("; ".join([*faults, str(error)])) from error
        if faults:
            raise SettingsError("; ".join(faults))
        return settings


def _unless(holds: bool, name: str, found: object, remedy: str) -> str:
    return "" if holds else f"setting {name} is {found!r}; {remedy}"


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _token_file(text: str) -> str:
    try:
        return Path(text).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(text) from error


def _key_file(text: str) -> bytes:
    try:
        with Path(text).open("rb") as file:
            key = file.read(_LONGEST_KEY + 1)
    except OSError as error:
        raise ValueError(text) from error
    if len(key) > _LONGEST_KEY:  # a device of random bytes would give another key in each process
        raise ValueError(text)
    return key


def _flag(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _redaction(text: str) -> Redaction | bool:
    if text.lower() in _TRUE | _FALSE:
        return _flag(text)
    try:
        return Redaction.of(text.lower())
    except SettingsError as error:
        raise ValueError(text) from error


def _signal(text: str) -> str:
    return "none" if text.lower() == "none" else text.upper()


def _paths(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_FLAG: Final = "write true or false"
_BYTES: Final = "write a number of bytes"
_VARIABLES: Final[dict[str, tuple[str, Callable[[str], object], str]]] = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("otlp_endpoint", str, "write it as http://host:4318"),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": (
        "otlp_traces_endpoint",
        str,
        "write it as http://host:4318/v1/traces",
    ),
    "OTEL_TRACES_SAMPLER": ("trace_sampler", str.lower, f"take one of {', '.join(_SAMPLERS)}"),
    "OTEL_TRACES_SAMPLER_ARG": ("trace_ratio", float, "write a share from 0 to 1"),
    "TASKSCOPE_METRICS_PATH": ("metrics_path", str, "begin it with /"),
    "TASKSCOPE_EXCLUDED_PATHS": ("excluded_paths", _paths, "write paths with commas between"),
    "TASKSCOPE_ENVIRONMENT": ("environment", str, "write a name such as production"),
    "TASKSCOPE_INSTANCE": ("instance", str, "write a name that no other instance has"),
    "TASKSCOPE_LOG_LEVEL": ("log_level", str.upper, f"take one of {', '.join(_LEVELS)}"),
    "TASKSCOPE_LOG_STDERR": ("log_stderr", _flag, _FLAG),
    "TASKSCOPE_LOG_SAMPLE": ("log_sample", float, "write a share from 0 to 1"),
    "TASKSCOPE_LOG_RATE": ("log_rate", float, "write a number of lines a second"),
    "TASKSCOPE_LOG_BURST": ("log_burst", int, "write a number of lines"),
    "TASKSCOPE_LOG_LOCALS": ("log_locals", _flag, _FLAG),
    "TASKSCOPE_LOG_SIGNAL": ("log_signal", _signal, f"take one of {', '.join(_SIGNALS)}"),
    "TASKSCOPE_ACCESS_LOG": ("access_log", _flag, _FLAG),
    "TASKSCOPE_SPOOL": ("spool", Path, "write a folder's path"),
    "TASKSCOPE_SPOOL_MAX_BYTES": ("spool_max_bytes", int, _BYTES),
    "TASKSCOPE_SEGMENT_BYTES": ("segment_bytes", int, _BYTES),
    "TASKSCOPE_USER_KEY_FILE": (
        "user_key",
        _key_file,
        f"name a file of {_SHORTEST_KEY} to {_LONGEST_KEY} random bytes",
    ),
    "TASKSCOPE_AUDIT_MAX_BYTES": ("audit_max_bytes", int, _BYTES),
    "TASKSCOPE_AUDIT_KEY_FILE": (
        "audit_key",
        _key_file,
        f"name a file of {_SHORTEST_KEY} to {_LONGEST_KEY} random bytes",
    ),
    "TASKSCOPE_TRUSTED_HOPS": ("trusted_hops", _paths, "write networks with commas between"),
    "TASKSCOPE_MAX_TRACES_PER_SECOND": ("max_traces_per_second", float, "write a number"),
    "TASKSCOPE_SLOW_REQUEST_S": ("slow_request_s", float, "write a number of seconds"),
    "TASKSCOPE_METRICS_TOKEN": ("metrics_token", str, "write at least 16 random characters"),
    "TASKSCOPE_METRICS_TOKEN_FILE": ("metrics_token", _token_file, "name a file that can be read"),
    "TASKSCOPE_ADMIN_TOKEN": ("admin_token", str, "write at least 16 random characters"),
    "TASKSCOPE_ADMIN_TOKEN_FILE": ("admin_token", _token_file, "name a file that can be read"),
    "TASKSCOPE_METRICS_PORT": ("metrics_port", int, "write a free port"),
    "TASKSCOPE_MULTIPROCESS_DIR": ("multiprocess_dir", Path, "write a folder's path"),
    "TASKSCOPE_COMMIT": ("commit", str, "write the commit that was built"),
    "TASKSCOPE_REDACT": (
        "redact",
        _redaction,
        f"write true or false, or presets with commas between: {', '.join(PRESETS)}",
    ),
}


def _own() -> set[str]:
    return {variable for variable in _VARIABLES if variable.startswith("TASKSCOPE_")}
