"""What the API takes and gives. Input refuses unknown fields; output shows only what is listed here."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from taskscope_taskapi.models import TaskStatus

__all__ = [
    "Credentials",
    "Health",
    "Page",
    "Refresh",
    "Registration",
    "Statistics",
    "TaskChange",
    "TaskDraft",
    "TaskQuery",
    "TaskView",
    "Tokens",
    "UserView",
]

LONGEST_PASSWORD: Final = 128
SHORTEST_PASSWORD: Final = 8
_KEPT_CONTROLS: Final = frozenset("\n\t")


def _without_controls(found: object) -> object:
    """Control characters go: they forge log lines and terminals, and PostgreSQL refuses NUL."""
    if not isinstance(found, str):
        return found
    return "".join(
        sign for sign in found if sign in _KEPT_CONTROLS or unicodedata.category(sign) != "Cc"
    )


def _on_one_line(found: str) -> str:
    return " ".join(found.split())


def _lower(found: str) -> str:
    return found.lower()


Title = Annotated[
    str,
    BeforeValidator(_without_controls),
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_on_one_line),
]
Description = Annotated[str, BeforeValidator(_without_controls), StringConstraints(max_length=4000)]
Username = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=3, max_length=32, pattern=r"^[A-Za-z0-9._-]+$"
    ),
    AfterValidator(_lower),
]
Email = Annotated[EmailStr, Field(max_length=254), AfterValidator(_lower)]
NewPassword = Annotated[SecretStr, Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)]
KnownPassword = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_PASSWORD)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Output(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Registration(_Input):
    """Who wants an account."""

    username: Username
    email: Email
    password: NewPassword


class Credentials(_Input):
    """Who wants to log in; `username` may be the name or the e-mail address."""

    username: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=254),
        AfterValidator(_lower),
    ]
    password: KnownPassword


class Refresh(_Input):
    """A refresh token, to be changed for a new pair."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=2048)]


class TaskDraft(_Input):
    """A task to be."""

    title: Title
    description: Description = ""
    status: TaskStatus = TaskStatus.TODO


class TaskChange(_Input):
    """What is to change; a field that is left out stays as it is."""

    title: Title | None = None
    description: Description | None = None
    status: TaskStatus | None = None

    @model_validator(mode="after")
    def _no_nulls(self) -> Self:
        nulls = [name for name in sorted(self.model_fields_set) if getattr(self, name) is None]
        if nulls:
            raise ValueError(f"{', '.join(nulls)} cannot be null; leave it out to keep it")
        return self


class TaskQuery(_Input):
    """Which part of a list is wanted."""

    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=1_000_000)
    status: TaskStatus | None = None


class UserView(_Output):
    """An account as its owner sees it."""

    id: UUID
    username: str
    email: str
    created_at: datetime


class TaskView(_Output):
    """A task as its owner sees it."""

    id: UUID
    title: str
    description: str
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class Tokens(_Output):
    """A pair of tokens; `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 # the scheme's name, no secret
    expires_in: int


class Statistics(_Output):
    """A user's tasks in numbers. completion_ratio: done of all, 0 to 1; 0 without tasks."""

    total: int
    by_status: dict[TaskStatus, int]
    completion_ratio: float


class Health(_Output):
    """What an instance says of itself: names, never addresses."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, Literal["ok", "unavailable"]] = {}


class Page(BaseModel):
    """Where a list's part lies in the whole."""

    limit: int
    offset: int
    total: int
