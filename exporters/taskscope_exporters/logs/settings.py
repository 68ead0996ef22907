"""One frozen ShipSettings for the shipper, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskscope.errors import SettingsError
from taskscope.settings import Settings
from taskscope_exporters.logs.streams import StreamSettings

__all__ = ["Secret", "ShipSettings"]

_ENVIRONMENT: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,99}\Z")
_FINGERPRINT: Final = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z")
_SWITCH: Final = {"": False, "false": False, "0": False, "true": True, "1": True}
_SHIPS: Final = {"": False, "apart": False, "inline": True}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret given as text, or as a file that is read each time it is needed, so that a new one is taken up."""

    text: str = field(default="", repr=False)
    file: Path | None = None

    def read(self) -> str:
        """The secret without surrounding blanks. Raises OSError if its file cannot be read."""
        return self.file.read_text("utf-8").strip() if self.file is not None else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipSettings:
    """Where lines come from, where they go and in which portions.

    url: of Elasticsearch, without a login. api_key, or username and password: how to log in; none of them for a
    server without security. check_key: an API key that asks whether lines are stored, for a shipper that may only
    write; one that cannot be used stops nothing.
    ca_cert: the authority of a server's certificate that the system does not know.
    fingerprint: instead of an authority, the SHA-256 of the server's certificate or of one that signed it.
    environment: the last part of the data stream's name. streams: how the streams' templates are made.
    inline: whether the service's own processes ship, where `ship_in_background` is called.
    batch_lines, batch_bytes: the most of one request. in_flight: requests side by side while all is well.
    gzip: whether bodies are packed, at level 1. timeout_s: after which a request is given up and sent again.
    pause_s: seconds between looks into an empty spool. backoff_s: the longest pause after a failure.
    """

    spool: Path = Path(".taskscope/spool")
    environment: str = "local"
    url: str = "http://127.0.0.1:9200"
    api_key: Secret | None = None
    check_key: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    ca_cert: Path | None = None
    fingerprint: str | None = None
    streams: StreamSettings = field(default_factory=StreamSettings)
    inline: bool = False
    batch_lines: int = 1000
    batch_bytes: int = 1024 * 1024
    in_flight: int = 2
    gzip: bool = False
    timeout_s: float = 10.0
    pause_s: float = 0.25
    backoff_s: float = 30.0

    def __post_init__(self) -> None:
        faults = [
            fault
            for fault in (
                *self._address_faults(),
                *self._trust_faults(),
                *self._login_faults(),
            )
            if fault
        ]
        if faults:
            raise SettingsError("; ".join(faults))

    def _address_faults(self) -> tuple[str, ...]:
        return (
            ""
            if _is_address(self.url)
            else f"ELASTICSEARCH_URL={_without_login(self.url)!r} is no address; write it as https://host:9200",
            "ELASTICSEARCH_URL holds a login; move it to ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"
            if "@" in self.url
            else "",
            ""
            if _ENVIRONMENT.match(self.environment)
            else f"TASKSCOPE_ENVIRONMENT={self.environment!r} cannot end a data stream's name; write lower-case "
            "letters, digits, - _ or .",
        )

    def _trust_faults(self) -> tuple[str, ...]:
        clear = self.url.startswith("http:")
        return (
            f"ELASTICSEARCH_CA_CERT={str(self.ca_cert)!r} is no file; name the authority's certificate (PEM)"
            if self.ca_cert is not None and not self.ca_cert.is_file()
            else "",
            "ELASTICSEARCH_CA_CERT is set but ELASTICSEARCH_URL begins with http:; write https:"
            if self.ca_cert is not None and clear
            else "",
            "ELASTICSEARCH_FINGERPRINT is set but ELASTICSEARCH_URL begins with http:; write https:"
            if self.fingerprint is not None and clear
            else "",
            "ELASTICSEARCH_FINGERPRINT is no SHA-256; write its 64 hexadecimal digits"
            if self.fingerprint is not None and not _FINGERPRINT.match(self.fingerprint)
            else "",
            "ELASTICSEARCH_CA_CERT and ELASTICSEARCH_FINGERPRINT are both set; keep one of them"
            if self.ca_cert is not None and self.fingerprint is not None
            else "",
        )

    def _login_faults(self) -> tuple[str, ...]:
        named, with_password = self.username is not None, self.password is not None
        return (
            "ELASTICSEARCH_API_KEY and ELASTICSEARCH_USERNAME are both set; keep one of them"
            if self.api_key is not None and named
            else "",
            "ELASTICSEARCH_USERNAME is set without ELASTICSEARCH_PASSWORD; set it too, or ELASTICSEARCH_PASSWORD_FILE"
            if named and not with_password
            else "",
            "ELASTICSEARCH_PASSWORD is set without ELASTICSEARCH_USERNAME; set it too"
            if with_password and not named
            else "",
            *_unreadable("ELASTICSEARCH_API_KEY_FILE", self.api_key),
            *_unreadable("ELASTICSEARCH_PASSWORD_FILE", self.password),
        )

    @property
    def in_the_clear(self) -> bool:
        """Whether a login would cross a network unencrypted."""
        address = urlsplit(self.url)
        has_login = any((self.api_key, self.check_key, self.password))
        return has_login and address.scheme == "http" and address.hostname not in _LOOPBACK

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ShipSettings:
        """The settings that `environ` asks for. Raises SettingsError naming every wrong variable at once.

        `ELASTICSEARCH_URL`, `ELASTICSEARCH_API_KEY` or `ELASTICSEARCH_USERNAME` with `ELASTICSEARCH_PASSWORD`,
        `ELASTICSEARCH_CHECK_KEY`, each secret also as a file (`…_FILE`), `ELASTICSEARCH_CA_CERT` or
        `ELASTICSEARCH_FINGERPRINT`, `ELASTICSEARCH_GZIP`, `ELASTICSEARCH_SHIP` (`inline` or `apart`), those of
        StreamSettings; spool and environment as the library does.
        """
        faults: list[str] = []
        values: dict[str, object] = {}
        try:
            library = Settings.from_environ(environ)
            values = {"spool": library.spool, "environment": library.environment}
        except SettingsError as error:
            faults.append(str(error))
        try:
            values["streams"] = StreamSettings.from_environ(environ)
        except SettingsError as error:
            faults.append(str(error))
        values["gzip"] = _gzip(environ.get("ELASTICSEARCH_GZIP", "").strip().lower(), faults)
        values["inline"] = _inline(environ.get("ELASTICSEARCH_SHIP", "").strip().lower(), faults)
        for variable, name in (
            ("ELASTICSEARCH_URL", "url"),
            ("ELASTICSEARCH_USERNAME", "username"),
            ("ELASTICSEARCH_FINGERPRINT", "fingerprint"),
        ):
            if text := environ.get(variable, "").strip():
                values[name] = text
        if path := environ.get("ELASTICSEARCH_CA_CERT", "").strip():
            values["ca_cert"] = Path(path)
        for variable, name in (
            ("ELASTICSEARCH_API_KEY", "api_key"),
            ("ELASTICSEARCH_CHECK_KEY", "check_key"),
            ("ELASTICSEARCH_PASSWORD", "password"),
        ):
            values[name] = _secret(environ, variable, faults)
        try:
            settings = cls(**values)  # type: ignore[arg-type] # each name is given its field's type above
        except SettingsError as error:
            raise SettingsError("; ".join([*faults, str(error)])) from error
        if faults:
            raise SettingsError("; ".join(faults))
        return settings


