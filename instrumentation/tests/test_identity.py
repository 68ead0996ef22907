"""A user has one word in all workers of a service, and nobody without the key can tell whose it is."""

from __future__ import annotations

import multiprocessing
import os
import stat
from hashlib import blake2b
from pathlib import Path

import pytest

from taskscope.identity import KEY_FILE, Identity, load_key, new_key


def hashed(folder: Path, user: str = "ada", *, service: str = "shop") -> str:
    return Identity(service_name=service, key=load_key(folder)).hashed(user)


def test_one_user_has_one_hash_after_a_restart(tmp_path: Path) -> None:
    assert hashed(tmp_path) == hashed(tmp_path)
    assert hashed(tmp_path) != hashed(tmp_path, "bob")
    assert len(hashed(tmp_path)) == 32


def test_another_key_and_another_service_have_other_hashes(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert hashed(tmp_path) != hashed(tmp_path / "other")
    assert hashed(tmp_path, service="shop") != hashed(tmp_path, service="mail")


def test_whoever_tries_all_ids_without_the_key_finds_none(tmp_path: Path) -> None:
    found = hashed(tmp_path, "7")
    tried = [
        blake2b(str(n).encode(), key=key, digest_size=16).hexdigest()
        for n in range(1000)
        for key in (b"", b"shop")
    ]
    assert found not in tried


def test_a_key_of_any_length_counts_whole() -> None:
    words = {
        Identity(service_name="shop", key=b"k" * size).hashed("ada") for size in (16, 64, 65, 4096)
    }
    assert len(words) == 4


def test_a_hash_takes_any_text(tmp_path: Path) -> None:
    assert hashed(tmp_path, "") != hashed(tmp_path, "\ud800\x00é" * 1000)


def test_the_key_is_for_its_user_alone_and_no_draft_is_left(tmp_path: Path) -> None:
    load_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def _load(folder: Path, start: object, found: object) -> None:
    start.wait()  # type: ignore[attr-defined] # a barrier of multiprocessing
    found.put(load_key(folder))  # type: ignore[attr-defined] # a queue of multiprocessing


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(6), context.Queue()
    workers = [context.Process(target=_load, args=(tmp_path, start, found)) for _ in range(6)]
    for worker in workers:
        worker.start()
    keys = {found.get(timeout=10) for _ in workers}
    for worker in workers:
        worker.join(10)
    assert keys == {(tmp_path / KEY_FILE).read_bytes()}
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33, b"x" * 100_000])
def test_a_file_that_is_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(OSError, match="no key of 32 bytes; move it away"):
        load_key(tmp_path)
    assert path.read_bytes() == content


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    load_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(PermissionError, match="take it for this user alone"):
        load_key(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / KEY_FILE
    if kind == "link":
        target = tmp_path / "target"
        target.touch(mode=0o600)
        target.write_bytes(new_key())
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(mode=0o700)
    with pytest.raises(OSError, match=r"."):
        load_key(tmp_path)


def test_where_no_key_can_be_made_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_key(tmp_path / "absent")
