"""How a service's log streams are kept: for how long, in how many shards, by which lifecycle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskscope.errors import SettingsError

__all__ = ["StreamSettings"]

_TIME: Final = re.compile(r"[1-9][0-9]{0,8}[dhms]\Z")
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What the templates of the log streams say beside the fields.

    retention, audit_retention: how long a line is kept, in Elasticsearch's units (`30d`, `12h`).
    replicas: copies of each shard; None for one copy where there is a second node to hold it. shards: of each
    backing index. ilm: whether index lifecycle management rolls over and deletes, and not the stream's own lifecycle.
    """

    retention: str = "30d"
    audit_retention: str = "400d"
    replicas: int | None = None
    shards: int = 1
    ilm: bool = False

    def __post_init__(self) -> None:
        faults = [
            *(
                f"{name}={text!r} is no time; write it as 30d or 12h"
                for name, text in (
                    ("ELASTICSEARCH_RETENTION", self.retention),
                    ("ELASTICSEARCH_AUDIT_RETENTION", self.audit_retention),
                )
                if not _TIME.match(text)
            ),
            *_out_of("ELASTICSEARCH_REPLICAS", self.replicas, 0, 10),
            *_out_of("ELASTICSEARCH_SHARDS", self.shards, 1, 100),
        ]
        if faults:
            raise SettingsError("; ".join(faults))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> StreamSettings:
        """The settings that `environ` asks for. Raises SettingsError naming every wrong variable at once.

        `ELASTICSEARCH_RETENTION`, `ELASTICSEARCH_AUDIT_RETENTION`, `ELASTICSEARCH_REPLICAS`,
        `ELASTICSEARCH_SHARDS`, `ELASTICSEARCH_ILM`.
        """
        values: dict[str, object] = {}
        faults: list[str] = []
        for name in ("retention", "audit_retention"):
            if text := environ.get(f"ELASTICSEARCH_{name.upper()}", "").strip():
                values[name] = text
        for name in ("replicas", "shards"):
            if text := environ.get(f"ELASTICSEARCH_{name.upper()}", "").strip():
                if text.isascii() and text.isdigit() and len(text) <= 4:
                    values[name] = int(text)
                else:
                    faults.append(
                        f"ELASTICSEARCH_{name.upper()}={text!r} is no number; write a small one"
                    )
        if text := environ.get("ELASTICSEARCH_ILM", "").strip():
            values["ilm"] = text.lower() in _YES
            if text.lower() not in _YES | _NO:
                faults.append(f"ELASTICSEARCH_ILM={text!r} cannot be read; write true or false")
        try:
            settings = cls(**values)  # type: ignore[arg-type] # each name is given its field's type above
        except SettingsError as error:
            raise SettingsError("; ".join([*faults, str(error)])) from error
        if faults:
            raise SettingsError("; ".join(faults))
        return settings


def _out_of(name: str, number: int | None, least: int, most: int) -> tuple[str, ...]:
    if number is None or least <= number <= most:
        return ()
    return (f"{name}={number} is out of bounds; take {least} to {most}",)