def _gzip(text: str, faults: list[str]) -> bool:
    if text not in _SWITCH:
        faults.append(f"ELASTICSEARCH_GZIP={text!r} cannot be read; write true or false")
    return _SWITCH.get(text, False)


def _inline(text: str, faults: list[str]) -> bool:
    if text not in _SHIPS:
        faults.append(f"ELASTICSEARCH_SHIP={text!r} cannot be read; write inline or apart")
    return _SHIPS.get(text, False)


def _secret(environ: Mapping[str, str], variable: str, faults: list[str]) -> Secret | None:
    text = environ.get(variable, "").strip()
    path = environ.get(f"{variable}_FILE", "").strip()
    if text and path:
        faults.append(f"{variable} and {variable}_FILE are both set; keep one of them")
    if path:
        return Secret(file=Path(path))
    return Secret(text=text) if text else None


def _unreadable(variable: str, secret: Secret | None) -> tuple[str, ...]:
    if secret is None or secret.file is None:
        return ()
    try:
        found = secret.read()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        return (
            f"{variable}={str(secret.file)!r} cannot be read: {why}; name a file this user may read",
        )
    return () if found else (f"{variable}={str(secret.file)!r} is empty; write the secret into it",)


def _is_address(url: str) -> bool:
    """Whether the client can use it: with a scheme, a host and a port."""
    try:
        address = urlsplit(url)
        return bool(address.scheme in ("http", "https") and address.hostname and address.port)
    except ValueError:
        return False


def _without_login(url: str) -> str:
    return url.rpartition("@")[2]
