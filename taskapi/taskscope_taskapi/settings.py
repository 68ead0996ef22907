"""How one instance of the task API behaves: read once from `TASKAPI_*`, checked as a whole, passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from taskscope.errors import SettingsError
from taskscope.settings import is_service_link

__all__ = ["MOST_CONNECTIONS", "Network", "Settings"]

Network = IPv4Network | IPv6Network

MOST_CONNECTIONS: Final = 20
"""The most database connections one instance may hold, lent and spare together."""

_PREFIX: Final = "TASKAPI_"
_LEAST_SECRET_BYTES: Final = 32
_SECRETS: Final = frozenset({"jwt_secret", "database_url"})


class Settings(BaseSettings):
    """All that may be set. Each field's description is the remedy that an error names.

    Times are seconds, sizes are bytes. `from_environ` reads the environment; keyword arguments are for tests.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    state_dir: Path = Field(Path(".taskscope"), description="name a folder that may be written")
    database_url: str = Field(
        "", description="write sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME"
    )
    jwt_secret: SecretStr | None = Field(
        None, description=f"give at least {_LEAST_SECRET_BYTES} random bytes: openssl rand -hex 32"
    )
    jwt_secret_file: Path | None = Field(
        None, description="name a file of mode 0600 with at least 32 random bytes"
    )
    issuer: str = Field("taskscope-taskapi", min_length=1, description="write a name")
    audience: str = Field("taskscope-taskapi", min_length=1, description="write a name")
    access_s: int = Field(900, ge=1, le=900, description="write seconds, at most 900")
    refresh_s: int = Field(30 * 86400, ge=60, le=90 * 86400, description="write seconds, to 90 d")
    rate_limit: int = Field(
        100, ge=1, le=10**9, description="write how many requests a client may send in a window"
    )
    rate_window_s: int = Field(900, ge=1, le=86400, description="write seconds, at most 86400")
    login_limit: int = Field(
        10,
        ge=1,
        le=10**9,
        description="write how many failed logins an account may have in a window",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="list the proxies' own networks with commas between, such as 127.0.0.1/32"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="list origins with commas between, such as https://tasks.example"
    )
    pool_size: int = Field(10, ge=1, le=MOST_CONNECTIONS, description="write 1 to 20")
    pool_overflow: int = Field(10, ge=0, le=MOST_CONNECTIONS, description="write 0 to 19")
    pool_wait_s: float = Field(2.0, gt=0, le=30, description="write seconds, at most 30")
    statement_s: float = Field(5.0, gt=0, le=60, description="write seconds, at most 60")
    body_bytes: int = Field(1024 * 1024, ge=1024, le=16 * 1024 * 1024, description="write bytes")
    body_s: float = Field(15.0, gt=0, le=300, description="write seconds, at most 300")
    header_s: float = Field(10.0, gt=0, le=300, description="write seconds, at most 300")
    header_bytes: int = Field(32 * 1024, ge=4096, le=64 * 1024, description="write 4096 to 65536")
    concurrency: int = Field(256, ge=1, le=100_000, description="write a number of connections")
    hash_wait_s: float = Field(0.25, ge=0, le=5, description="write seconds, at most 5")
    open_tasks_s: float = Field(10.0, gt=0, le=3600, description="write seconds between two counts")
    shutdown_s: int = Field(15, ge=1, le=300, description="write seconds, at most 300")
    faults: bool = Field(False, description="write true or false")
    docs: bool = Field(False, description="write true or false")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 # the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords alone: what is read from where is decided in `from_environ`, in one place."""
        return (init_settings,)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings that `environ` asks for. Raises SettingsError with a sentence per wrong variable."""
        given = {
            name.removeprefix(_PREFIX).lower(): text.strip()
            for name, text in environ.items()
            if name.startswith(_PREFIX) and text.strip() and not is_service_link(name, text)
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            faults = [_sentence(fault, given) for fault in error.errors(include_url=False)]
            raise SettingsError("\n".join(faults)) from None

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _read_networks(cls, found: object) -> object:
        if not isinstance(found, str):
            return found
        parts = [part.strip() for part in found.split(",") if part.strip()]
        if "*" in parts:
            raise ValueError("* would believe the forwarded headers of anybody")
        return tuple(ip_network(part) for part in parts)

    @field_validator("trusted_proxies")
    @classmethod
    def _refuse_everybody(cls, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("a network of length 0 would believe the forwarded headers of anybody")
        return networks

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _read_origins(cls, found: object) -> object:
        if not isinstance(found, str):
            return found
        return tuple(part.strip() for part in found.split(",") if part.strip())

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or "*" in origin:
                raise ValueError(f"{origin} is no origin")
            if origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"{origin} has more than a scheme and a host")
        return origins

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, url: str) -> str:
        if url and not url.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
            raise ValueError("neither SQLite through aiosqlite nor PostgreSQL through asyncpg")
        if ":memory:" in url or url == "sqlite+aiosqlite:///":
            raise ValueError("a database in memory would differ from one connection to the next")
        return url

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        if len(secret.get_secret_value().encode()) < _LEAST_SECRET_BYTES:
            raise ValueError("too short to resist guessing")
        if len(set(secret.get_secret_value())) < 8:
            raise ValueError("too uniform to be random")
        return secret

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.pool_size + self.pool_overflow > MOST_CONNECTIONS:
            raise ValueError(
                f"{_PREFIX}POOL_SIZE={self.pool_size} and {_PREFIX}POOL_OVERFLOW={self.pool_overflow} "
                f"make more than {MOST_CONNECTIONS} connections; lower one of them"
            )
        if self.jwt_secret is not None and self.jwt_secret_file is not None:
            raise ValueError(
                f"{_PREFIX}JWT_SECRET and {_PREFIX}JWT_SECRET_FILE are both set; keep one of them"
            )
        return self

    @property
    def database(self) -> str:
        """The database's URL: the one given, or a SQLite file in the state folder."""
        return self.database_url or f"sqlite+aiosqlite:///{self.state_dir / 'taskapi.sqlite'}"


def _sentence(fault: ErrorDetails, given: Mapping[str, str]) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    variable = f"{_PREFIX}{name.upper()}"
    field = Settings.model_fields.get(name)
    if field is None:
        known = ", ".join(f"{_PREFIX}{known.upper()}" for known in sorted(Settings.model_fields))
        return f"{variable} is not a setting; the settings are {known}"
    shown = "" if name in _SECRETS else f"={given.get(name, '')!r}"
    return f"{variable}{shown} is refused: {message}; {field.description}"
