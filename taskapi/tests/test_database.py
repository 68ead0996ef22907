"""The database of an instance: private, shared by instances, bounded, honest when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from taskscope.errors import SettingsError
from taskscope_taskapi.database import Database, DatabaseUnavailable
from taskscope_taskapi.models import Task, User
from taskscope_taskapi.settings import Settings

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]


def user(name: str) -> User:
    return User(username=name, email=f"{name}@example.com", password_hash="x")


def modes_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("taskapi.sqlite*")}


async def test_the_file_is_its_owners_alone(make_settings: MakeSettings, tmp_path: Path) -> None:
    database = Database(make_settings())
    await database.create_schema()
    async with database.writing() as session:
        session.add(user("ann"))
    modes = modes_of(tmp_path)
    await database.close()
    assert set(modes) >= {"taskapi.sqlite", "taskapi.sqlite-wal"}
    assert set(modes.values()) == {0o600}


async def test_a_file_that_others_could_read_is_closed_to_them(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "taskapi.sqlite"
    path.touch(0o644)
    await Database(make_settings()).close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_link_in_the_files_place_is_not_followed(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "taskapi.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="TASKAPI_STATE_DIR"):
        Database(make_settings())


async def test_instances_that_start_at_once_make_the_tables_once(
    make_settings: MakeSettings,
) -> None:
    databases = [Database(make_settings()) for _ in range(6)]
    await asyncio.gather(*(database.create_schema() for database in databases))
    async with databases[-1].reading() as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 0
    for database in databases:
        await database.close()


async def test_two_instances_write_one_file_without_losing_a_line(
    make_settings: MakeSettings,
) -> None:
    databases = [Database(make_settings()) for _ in range(2)]
    for database in databases:
        await database.create_schema()

    async def count_up(database: Database) -> None:
        async with database.writing() as session:
            ann = await session.scalar(select(User).where(User.username == "ann"))
            assert ann is not None
            ann.password_hash = str(int(ann.password_hash) + 1)

    ann = user("ann")
    ann.password_hash = "0"
    async with databases[0].writing() as session:
        session.add(ann)
    await asyncio.gather(*(count_up(databases[number % 2]) for number in range(40)))
    async with databases[0].reading() as session:
        assert await session.scalar(select(User.password_hash)) == "40"
    for database in databases:
        await database.close()


async def test_a_block_that_fails_leaves_nothing_behind(make_settings: MakeSettings) -> None:
    database = Database(make_settings())
    await database.create_schema()

    async def failing() -> None:
        async with database.writing() as session:
            session.add(user("ann"))
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await failing()
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 0
    await database.close()


async def test_a_task_of_nobody_is_refused(make_settings: MakeSettings) -> None:
    database = Database(make_settings())
    await database.create_schema()
    with pytest.raises(IntegrityError):
        async with database.writing() as session:
            session.add(Task(owner_id=uuid4(), title="t"))
    await database.close()


async def test_instants_come_back_with_their_zone(make_settings: MakeSettings) -> None:
    database = Database(make_settings())
    await database.create_schema()
    ann = user("ann")
    async with database.writing() as session:
        session.add(ann)
    async with database.reading() as session:
        stored = await session.scalar(select(User.created_at))
    await database.close()
    assert stored == ann.created_at
    assert stored.utcoffset() is not None


async def test_who_finds_every_connection_lent_out_is_told_so_soon(
    make_settings: MakeSettings,
) -> None:
    database = Database(make_settings(pool_size=1, pool_overflow=0, pool_wait_s=0.05))
    await database.create_schema()
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    await database.ping()
    await database.close()


async def test_a_server_that_is_not_there_is_told_without_its_password(
    make_settings: MakeSettings,
) -> None:
    url = "postgresql+asyncpg://user:hunter2@127.0.0.1:1/name"
    database = Database(make_settings(database_url=url))
    with pytest.raises(DatabaseUnavailable) as lost:
        await database.ping()
    await database.close()
    assert "hunter2" not in f"{lost.value!r} {database.place}"


async def test_a_database_whose_file_was_emptied_does_not_answer(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    database = Database(make_settings())
    await database.create_schema()
    await database.ping()
    await database.close()
    (tmp_path / "taskapi.sqlite").write_bytes(b"")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.close()


async def test_writers_of_a_file_take_turns_in_their_order(make_settings: MakeSettings) -> None:
    database = Database(make_settings())
    await database.create_schema()
    order: list[int] = []

    async def write(number: int) -> None:
        async with database.writing() as session:
            await session.execute(text("SELECT 1"))
            order.append(number)

    await asyncio.gather(*(write(number) for number in range(12)))
    await database.close()
    assert order == list(range(12))


async def test_a_writer_whose_turn_does_not_come_is_told_so(make_settings: MakeSettings) -> None:
    database = Database(make_settings(statement_s=0.05))
    await database.create_schema()
    async with database.writing():
        with pytest.raises(DatabaseUnavailable):
            async with database.writing():
                pass
    await database.close()
