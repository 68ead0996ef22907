"""The key that signs tokens: private, long, and the same for all instances of one state folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskscope.errors import SettingsError
from taskscope_taskapi.secret import signing_key
from taskscope_taskapi.settings import Settings

MakeSettings = Callable[..., Settings]


def test_the_first_start_makes_a_key_that_only_its_owner_reads(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    key = signing_key(make_settings())
    path = tmp_path / "secrets" / "jwt"
    assert len(bytes.fromhex(key.decode())) * 8 >= 256
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_many_instances_that_start_at_once_share_one_key(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with ThreadPoolExecutor(16) as instances:
        keys = set(instances.map(lambda _: signing_key(settings), range(64)))
    assert len(keys) == 1


def test_no_draft_is_left_beside_the_key(make_settings: MakeSettings, tmp_path: Path) -> None:
    signing_key(make_settings())
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["jwt"]


def test_a_given_secret_is_taken(make_settings: MakeSettings) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    assert signing_key(make_settings(jwt_secret=secret)) == secret.encode()


def test_a_file_that_others_may_read_is_refused(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text("0123456789abcdef0123456789abcdef")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        signing_key(make_settings(jwt_secret_file=path))


def test_a_short_file_is_refused(make_settings: MakeSettings, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="holds 5 bytes"):
        signing_key(make_settings(jwt_secret_file=path))


def test_a_link_in_the_keys_place_is_not_followed(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("0123456789abcdef0123456789abcdef")
    target.chmod(0o600)
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "jwt").symlink_to(target)
    with pytest.raises(SettingsError, match="plain file"):
        signing_key(make_settings())


def test_a_pipe_in_the_keys_place_does_not_hang_the_start(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    os.mkfifo(path, 0o600)
    with pytest.raises(SettingsError):
        signing_key(make_settings(jwt_secret_file=path))


def test_a_state_folder_that_cannot_be_made_is_named(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="TASKAPI_STATE_DIR"):
        signing_key(make_settings(state_dir=tmp_path / "file" / "below"))
