"""Whether a request is sampled: decided from its headers and its caller, before any span work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from taskscope.tracing.bucket import Bucket
from taskscope.tracing.hops import Hops
from taskscope.tracing.ids import Ids
from taskscope.tracing.passage import Passage
from taskscope.tracing.traceparent import RANDOM, SAMPLED, remote_of

__all__ = ["Decider", "Rule"]

_SHARES: Final = {"always_on": 1.0, "always_off": 0.0}
_PARENT_BASED: Final = "parentbased_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a trace is decided upon.

    share: of the traces that begin here, 0 to 1. follow: a trusted caller's decision is followed.
    """

    share: float
    follow: bool

    @classmethod
    def of(cls, sampler: str, ratio: float) -> Rule:
        """The rule that one of OpenTelemetry's names for samplers stands for."""
        kind = sampler.removeprefix(_PARENT_BASED)
        return cls(share=_SHARES.get(kind, ratio), follow=sampler.startswith(_PARENT_BASED))


class Decider:
    """Decides by the trace's id, so that services with one ratio keep the same traces.

    A caller that is trusted and has decided is followed. Anybody else begins a new trace, with its own as a link.
    """

    def __init__(self, *, rule: Rule, hops: Hops, ids: Ids, bucket: Bucket) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(rule.share)
        self._follow = rule.follow
        self._hops = hops
        self._ids = ids
        self._bucket = bucket

    def decide(self, scope: Mapping[str, Any]) -> Passage:
        """The decision about an ASGI request."""
        pair = self._ids.pair()
        remote = remote_of(scope["headers"])
        if remote is None:
            trace_id, flags, parent, link = pair[:32], RANDOM, None, None
        elif self._hops.trust(scope.get("client")):
            trace_id, flags, parent, link = remote.trace_id, remote.flags, remote, None
        else:
            trace_id, flags, parent, link = pair[:32], RANDOM, None, remote
        followed = parent is not None and self._follow
        sampled = flags & SAMPLED > 0 if followed else int(trace_id[16:], 16) < self._bound
        capped = sampled and not self._bucket.take()
        return Passage(trace_id, pair[32:], flags, sampled and not capped, capped, parent, link)
