"""The part of the stack that keeps the logs, on a real Elasticsearch: from a request to a line that is found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from taskscope.errors import EngineError
from taskscope.testing.waiting import until_async
from taskscope_ui.stack import Credentials, Stack, UpOptions, running_stack
from taskscope_ui.stack.compose_setup import Account, accounts, grant
from taskscope_ui.stack.logs_parts import ADMIN_USER, READER_USER, SHIPPER_USER

pytestmark = pytest.mark.anyio

ROOT: Final = Path(__file__).resolve().parents[2]
WORDS: Final = {
    "ELASTICSEARCH_SHIPPER_PASSWORD": "shipper-of-a-test",
    "ELASTICSEARCH_READER_PASSWORD": "reader-of-a-test",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    options = UpOptions(
        folder=tmp_path_factory.mktemp("stack"),
        project=ROOT,
        rate=5,
        without=frozenset({"prometheus", "alertmanager", "page", "boards"}),
        usual_ports=False,
    )
    async with running_stack(options) as running:
        await running.ready(within_s=180)
        yield running


def client(stack: Stack, user: str, password: str) -> httpx2.Client:
    url = stack.address("elasticsearch")
    return httpx2.Client(base_url=url, auth=(user, password), trust_env=False, timeout=30)


def own(stack: Stack, user: str) -> httpx2.Client:
    made = Credentials.load(stack.layout.secrets)
    words = {
        ADMIN_USER: made.elasticsearch_admin,
        READER_USER: made.elasticsearch_reader,
        SHIPPER_USER: made.elasticsearch_shipper,
    }
    return client(stack, user, words[user])


@pytest.mark.engine
@pytest.mark.stack
@pytest.mark.parametrize("instance", ["api-1", "api-2"])
async def test_the_lines_of_each_instance_arrive(stack: Stack, instance: str) -> None:
    query = {"query": {"term": {"service.node.name": instance}}}
    with own(stack, READER_USER) as reader:

        async def found() -> bool:
            answer = reader.post("/logs-taskapi-local/_count", json=query)
            return answer.status_code == 200 and int(answer.json()["count"]) > 10

        await until_async(found, within_s=30, every_s=0.2)


@pytest.mark.engine
@pytest.mark.stack
async def test_nobody_reads_without_a_password(stack: Stack) -> None:
    url = stack.address("elasticsearch")
    assert httpx2.get(f"{url}/logs-taskapi-local/_count", trust_env=False).status_code == 401


@pytest.mark.engine
@pytest.mark.stack
async def test_the_shipper_may_add_and_neither_read_nor_delete(stack: Stack) -> None:
    with own(stack, SHIPPER_USER) as shipper:
        assert shipper.get("/logs-taskapi-local/_search").status_code == 403
        assert shipper.delete("/logs-taskapi-local").status_code == 403
        assert shipper.get("/_cluster/settings").status_code == 403


@pytest.mark.engine
@pytest.mark.stack
async def test_the_accounts_of_the_containers_have_no_more_rights_than_the_native_ones(
    stack: Stack,
) -> None:
    with own(stack, ADMIN_USER) as admin:
        for account in (*accounts(WORDS), *accounts(WORDS)):  # twice: the container may start again
            grant(admin, account)
    document = {"@timestamp": "2026-11-24T00:00:00Z", "message": "a line"}
    with client(stack, "taskscope_shipper", WORDS["ELASTICSEARCH_SHIPPER_PASSWORD"]) as shipper:
        assert shipper.put("/logs-taskapi-other/_create/1", json=document).status_code == 201
        assert shipper.get("/logs-taskapi-other/_search").status_code == 403
    with client(stack, "taskscope_reader", WORDS["ELASTICSEARCH_READER_PASSWORD"]) as reader:
        assert reader.get("/logs-taskapi-other/_search").status_code == 200
        assert reader.put("/logs-taskapi-other/_create/2", json=document).status_code == 403


@pytest.mark.engine
@pytest.mark.stack
async def test_an_account_that_cannot_be_made_is_said_in_a_sentence(stack: Stack) -> None:
    (account, _) = accounts(WORDS)
    with (
        own(stack, READER_USER) as reader,
        pytest.raises(EngineError, match="was answered 403; check ELASTICSEARCH_USERNAME"),
    ):
        grant(reader, account)


def test_passwords_that_lack_are_named() -> None:
    with pytest.raises(
        EngineError, match="ELASTICSEARCH_READER_PASSWORD not set; run make secrets"
    ):
        accounts({"ELASTICSEARCH_SHIPPER_PASSWORD": "word"})


def test_an_account_shows_no_password() -> None:
    (account, _) = accounts(WORDS)
    assert isinstance(account, Account)
    assert "shipper-of-a-test" not in repr(account)
