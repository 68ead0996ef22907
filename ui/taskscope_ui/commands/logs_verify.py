"""`taskscope logs verify`: whether the audit trail is what was written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from taskscope_ui.commands.logs_options import Environment, From, Service, Spool, Utc
from taskscope_ui.commands.options import DEFAULT_APP, App, Json
from taskscope_ui.commands.terminal import plural, say, table

if TYPE_CHECKING:
    from taskscope.audit import AuditKey, Break, Head, Report
    from taskscope_exporters.logs.reading.audited import Evidence

__all__ = ["add_to", "verify"]

_TRIES: Final = 3
_REFRESHED_S: Final = 1.5


def add_to(logs: typer.Typer) -> None:
    """The group `logs` offers this command."""
    logs.command()(verify)


def verify(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Runs with a line since then alone: 7d, 12h or 2026-11-24T03:12."
        ),
    ] = None,
    key_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help="A key of the trail; may be given again for others. By default the spool's own.",
        ),
    ] = None,
    spool: Spool = None,
    origin: From = "auto",
    service: Service = None,
    environment: Environment = None,
    app: App = DEFAULT_APP,
    utc: Utc = False,
    as_json: Json = False,
) -> int:
    """Check that no audit line was changed, removed, inserted or moved.

    Reads the service's audit stream in Elasticsearch, if ELASTICSEARCH_URL names it, and what the spool has not
    shipped yet. The spool's audit folder also knows how far each run had come, so that a missing end is found there.
    Needs the key that sealed the lines: --key-file, TASKSCOPE_AUDIT_KEY_FILE, or audit.key in that folder.
    A run without a closing line is open: its process still writes, or was killed.
    Exits 0 if all is intact, 1 if it is broken, each break on a line of its own, 2 if it cannot be checked.

    \b
    Examples:
      taskscope logs verify
      taskscope logs verify --since 30d --key-file audit.key --from elasticsearch
    """
    from taskscope.audit import verify as verified

    with _evidence(since, spool, origin, service, environment, app, utc) as evidence:
        keys = _keys(key_file, evidence.folder)
        for attempt in range(_TRIES):
            report = verified(
                evidence.lines(),
                keys,
                heads=_Late(evidence),
                without_before=evidence.without_before,
            )
            if evidence.server is None or not _may_be_late(report) or attempt == _TRIES - 1:
                break
            # What was shipped just now is found only once the server has refreshed.
            time.sleep(_REFRESHED_S)
    return _told(report, as_json)


class _Late:
    """The heads that `lines` has read, asked for when it has."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def __iter__(self) -> Iterator[Head]:
        return iter(self._evidence.heads)


@contextmanager
def _evidence(
    since: str | None,
    spool: Path | None,
    origin: str,
    service: str | None,
    environment: str | None,
    app: str,
    utc: bool,
) -> Iterator[Evidence]:
    """Where the lines are; stderr says it. Raises QueryError, SettingsError, ReadError."""
    from taskscope.catalogue import Catalogue
    from taskscope.settings import Settings
    from taskscope_exporters.logs.client import Trouble, connect, hushed
    from taskscope_exporters.logs.reading.audited import AuditServer, Evidence
    from taskscope_exporters.logs.reading.conditions import QueryError
    from taskscope_exporters.logs.reading.reader import Origin
    from taskscope_exporters.logs.reading.source import ReadError
    from taskscope_exporters.logs.reading.times import moment
    from taskscope_exporters.logs.settings import ShipSettings
    from taskscope_exporters.logs.template import audit_spool, stream_name
    from taskscope_ui.commands.logs_screen import note
    from taskscope_ui.commands.logs_where import environ_of

    if origin not in {each.value for each in Origin}:
        raise QueryError(f"--from {origin!r} is none; take auto, elasticsearch or spool")
    folder = spool or Settings.from_environ(os.environ).spool
    environ = environ_of(os.environ, folder)
    settings = ShipSettings.from_environ(environ)
    settings = replace(
        settings,
        spool=folder,
        environment=environment or settings.environment,
    )
    begin = None
    if since is not None:
        begin = moment(since, now=datetime.now(UTC), zone=UTC if utc else None)
    asked = origin == "elasticsearch" or (
        origin == "auto" and bool(environ.get("ELASTICSEARCH_URL", "").strip())
    )
    folder = audit_spool(settings.spool)
    here = folder.is_dir() and origin != "elasticsearch"
    if not asked and not here:
        raise ReadError(
            f"there is no audit spool {folder} and ELASTICSEARCH_URL is not set; name the service's folder with "
            "--spool, or Elasticsearch"
        )
    name = service or os.environ.get("OTEL_SERVICE_NAME") or Catalogue.load(app).service
    stream = stream_name(name, settings.environment, audit=True)
    places = [
        *([f"stream {stream} at {settings.url}"] if asked else []),
        *([f"{folder}"] if here else []),
    ]
    note(f"read from {' and '.join(places)}")
    try:
        with hushed(), connect(settings) if asked else nullcontext() as client:
            server = None
            if client is not None:
                server = AuditServer(client=client, url=settings.url, index=stream)
            yield Evidence(folder=folder if here else None, server=server, since=begin)
    except Trouble as trouble:
        raise ReadError(str(trouble)) from trouble


