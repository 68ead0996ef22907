"""Prepares the Elasticsearch of docker-compose.yml: templates of the log streams, and a user for each who asks it.

Run once by the container `logs-setup`; to run it again changes nothing. The superuser's password goes no further:
the shipper may only add documents, and Grafana's reader may only search.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2

from taskscope.errors import EngineError, TaskscopeError
from taskscope.testing.engines.elasticsearch import READER, SHIPPER, EsRole

__all__ = ["Account", "accounts", "grant", "main"]

_PREFIX: Final = "taskscope_"
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Account:
    """A user of Elasticsearch's own realm with one role, both of the same name."""

    role: EsRole
    password: str

    @property
    def name(self) -> str:
        """The user's name, and the role's."""
        return f"{_PREFIX}{self.role.name}"


def accounts(environ: Mapping[str, str]) -> tuple[Account, ...]:
    """The two accounts with the passwords of `environ`. Raises EngineError naming each that lacks."""
    wanted = {
        "ELASTICSEARCH_SHIPPER_PASSWORD": SHIPPER,
        "ELASTICSEARCH_READER_PASSWORD": READER,
    }
    lacking = [name for name in wanted if not environ.get(name, "").strip()]
    if lacking:
        raise EngineError(f"{' and '.join(lacking)} not set; run make secrets")
    return tuple(
        Account(role=role, password=environ[name].strip()) for name, role in wanted.items()
    )


def grant(client: httpx2.Client, account: Account) -> None:
    """The account exists with this password and no more than its role's rights. Raises EngineError."""
    role = account.role
    rights = [{"names": list(role.indices), "privileges": list(role.privileges)}]
    _put(
        client,
        f"/_security/role/{account.name}",
        {"cluster": list(role.cluster), "indices": rights},
    )
    user = {"password": account.password, "roles": [account.name]}
    _put(client, f"/_security/user/{account.name}", user)


def _put(client: httpx2.Client, path: str, body: object) -> None:
    try:
        response = client.put(path, json=body)
    except httpx2.HTTPError as error:
        raise EngineError(
            f"{client.base_url} does not answer ({type(error).__name__}); see the log of elasticsearch"
        ) from error
    if response.status_code != httpx2.codes.OK:
        raise EngineError(
            f"{path} was answered {response.status_code}; check ELASTICSEARCH_USERNAME and its password"
        )


def main(environ: Mapping[str, str]) -> int:
    """The exit code."""
    from taskscope_ui.commands.logs_setup import setup

    try:
        given = accounts(environ)
        auth = (environ["ELASTICSEARCH_USERNAME"], environ["ELASTICSEARCH_PASSWORD"])
        with httpx2.Client(
            base_url=environ["ELASTICSEARCH_URL"], auth=auth, timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            for account in given:
                grant(client, account)
        return setup()
    except KeyError as error:
        sys.stderr.write(f"taskscope: {error.args[0]} is not set; see docker-compose.yml\n")
    except TaskscopeError as error:
        sys.stderr.write(f"taskscope: {error}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
