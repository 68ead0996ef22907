"""Asks Elasticsearch which lines in doubt it has: with a key and a client for that alone, or with the shipper's login.

A key that ships may so be one that only writes. A key that cannot be used stops nothing: its lines go unasked, which
stores them twice only where their stream rolls over meanwhile.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from taskscope_exporters.logs.client import Cause, Trouble, connect
from taskscope_exporters.logs.doubt import Unreadable, backing_indices, missing
from taskscope_exporters.logs.portions import Sendable
from taskscope_exporters.logs.settings import Secret, ShipSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["LookUp"]

_KEY: Final = re.compile(r"[A-Za-z0-9+/=_\-]+")
_PASSING: Final = frozenset({Cause.UNREACHABLE, Cause.OVERLOADED})


class _Unusable(Exception):  # noqa: N818 # no failure of the shipper's
    """The key for look-ups is none; its text says what is wrong with it."""


@dataclass(slots=True, kw_only=True)
class LookUp:
    """Of one stream. say: told once when the key for it cannot be used. absent: called when there is no such stream.

    May be asked by several threads. Closed, it opens a client of its own again when it is asked.
    """

    settings: ShipSettings
    stream: str
    say: Callable[[str], None]
    absent: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    _client: Elasticsearch | None = None
    _blind_until: float = -math.inf
    _told: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def missing(
        self, shipping: Elasticsearch, lines: Sendable, *, since: str = ""
    ) -> list[int] | None:
        """The places of the lines that no backing index has; None where nobody may ask.

        shipping: the client that ships, asked where there is no key for it. since: as for `backing_indices`.
        Raises Trouble if the server cannot tell now.
        """
        if self.clock() < self._blind_until:
            return None
        if self.settings.check_key is not None:
            return self._by_key(self.settings.check_key, lines, since)
        try:
            return self._asked(shipping, lines, since)
        except Unreadable:
            self._blind_until = math.inf
            return None

    def begin(self) -> None:
        """It begins anew, as the shipper has logged in; a key that cannot be read is told before it is needed."""
        self._blind_until = -math.inf
        self.close()
        if self.settings.check_key is not None:
            try:
                _read(self.settings.check_key)
            except _Unusable as unusable:
                self._refused(str(unusable))

    def close(self) -> None:
        """The client is closed, if there was need of one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _by_key(self, key: Secret, lines: Sendable, since: str) -> list[int] | None:
        for last in (False, True):
            try:
                found = self._asked(self._own(key), lines, since)
            except Exception as error:  # whatever is wrong with this key, the lines are shipped
                if isinstance(error, Trouble) and error.cause in _PASSING:
                    raise
                self.close()
                if last or _status(error) != 401:  # one that was replaced meanwhile is read again
                    self._refused(self._reason(key, error))
                    return None
            else:
                self._told = ""
                return found
        return None

    def _asked(self, client: Elasticsearch, lines: Sendable, since: str) -> list[int]:
        indices = backing_indices(client, self.settings, self.stream, since=since)
        if not indices:
            self.absent()
        return missing(client, self.settings, indices, lines)

    def _own(self, key: Secret) -> Elasticsearch:
        with self._lock:
            if self._client is None:
                text = _read(key)
                self._client = connect(
                    replace(self.settings, api_key=Secret(text=text), username=None, password=None)
                )
            return self._client

    def _reason(self, key: Secret, error: Exception) -> str:
        status = _status(error)
        if status == 401:
            return f"{self.settings.url} does not know the key of {_name(key)} (401)"
        if status == 403 or isinstance(error, Unreadable):
            return f"{self.settings.url} does not let the key of {_name(key)} look up lines of {self.stream} (403)"
        if isinstance(error, _Unusable):
            return str(error)
        return f"a look-up with the key of {_name(key)} failed ({error!s:.200})"

    def _refused(self, reason: str) -> None:
        """It is said once, and asked again after a while, as a key may be mended."""
        self._blind_until = self.clock() + self.settings.backoff_s
        with self._lock:
            told, self._told = self._told, reason
        if told != reason:
            self.say(
                f"{reason}; name the checker.key that taskscope logs keys makes for this service, until then lines in "
                "doubt go again unasked"
            )


def _read(key: Secret) -> str:
    try:
        text = key.read()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise _Unusable(f"{_name(key)} cannot be read: {why}") from error
    if not _KEY.fullmatch(text):
        raise _Unusable(f"{_name(key)} {'holds no API key' if text else 'is empty'}")
    return text


def _name(key: Secret) -> str:
    """Its variable, and the file."""
    if key.file is None:
        return "ELASTICSEARCH_CHECK_KEY"
    return f"ELASTICSEARCH_CHECK_KEY_FILE={str(key.file)!r}"


def _status(error: BaseException) -> int | None:
    """The server's answer that the failure comes from."""
    status = getattr(getattr(error.__cause__, "meta", None), "status", None)
    return status if isinstance(status, int) else None
