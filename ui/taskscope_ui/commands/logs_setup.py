"""`taskscope logs setup` and `logs keys`: what Elasticsearch needs before the first line comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskscope_ui.commands.options import DEFAULT_APP, App
from taskscope_ui.commands.terminal import say

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from taskscope_exporters.logs.settings import ShipSettings

__all__ = ["add_to", "keys", "setup"]


def add_to(logs: typer.Typer) -> None:
    """The group `logs` offers these commands."""
    logs.command()(setup)
    logs.command()(keys)


def setup(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    retention: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long a line is kept, such as 30d.")
    ] = None,
    audit_retention: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long an audit line is kept.")
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="Copies of each shard; by default one, if a second node can hold it."),
    ] = None,
    shards: Annotated[int | None, typer.Option(help="Shards of each backing index.")] = None,
    ilm: Annotated[
        bool | None,
        typer.Option(help="Roll over and delete by index lifecycle management."),
    ] = None,
    rollover: Annotated[
        bool,
        typer.Option("--rollover", help="Begin a new backing index if the template changed."),
    ] = False,
    app: App = DEFAULT_APP,
) -> int:
    """Put the templates of the log streams into Elasticsearch.

    Says what it changed; to run it twice changes nothing. A template that is not taskscope's is left alone.
    Elasticsearch is found by the environment, as for `taskscope ship`; the login needs the rights to manage
    index templates. What the options say may also stand in ELASTICSEARCH_RETENTION and so on.

    \b
    Examples:
      ELASTICSEARCH_URL=http://127.0.0.1:9200 taskscope logs setup --retention 14d
      taskscope logs setup --dry-run
    """
    from taskscope_exporters.logs.prepare import plan, prepare
    from taskscope_exporters.logs.template import log_template

    service, settings = _found(app)
    given = {
        "retention": retention,
        "audit_retention": audit_retention,
        "replicas": replicas,
        "shards": shards,
        "ilm": ilm,
    }
    streams = replace(
        settings.streams,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type] # each is its field's type
    )
    template = log_template(service, streams)
    with _connected(settings, "manage_index_templates and manage on the streams") as client:
        if dry_run:
            lines = plan(client, template, settings.environment)
            for line in lines or (f"nothing to change for the logs of {service}",):
                say(line)
            return 0
        done = prepare(client, template, settings.environment, rollover=rollover)
    for line in (*done.changed, *done.notes):
        say(line)
    ready = f"{settings.url} is ready for the logs of {service}"
    say(ready if done.changed else f"nothing to change: {ready}")
    return 0


def keys(
    into: Annotated[
        Path,
        typer.Option("--into", metavar="DIR", help="The folder of the keys' files (mode 0700)."),
    ] = Path(".taskscope/keys"),
    rotate: Annotated[
        bool,
        typer.Option("--rotate", help="Replace the keys that are there, and make them invalid."),
    ] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When a new key ends, such as 90d.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the keys as well.")] = False,
    app: App = DEFAULT_APP,
) -> int:
    """Make the API keys of the log streams, each with the least rights.

    shipper.key may add lines and read nothing; with checker.key the shipper asks whether lines are stored whose
    answer was lost; reader.key may read the service's lines; auditor.key may read its audit lines too. A key lies
    in a file that only you may read, and is not printed. To run it twice changes nothing; the login must have the
    rights that the keys get, and manage_own_api_key.

    \b
    Examples:
      taskscope logs keys
      ELASTICSEARCH_API_KEY_FILE=.taskscope/keys/shipper.key \\
      ELASTICSEARCH_CHECK_KEY_FILE=.taskscope/keys/checker.key taskscope ship
    """
    from taskscope_exporters.logs.keys import key_file, key_roles, make_keys

    service, settings = _found(app)
    with _connected(settings, "manage_own_api_key") as client:
        done = make_keys(client, settings, service, into, rotate=rotate, expires=expires)
    for line in done or (f"nothing to change: the keys in {into} are valid",):
        say(line)
    if show:
        for role in key_roles(service):
            say(f"{role.name}: {key_file(into, role).read_text('ascii').strip()}")
    return 0


def _found(app: str) -> tuple[str, ShipSettings]:
    from taskscope.catalogue import Catalogue
    from taskscope_exporters.logs.settings import ShipSettings

    return Catalogue.load(app).service, ShipSettings.from_environ(os.environ)


@contextmanager
def _connected(settings: ShipSettings, needs: str) -> Iterator[Elasticsearch]:
    from taskscope_exporters.logs.client import Cause, Trouble, connect, hushed, translated

    try:
        with hushed(), translated(settings), connect(settings) as client:
            yield client
    except Trouble as trouble:
        status = getattr(getattr(trouble.__cause__, "meta", None), "status", None)
        if status == 403:
            text = f"{settings.url} does not let this login do that; give it {needs}"
        elif trouble.cause is Cause.MALFORMED:
            text = f"{settings.url} refuses this ({trouble}); correct the option or the template it names"
        else:
            raise
        raise Trouble(trouble.cause, text) from trouble
