"""The trail of a service as its settings want it, with its series."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from taskscope.audit.trail import Audit
from taskscope.catalogue.builtin import AUDIT_FAILED, AUDIT_LINES
from taskscope.identity import Identity, load_key
from taskscope.logs.ecs import EcsEncoder
from taskscope.settings import Settings

if TYPE_CHECKING:
    from taskscope.logs.pipeline import LogPipeline
    from taskscope.logs.verbosity import State
    from taskscope.metrics.instruments import Instruments

__all__ = ["trail"]


def trail(
    instruments: Instruments,
    settings: Settings,
    pipeline: LogPipeline | None,
    *,
    service_name: str,
    service_version: str,
) -> Audit:
    """The audit trail, which is there where logs are switched off too; a change of the log level is recorded."""
    lines, failed = instruments.counter(AUDIT_LINES), instruments.counter(AUDIT_FAILED)
    for reason in AUDIT_FAILED.labels[0].values:
        failed.at((reason,))  # there from the start: the first one that fails is a rise
    audit = Audit(
        spool=settings.spool,
        encoder=_encoder(settings, service_name, service_version)
        if pipeline is None
        else pipeline.encoder,
        max_bytes=settings.audit_max_bytes,
        segment_bytes=settings.segment_bytes,
        key=settings.audit_key,
        identity=lambda: _identity(pipeline, settings, service_name),
        on_line=lambda outcome: lines.at((outcome,)).inc(),
        on_fail=lambda reason: failed.at((reason,)).inc(),
        on_error=lambda error: instruments.failed("logs", error),
        complaints=sys.stderr,
    )
    if pipeline is not None and pipeline.upkeep is not None:
        pipeline.upkeep.verbosity.asked = lambda state, by: _changed(audit, state, by)
    return audit


def _changed(audit: Audit, state: State, by: str) -> None:
    audit.record(
        "logging.changed",
        level=state.level,
        access_sample=state.sample,
        seconds_left=state.seconds_left,
        asked_by=by,
    )


def _encoder(settings: Settings, service_name: str, service_version: str) -> EcsEncoder:
    return EcsEncoder(
        service_name=service_name,
        service_version=service_version,
        environment=settings.environment,
        instance=settings.instance,
        redact=settings.redact,
    )


def _identity(
    pipeline: LogPipeline | None, settings: Settings, service_name: str
) -> Identity | None:
    if pipeline is not None:
        return pipeline.identity
    key = load_key(settings.spool) if settings.user_key is None else settings.user_key
    return Identity(service_name=service_name, key=key)
