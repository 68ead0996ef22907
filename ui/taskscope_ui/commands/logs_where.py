"""Where the commands that read logs find Elasticsearch: as the environment says, or else the stack that runs here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["environ_of"]

_URL = "ELASTICSEARCH_URL"
_PART = "elasticsearch"


def environ_of(environ: Mapping[str, str], spool: Path) -> Mapping[str, str]:
    """The environment; without ELASTICSEARCH_URL with the reading login of the stack that `spool` is part of.

    Whoever has run `taskscope up` in this folder should not have to look for its port and its secret. A stack that
    does not run, or whose state cannot be read, is none.
    """
    from taskscope.errors import TaskscopeError
    from taskscope_ui.stack import state
    from taskscope_ui.stack.logs_parts import READER_USER

    if environ.get(_URL, "").strip():
        return environ
    folder = spool.parent
    try:
        stack = state.read(folder)
    except TaskscopeError:
        return environ
    word = folder / "secrets" / "elasticsearch_reader"
    if stack is None or not stack.runs or _PART not in stack.addresses or not word.is_file():
        return environ
    login = {
        _URL: stack.addresses[_PART].rstrip("/"),
        "ELASTICSEARCH_USERNAME": READER_USER,
        "ELASTICSEARCH_PASSWORD_FILE": str(word),
    }
    return {**environ, **login}
