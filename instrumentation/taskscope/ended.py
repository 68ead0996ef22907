"""How one request ended: what the outermost layer tells tracing and the access log, once, at its close.

Read by `middleware`, which makes it, and by whoever writes the late server span and the access line.
"""

from __future__ import annotations

__all__ = ["Ended"]


class Ended:
    """A request that is over.

    status: as it was sent; 499 if the client left before there was one, 500 if nothing was sent.
    outcome: one of OUTCOMES. seconds: from the first byte of the request to the last byte of its response.
    failure: what came out of the application, or None. body_bytes: of the response's body, as sent.
    """

    __slots__ = ("body_bytes", "failure", "outcome", "seconds", "status")

    def __init__(
        self,
        status: int,
        outcome: str,
        seconds: float,
        failure: BaseException | None,
        body_bytes: int,
    ) -> None:
        self.status = status
        self.outcome = outcome
        self.seconds = seconds
        self.failure = failure
        self.body_bytes = body_bytes

    def __repr__(self) -> str:
        return (
            f"Ended(status={self.status}, outcome={self.outcome!r}, seconds={self.seconds!r}, "
            f"failure={self.failure!r}, body_bytes={self.body_bytes})"
        )