def _keys(named: Sequence[Path] | None, folder: Path | None) -> list[AuditKey]:
    """The keys that are there. Raises SettingsError if there is none, or one that is named cannot be read."""
    from taskscope.audit import AUDIT_KEY_FILE, AuditKey, read_audit_key
    from taskscope.errors import SettingsError
    from taskscope.settings import Settings

    keys: list[AuditKey] = []
    for path in named or ():
        try:
            keys.append(read_audit_key(path))
        except OSError as error:
            raise SettingsError(
                f"--key-file {path} cannot be read: {error.strerror or error}; name the service's {AUDIT_KEY_FILE}"
            ) from error
    given = Settings.from_environ(os.environ).audit_key
    if given is not None:
        keys.append(AuditKey(given))
    if folder is not None and (folder / AUDIT_KEY_FILE).exists():
        try:
            keys.append(read_audit_key(folder / AUDIT_KEY_FILE))
        except OSError as error:
            if not keys:
                raise SettingsError(
                    f"{folder / AUDIT_KEY_FILE} cannot be read: {error.strerror or error}; run as the user of the "
                    "service"
                ) from error
    if not keys:
        raise SettingsError(
            f"no key to check with; name the service's {AUDIT_KEY_FILE} with --key-file or TASKSCOPE_AUDIT_KEY_FILE"
        )
    return keys


def _may_be_late(report: Report) -> bool:
    from taskscope.audit import BreakKind

    return any(found.kind in (BreakKind.REMOVED, BreakKind.RUN_REMOVED) for found in report.breaks)


def _told(report: Report, as_json: bool) -> int:
    from taskscope_ui.commands.logs_screen import note

    code = 1 if report.breaks else 2 if report.unknown_keys else 0
    if as_json:
        _as_json(report)
        return code
    for sentence in report.notes:
        note(sentence)
    if report.open:
        note(f"{plural(len(report.open), 'run')} without a closing line: written still, or killed")
    if report.breaks:
        table("Breaks", _HEAD, [_row(found) for found in report.breaks])
    if report.unknown_keys:
        note(
            f"lines sealed with {', '.join(report.unknown_keys)} cannot be checked; name that key's file with "
            "--key-file"
        )
    word = ("intact", f"broken in {plural(len(report.breaks), 'place')}", "not all checked")[code]
    span = f", {report.first} to {report.last}" if report.first else ""
    say(f"{word}: {plural(report.chains, 'chain')}, {plural(report.lines, 'line')}{span}")
    return code


_HEAD: Final = ("break", "chain", "sequence", "id", "found")


def _row(found: Break) -> tuple[str, ...]:
    from taskscope_ui.loglines.pieces import shown

    place = "" if found.sequence < 0 else str(found.sequence)
    if found.last > found.sequence:
        place = f"{found.sequence}-{found.last}"
    return (
        found.kind.value,
        shown(found.chain[:32]) or "-",
        place or "-",
        shown(found.id) or "-",
        shown(found.said),
    )


def _as_json(report: Report) -> None:
    from taskscope_ui.commands.logs_screen import as_json as encoded

    breaks = [
        {
            "kind": found.kind.value,
            "chain": found.chain,
            "sequence": found.sequence,
            "last": found.last,
            "id": found.id,
            "found": found.said,
        }
        for found in report.breaks
    ]
    say(
        encoded(
            {
                "intact": report.intact,
                "chains": report.chains,
                "lines": report.lines,
                "first": report.first,
                "last": report.last,
                "open": list(report.open),
                "breaks": breaks,
                "notes": list(report.notes),
                "unknown_keys": list(report.unknown_keys),
            }
        )
    )
