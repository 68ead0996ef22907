"""`/logging` on the admin port: how much is logged now, and a change of it for a stated time.

`GET` tells, `PUT {"level": "DEBUG", "sample": 1.0, "for_s": 600}` changes, `DELETE` takes it back. Each must present
the token of TASKSCOPE_ADMIN_TOKEN, which is not the scrapers': who may look may not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from taskscope.errors import SettingsError
from taskscope.scraping.exposition import Answer, allowed

if TYPE_CHECKING:
    from taskscope.logs.verbosity import State, Verbosity

__all__ = ["LOGGING_PATH", "MOST_BYTES", "LogControl"]

LOGGING_PATH: Final = "/logging"
MOST_BYTES: Final = 4096
"""The most bytes of a request's body."""

_JSON: Final = "application/json"
_NO_TOKEN: Final = Answer(
    403, b"set TASKSCOPE_ADMIN_TOKEN for the service to let anybody change its logging\n"
)
_UNKNOWN: Final = Answer(401, b"present the token of TASKSCOPE_ADMIN_TOKEN as a bearer token\n")
_LONG: Final = Answer(413, b"the change is longer than 4096 bytes; send level, sample and for_s\n")
_REFUSED: Final = Answer(405, b"take GET, PUT or DELETE\n")


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    level: str | None = None
    sample: float | None = None
    for_s: float = 600.0


class LogControl:
    """Answers for the verbosity of one process; the others that share its spool follow within about a second."""

    def __init__(self, verbosity: Verbosity, *, token: str | None) -> None:
        self._verbosity = verbosity
        self._token = token

    def answer(self, method: str, authorization: str, body: bytes) -> Answer:
        """What a request gets. Never raises SettingsError: what is wrong is the answer."""
        if self._token is None:
            return _NO_TOKEN
        if not allowed(authorization.encode("latin-1", "replace"), self._token):
            return _UNKNOWN
        if len(body) > MOST_BYTES:
            return _LONG
        try:
            return self._answered(method, body)
        except (SettingsError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return Answer(422, f"{error}\n".encode())

    def _answered(self, method: str, body: bytes) -> Answer:
        if method in ("GET", "HEAD"):
            return _told(self._verbosity.state())
        if method == "DELETE":
            return _told(self._verbosity.back(by="admin port"))
        if method != "PUT":
            return _REFUSED
        wanted = msgspec.json.decode(body, type=_Wanted)
        if wanted.level is None and wanted.sample is None:
            return Answer(422, b"nothing to change; name a level, a sample or both\n")
        return _told(
            self._verbosity.ask(
                level=wanted.level, sample=wanted.sample, for_s=wanted.for_s, by="admin port"
            )
        )


def _told(state: State) -> Answer:
    return Answer(200, msgspec.json.encode(state) + b"\n", _JSON)
