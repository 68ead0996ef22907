"""The one door to the official client: how it is made, and what its failures mean for a shipper."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from taskscope.errors import TaskscopeError
from taskscope_exporters.logs.lock import SHIPPER_THREAD
from taskscope_exporters.logs.settings import ShipSettings
from taskscope_exporters.logs.tls import distrusted

if TYPE_CHECKING:
    from elastic_transport import Serializer
    from elasticsearch import Elasticsearch

__all__ = ["SHIPPER_THREAD", "Cause", "Trouble", "connect", "hushed", "translated", "untraced"]

_LONGEST_WISH_S: Final = 300.0
_OVERLOADED: Final = frozenset({408, 425, 429, 502, 503, 504})
_OWN_LOGGERS: Final = (
    "elastic_transport.node",
    "elastic_transport.node_pool",
    "elastic_transport.transport",
    "elasticsearch",
    "py.warnings",
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

    timed_out: whether it may have been too large for the time it had. doubtful: whether it may have been carried out
    all the same. retry_after_s: how long the server bids to wait, 0 where it does not.
    """

    def __init__(
        self,
        cause: Cause,
        text: str,
        *,
        timed_out: bool = False,
        doubtful: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.timed_out = timed_out
        self.doubtful = doubtful
        self.retry_after_s = retry_after_s


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
            serializers=_serializers(),
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
        raise _answered(
            settings, error.meta.status, error.body, error.meta.headers.get("retry-after")
        ) from error
    except ConnectionTimeout as error:
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} did not answer within {settings.timeout_s:g} s; the lines wait on disk",
            timed_out=True,
            doubtful=True,
        ) from error
    except TlsError as error:
        raise Trouble(Cause.REFUSED, distrusted(settings, str(error.message))) from error
    except TransportError as error:
        raise Trouble(
            Cause.UNREACHABLE,
            f"{settings.url} cannot be reached ({error.message!s:.200}); start Elasticsearch or correct "
            "ELASTICSEARCH_URL, the lines wait on disk",
            doubtful=True,
        ) from error


def _answered(
    settings: ShipSettings, status: int, body: object, retry_after: str | None
) -> Trouble:
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
            # One that is too busy has not begun; what stands before it may give up on one that has.
            doubtful=status >= 500,
            retry_after_s=_wished_pause_s(retry_after),
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


def _serializers() -> dict[str, Serializer]:
    """A body that is bytes is sent as it is, an answer to a bulk request comes as bytes, all else as values."""
    from elastic_transport import JsonSerializer, NdjsonSerializer

    class Answers(JsonSerializer):
        def loads(self, data: bytes) -> Any:
            return data if data.startswith(b'{"errors":') else super().loads(data)

    class Bodies(NdjsonSerializer):
        def dumps(self, data: Any) -> bytes:
            return data if isinstance(data, bytes) else super().dumps(data)

    return {Answers.mimetype: Answers(), Bodies.mimetype: Bodies()}


def _wished_pause_s(retry_after: str | None) -> float:
    """What a header `Retry-After` says in seconds, within bounds; a date in it is not minded: clocks differ."""
    if retry_after is None or not re.fullmatch(r"[0-9]{1,9}", retry_after.strip()):
        return 0.0
    return min(float(retry_after), _LONGEST_WISH_S)


@contextmanager
def untraced() -> Iterator[None]:
    """Within it, the client's requests are no part of the service's traces: their parent is one that nobody keeps."""
    from opentelemetry import context, trace

    nobody = trace.SpanContext(trace_id=1, span_id=1, is_remote=False)
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(nobody)))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, the client's own loggers are silent here and in shippers' threads: they say once what those repeat.

    A service's own use of the client, in the same process, is heard.
    """
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
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 # the signature is given
        return not (
            threading.get_ident() == self._thread
            or threading.current_thread().name.startswith(SHIPPER_THREAD)
        )
