"""`taskscope logs replay`: lines that Elasticsearch refused are sent again, after a fix."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskscope_ui.commands.logs_options import Spool
from taskscope_ui.commands.options import DEFAULT_APP, App, Json
from taskscope_ui.commands.terminal import plural, say, table

if TYPE_CHECKING:
    from taskscope_exporters.logs.deadletters import Letter
    from taskscope_exporters.logs.replay import Replayed
    from taskscope_exporters.logs.settings import ShipSettings

__all__ = ["add_to", "replay"]

_REASON = 160


def add_to(logs: typer.Typer) -> None:
    """The group `logs` offers this command."""
    logs.command()(replay)


def replay(
    spool: Spool = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")
    ] = False,
    app: App = DEFAULT_APP,
    as_json: Json = False,
) -> int:
    """Send dead letters again, after a fix.

    A dead letter is a line that Elasticsearch refused for what it holds. Shows what is sent, by the server's
    reason, and what became of it. A line that is refused again stays a dead
    letter; one that was stored before is not stored twice. It may run beside a shipper, and be killed.
    Elasticsearch is found by the environment, as for `taskscope ship`.
    Exits 0 when none is left, 1 when some are, 2 with an error.

    \b
    Examples:
      taskscope logs replay --dry-run
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope logs replay --spool .taskscope/spool
    """
    from taskscope.catalogue import Catalogue
    from taskscope_exporters.logs.replay import replay as replayed
    from taskscope_exporters.logs.settings import ShipSettings
    from taskscope_exporters.logs.template import audit_spool, stream_name
    from taskscope_ui.commands.logs_screen import note

    service = Catalogue.load(app).service
    settings = ShipSettings.from_environ(os.environ)
    if spool is not None:
        settings = replace(settings, spool=spool)
    folders = {settings.spool: False, audit_spool(settings.spool): True}
    waiting = {folder: list(_letters(folder)) for folder in folders}
    _show([letter for letters in waiting.values() for letter in letters], settings, as_json)
    if dry_run or not any(waiting.values()):
        return int(any(waiting.values()))
    results = [
        replayed(
            replace(settings, spool=folder),
            service=service,
            stream=stream_name(service, settings.environment, audit=audit),
            say=note,
        )
        for folder, audit in folders.items()
        if waiting[folder]
    ]
    return _tell(results, as_json)


def _letters(folder: Path) -> Iterator[Letter]:
    """The dead letters of a folder, those of a replay that was killed first. Raises SettingsError."""
    from taskscope.errors import SettingsError
    from taskscope_exporters.logs.deadletters import FILE_NAME, TAKEN_NAME, read_letters

    for name in (TAKEN_NAME, FILE_NAME):
        try:
            yield from read_letters(folder / name)[0]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SettingsError(
                f"{folder / name} cannot be read: {error.strerror}; run as the user of the shipper"
            ) from error


def _show(letters: Sequence[Letter], settings: ShipSettings, as_json: bool) -> None:
    from taskscope_ui.commands.logs_screen import note
    from taskscope_ui.loglines.pieces import shown

    if not letters:
        note(f"there are no dead letters in {settings.spool}")
        return
    note(f"{plural(len(letters), 'dead letter')} in {settings.spool}, for {settings.url}")
    if as_json:
        return
    first = {letter.kind: letter for letter in reversed(letters)}
    rows = [
        (str(count), shown(kind), shown(first[kind].reason[:_REASON]))
        for kind, count in Counter(letter.kind for letter in letters).most_common()
    ]
    table("Dead letters", ("count", "error", "the first one's reason"), rows)


def _tell(results: Sequence[Replayed], as_json: bool) -> int:
    from taskscope_ui.commands.logs_screen import as_json as encoded
    from taskscope_ui.loglines.pieces import shown

    left: Counter[str] = Counter()
    for each in results:
        left.update(dict(each.left))
    stored = sum(each.stored for each in results)
    known = sum(each.known for each in results)
    strange = sum(each.strange for each in results)
    if as_json:
        say(encoded({"stored": stored, "known": known, "left": dict(left), "strange": strange}))
        return int(bool(left or strange))
    rows = [
        ("stored", str(stored)),
        ("stored before", str(known)),
        *((f"refused again: {shown(kind)}", str(count)) for kind, count in left.most_common()),
        *([("no letter of ours, left as it is", str(strange))] if strange else []),
    ]
    say("")
    table("What became of them", ("outcome", "lines"), rows)
    return int(bool(left or strange))
