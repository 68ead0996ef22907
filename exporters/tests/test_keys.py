"""API keys with the least rights, tried on a real server over TLS: what each may, and all that it may not."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from elasticsearch import (
    ApiError,
    AuthenticationException,
    AuthorizationException,
    Elasticsearch,
)

from taskscope.catalogue import Catalogue
from taskscope.errors import SettingsError
from taskscope.logs.spool import Spool
from taskscope.testing import waiting
from taskscope_exporters.logs.client import Trouble
from taskscope_exporters.logs.install import install
from taskscope_exporters.logs.keys import make_keys
from taskscope_exporters.logs.run import run
from taskscope_exporters.logs.settings import Secret, ShipSettings
from taskscope_exporters.logs.template import log_template

from .conftest import CLERK, Secured

until = partial(waiting.until, within_s=30, every_s=0.2)
pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]
SERVICE = "keyed"
STREAM, AUDIT = "logs-keyed-local", "logs-keyed.audit-local"
LINE = {"@timestamp": "2026-01-01T00:00:00Z", "message": "m"}


@pytest.fixture(scope="module")
def folder(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys") / "keys"
    with secured.client() as client:
        install(client, log_template(SERVICE))
        for stream in (STREAM, AUDIT, "logs-foreign.service-local"):
            client.bulk(index=stream, operations=[{"create": {"_id": "first"}}, LINE], refresh=True)
        said = make_keys(client, secured.settings(made), SERVICE, made)
    assert [sentence.split()[1] for sentence in said] == [
        "shipper",
        "checker",
        "reader",
        "auditor",
    ]
    return made


def with_key(secured: Secured, path: Path) -> Elasticsearch:
    return Elasticsearch(
        secured.url,
        api_key=path.read_text().strip(),
        ca_certs=str(secured.authority.certificate),
    )


def write(client: Elasticsearch, stream: str) -> int:
    """The status with which one line is taken or refused."""
    try:
        (item,) = client.bulk(index=stream, operations=[{"create": {}}, LINE])["items"]
    except AuthorizationException as error:
        return error.meta.status
    return int(item["create"]["status"])


def test_a_key_lies_in_a_file_that_only_its_owner_reads(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    names = ("shipper.key", "checker.key", "reader.key", "auditor.key")
    assert modes == dict.fromkeys(names, 0o600)


def test_the_shipping_key_writes_both_streams_and_no_others(secured: Secured, folder: Path) -> None:
    with with_key(secured, folder / "shipper.key") as client:
        assert (write(client, STREAM), write(client, AUDIT)) == (201, 201)
        assert write(client, "logs-foreign.service-local") == 403


REFUSED: dict[str, Callable[[Elasticsearch], object]] = {
    "search": lambda client: client.search(index=STREAM),
    "count": lambda client: client.count(index=STREAM),
    "get": lambda client: client.get(index=STREAM, id="first"),
    "look up by id": lambda client: client.mget(index=STREAM, ids=["first"]),
    "delete": lambda client: client.delete(index=STREAM, id="first"),
    "delete the stream": lambda client: client.indices.delete(index=STREAM),
    "put a template": lambda client: client.indices.put_index_template(
        name="x", index_patterns=["logs-x-*"]
    ),
    "read a template": lambda client: client.indices.get_index_template(name="logs-keyed"),
    "change the mapping": lambda client: client.indices.put_mapping(
        index=STREAM, properties={"x": {"type": "keyword"}}
    ),
    "roll over": lambda client: client.indices.rollover(alias=STREAM),
    "make a key": lambda client: client.security.create_api_key(name="x"),
    "read users": lambda client: client.security.get_user(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_shipping_key_may_not(secured: Secured, folder: Path, what: str) -> None:
    with (
        with_key(secured, folder / "shipper.key") as client,
        pytest.raises(ApiError) as caught,
    ):
        REFUSED[what](client)
    assert caught.value.meta.status == 403


def test_the_shipping_key_may_not_overwrite_a_line(secured: Secured, folder: Path) -> None:
    with secured.client() as client:
        (stream,) = client.indices.resolve_index(name=STREAM)["data_streams"]
    index = stream["backing_indices"][0]
    with (
        with_key(secured, folder / "shipper.key") as client,
        pytest.raises(AuthorizationException),
    ):
        client.index(index=index, id="first", document=LINE, if_seq_no=0, if_primary_term=1)


def test_the_reading_key_reads_the_lines_and_neither_writes_nor_sees_audit_lines(
    secured: Secured, folder: Path
) -> None:
    with with_key(secured, folder / "reader.key") as client:
        assert client.count(index=STREAM)["count"] >= 1
        assert client.count(index="logs-*")["count"] == client.count(index=STREAM)["count"]
        assert write(client, STREAM) == 403
        for refused in (
            lambda: client.search(index=AUDIT),
            lambda: client.delete(index=STREAM, id="first"),
            lambda: client.indices.put_index_template(name="x", index_patterns=["logs-x-*"]),
        ):
            with pytest.raises(ApiError) as caught:
                refused()
            assert caught.value.meta.status == 403


def test_the_auditors_key_reads_audit_lines_and_writes_none(secured: Secured, folder: Path) -> None:
    with with_key(secured, folder / "auditor.key") as client:
        assert client.count(index=AUDIT)["count"] >= 1
        assert write(client, AUDIT) == 403


def test_to_make_keys_twice_makes_none_the_second_time(secured: Secured, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with secured.client() as client:
        assert make_keys(client, secured.settings(folder), SERVICE, folder) == ()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def backing_index(secured: Secured, stream: str) -> str:
    with secured.client() as client:
        (found,) = client.indices.resolve_index(name=stream)["data_streams"]
    return str(found["backing_indices"][0])


@pytest.mark.parametrize("stream", [STREAM, AUDIT])
def test_the_checking_key_learns_whether_a_line_is_there(
    secured: Secured, folder: Path, stream: str
) -> None:
    index = backing_index(secured, stream)
    with with_key(secured, folder / "checker.key") as client:
        (found,) = client.indices.resolve_index(name=stream)["data_streams"]
        docs = client.mget(index=index, ids=["first", "none"], source=False)["docs"]
    assert found["backing_indices"] == [index]
    assert [doc["found"] for doc in docs] == [True, False]


def test_the_checking_key_has_a_line_whose_id_it_knows(secured: Secured, folder: Path) -> None:
    index = backing_index(secured, STREAM)
    with with_key(secured, folder / "checker.key") as client:
        (doc,) = client.mget(index=index, ids=["first"])["docs"]
    assert doc["_source"] == LINE  # the documentation says so: ids alone cannot be allowed


@pytest.mark.parametrize("what", [what for what in REFUSED if what != "look up by id"])
def test_the_checking_key_may_not(secured: Secured, folder: Path, what: str) -> None:
    with (
        with_key(secured, folder / "checker.key") as client,
        pytest.raises(ApiError) as caught,
    ):
        REFUSED[what](client)
    assert caught.value.meta.status == 403


def test_the_checking_key_writes_nothing_and_learns_nothing_of_other_streams(
    secured: Secured, folder: Path
) -> None:
    with with_key(secured, folder / "checker.key") as client:
        assert (write(client, STREAM), write(client, AUDIT)) == (403, 403)
        with pytest.raises(AuthorizationException):
            client.indices.resolve_index(name="logs-foreign.service-local")
        foreign = client.mget(index="logs-foreign.service-local", ids=["first"], source=False)
        (doc,) = foreign["docs"]
        assert doc["error"]["type"] == "security_exception"


@contextmanager
def shipping(config: ShipSettings, service: str) -> Iterator[list[str]]:
    said: list[str] = []
    stop = threading.Event()
    words = {"catalogue": Catalogue(service=service), "stop": stop, "port": None}
    thread = threading.Thread(target=run, args=(config,), kwargs={**words, "say": said.append})
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(15)


def test_keys_are_rotated_under_a_shipper_that_goes_on_with_the_new_one(
    secured: Secured, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    spool = Spool(tmp_path / "spool", max_bytes=1 << 28, segment_bytes=1 << 16)

    def log(count: int) -> None:
        for _ in range(count):
            spool.write(b'{"@timestamp":"2026-01-01T00:00:00Z","message":"m"}\n')

    own = secured.settings(spool.folder)
    with secured.client() as client:
        install(client, log_template("turned"))
        make_keys(client, own, "turned", keys)
        old = (keys / "shipper.key").read_text()
        config = secured.settings(
            spool.folder, api_key=Secret(file=keys / "shipper.key"), username=None, password=None
        )
        with shipping(config, "turned"):
            log(10)
            until(lambda: secured.count("logs-turned-local") == 10)
            said = make_keys(client, own, "turned", keys, rotate=True)
            log(10)
            until(lambda: secured.count("logs-turned-local") == 20)
    spool.close()
    assert all("the old one is not valid any more" in sentence for sentence in said)
    with (
        Elasticsearch(
            secured.url, api_key=old.strip(), ca_certs=str(secured.authority.certificate)
        ) as client,
        pytest.raises(AuthenticationException),
    ):
        write(client, "logs-turned-local")


def test_a_key_that_was_revoked_is_named_with_the_remedy(secured: Secured, tmp_path: Path) -> None:
    with secured.client() as client:
        make_keys(client, secured.settings(tmp_path), "revoked", tmp_path)
        client.security.invalidate_api_key(name="taskscope revoked reader")
        with pytest.raises(Trouble, match=r"does not know the key in .*reader\.key.*--rotate"):
            make_keys(client, secured.settings(tmp_path), "revoked", tmp_path)


def test_a_login_gives_no_more_than_it_has_and_leaves_no_half_key(
    secured: Secured, tmp_path: Path
) -> None:
    clerk = Elasticsearch(
        secured.url,
        basic_auth=(CLERK.name, CLERK.password),
        ca_certs=str(secured.authority.certificate),
    )
    with (
        clerk,
        pytest.raises(
            Trouble, match=r"may not give indices:data/read/mget\* and .*for the key checker"
        ),
    ):
        make_keys(clerk, secured.settings(tmp_path, CLERK), "clerks", tmp_path / "k")
    with secured.client() as client:
        left = client.security.get_api_key(name="taskscope clerks checker")["api_keys"]
    assert [key["invalidated"] for key in left] == [True]
    assert not (tmp_path / "k" / "checker.key").exists()


@pytest.mark.parametrize("spoil", ["open", "link", "folder"])
def test_a_file_that_others_could_read_or_plant_is_refused(
    secured: Secured, tmp_path: Path, spoil: str
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    if spoil == "open":
        (folder / "shipper.key").write_text("a-key")
        (folder / "shipper.key").chmod(0o644)
    elif spoil == "link":
        (folder / "shipper.key").symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o777)
    with secured.client() as client, pytest.raises(SettingsError, match="; "):
        make_keys(client, secured.settings(tmp_path), SERVICE, folder)
