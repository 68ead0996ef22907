"""The one door to the official client: how it is made, and what its failures mean for a shipper."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final

from taskscope.errors import TaskscopeError
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.tls import distrusted

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Cause", "Trouble", "connect", "hushed", "translated"]

_OVERLOADED: Final = frozenset({408, 425, 429, 502, 503, 504})
_OWN_LOGGERS: Final = (
    "elastic_transport.node",
    "elastic_transport.node_pool",
    "elastic_transport.transport",
    "elasticsearch",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.util.retry",
)


class Cause(Enum):
    """Why a request did not get through; the first three are reasons of `taskscope.logs.retries`."""

    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    REFUSED = "refused"
    MALFORMED = "malformed"


class Trouble(TaskscopeError):  # noqa: N818 # it is no end: the shipper waits and goes on
    """For the shipper: a request as a whole failed; its text says what and the remedy.

    timed_out: whether it may have been too large for the time it had.
    """

    def __init__(self, cause: Cause, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.cause = cause
        self.timed_out = timed_out


def connect(settings: ShipSettings) -> Elasticsearch:
    """A client with the login as it is now in the environment or its file. It opens no connection yet.

    Raises Trouble if the login's file or the authority's certificate cannot be read.
    """
    from elastic_transport.client_utils import DEFAULT
    from elasticsearch import Elasticsearch

    try:
        api_key = settings.api_key.read() if settings.api_key else None
        password = settings.password.read() if settings.password else None
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(
            Cause.REFUSED, f"the login's file cannot be read: {error}; mend it, nothing is lost"
        ) from error
    try:
        # Retries are the shipper's: a batch that is in doubt goes again with the same ids, as often as it takes.
        return Elasticsearch(
            settings.url,
            api_key=api_key,
            basic_auth=(settings.username, password or "") if settings.username else None,
            ca_certs=str(settings.ca_cert) if settings.ca_cert else DEFAULT,
            ssl_assert_fingerprint=settings.fingerprint or DEFAULT,
            request_timeout=settings.timeout_s,
            max_retries=0,
            retry_on_timeout=False,
        )
    except (OSError, ValueError) as error:
        raise Trouble(
            Cause.REFUSED,
            f"no client for {settings.url} can be made ({error!s:.200}); correct ELASTICSEARCH_URL or "
            "ELASTICSEARCH_CA_CERT, the lines wait on disk",
        ) from error


@contextmanager
def translated(settings: ShipSettings) -> Iterator[None]:
    """Within it, a failure of the client is raised as Trouble."""
    from elastic_transport import ConnectionTimeout, TlsError, TransportError
    from elasticsearch import ApiError, UnsupportedProductError

    try:
        yield
    except UnsupportedProductError as error:
        raise Trouble(
            Cause.REFUSED, f"{settings.url} is not Elasticsearch; correct ELASTICSEARCH_URL"
        ) from error
    except ApiError as error:
        raise _answered(settings, error.meta.status, error.body) from error
    except ConnectionTimeout as error:
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} did not answer within {settings.timeout_s:g} s; the lines wait on disk",
            timed_out=True,
        ) from error
    except TlsError as error:
        raise Trouble(Cause.REFUSED, distrusted(settings, str(error.message))) from error
    except TransportError as error:
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} cannot be reached ({error.message!s:.200}); start Elasticsearch or correct "
            "ELASTICSEARCH_URL, the lines wait on disk",
        ) from error


def _answered(settings: ShipSettings, status: int, body: object) -> Trouble:
    if status == 401:
        return Trouble(
            Cause.REFUSED,
            f"{settings.url} does not know this login (401); set ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and "
            "ELASTICSEARCH_PASSWORD; the lines wait on disk",
        )
    said = _reason(body)
    if status == 403:
        return Trouble(
            Cause.REFUSED,
            f"{settings.url} does not let this login write (403: {said}); give it create_doc and auto_configure on "
            "the data stream; the lines wait on disk",
        )
    if status in _OVERLOADED or status >= 500:
        return Trouble(
            Cause.OVERLOADED,
            f"{settings.url} is overloaded ({status}: {said}); the lines wait on disk",
        )
    if status in (400, 413):
        return Trouble(Cause.MALFORMED, f"{status}: {said}")
    return Trouble(
        Cause.REFUSED,
        f"{settings.url} answered {status} ({said}); correct ELASTICSEARCH_URL, the lines wait on disk",
    )


def _reason(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else body
    reason = error.get("reason") if isinstance(error, dict) else error
    return f"{reason!s:.200}"


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, the client's own loggers are silent: the shipper says once what they would say at each try."""
    # A filter of its own, so that two shippers in one process may end in any order.
    silence = _Silence()
    loggers = [logging.getLogger(name) for name in _OWN_LOGGERS]
    for logger in loggers:
        logger.addFilter(silence)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(silence)


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 # the signature is given
        return False
