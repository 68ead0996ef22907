"""Statement time: by verb, role, shard and outcome, whatever the statement does; and what the verb is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from taskscope.catalogue.builtin import DB_OPERATION_DURATION, LIBRARY_ERRORS
from taskscope.metrics.instruments import Instruments
from taskscope.probes.database import DatabaseProbe
from taskscope.probes.statements import operation_of
from taskscope.testing.metrics import isolated, moved, value

ITEMS = Table("items", MetaData(), Column("id", Integer, primary_key=True))


@pytest.fixture
def instruments() -> Instruments:
    return isolated()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return create_engine(f"sqlite:///{tmp_path / 'a.db'}")


@pytest.fixture
def watched(engine: Engine, instruments: Instruments) -> Engine:
    DatabaseProbe(instruments).watch(engine)
    with engine.begin() as connection:
        ITEMS.create(connection)
    return engine


def counted(instruments: Instruments, operation: str, outcome: str = "ok", **labels: str) -> float:
    return value(
        instruments.registry,
        DB_OPERATION_DURATION,
        db_operation_name=operation,
        outcome=outcome,
        **labels,
    )


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("SELECT 1", "SELECT"),
        ("select 1", "SELECT"),
        ("Select 1", "SELECT"),
        ("\n  INSERT INTO a VALUES (1)", "INSERT"),
        ("(SELECT 1) UNION (SELECT 2)", "SELECT"),
        ("-- UPDATE nothing\nDELETE FROM a", "DELETE"),
        ("/* SELECT\n * */ UPDATE a SET b = 1", "UPDATE"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("WITH a AS (SELECT 1), b(x) AS (SELECT 2) INSERT INTO c SELECT * FROM a, b", "INSERT"),
        ("with recursive t(n) as (values (1) union all select n from t) delete from u", "DELETE"),
        ("WITH a AS (DELETE FROM b RETURNING *) SELECT * FROM a", "SELECT"),
        ("WITH a AS (SELECT ')' || \"(\" FROM b) -- )\n UPDATE c SET d = 1", "UPDATE"),
        (
            "WITH a AS (SELECT 1) MERGE INTO b USING a ON true WHEN MATCHED THEN DO NOTHING",
            "_OTHER",
        ),
        ("EXPLAIN SELECT 1", "_OTHER"),
        ("CREATE TABLE a (b int)", "_OTHER"),
        ("COMMIT PREPARED 'a'", "COMMIT"),
        ("'text", "_OTHER"),
        ("/* never closed", "_OTHER"),
        ("", "_OTHER"),
        ("WITH a AS (" + "SELECT 1, " * 10_000 + "1) SELECT 1", "_OTHER"),
    ],
)
def test_the_operation_is_the_verb_of_the_main_statement(statement: str, operation: str) -> None:
    assert operation_of(statement) == operation


def test_each_statement_and_commit_is_one_value(watched: Engine, instruments: Instruments) -> None:
    commits = counted(instruments, "COMMIT")
    with watched.begin() as connection:
        connection.execute(text("INSERT INTO items VALUES (1)"))
        connection.execute(text("INSERT INTO items VALUES (:id)"), [{"id": 2}, {"id": 3}])
        connection.execute(insert(ITEMS).returning(ITEMS.c.id), [{"id": 4}, {"id": 5}])
        connection.exec_driver_sql("UPDATE items SET id = 9 WHERE id = 1")
        connection.exec_driver_sql("DELETE FROM items WHERE id = ?", (9,))
        connection.execute(text("WITH a AS (SELECT 1) SELECT * FROM a"))
    with watched.connect() as connection:
        connection.execute(text("SELECT count(*) FROM items"))
    names = ("INSERT", "UPDATE", "DELETE", "SELECT")
    assert [counted(instruments, name) for name in names] == [3, 1, 1, 2]
    assert counted(instruments, "COMMIT") - commits == 1
    assert counted(instruments, "_OTHER") >= 1


def test_a_statement_that_fails_is_an_error_and_raises_as_ever(
    watched: Engine, instruments: Instruments
) -> None:
    with watched.begin() as connection:
        connection.execute(text("INSERT INTO items VALUES (1)"))
    with watched.connect() as connection, pytest.raises(IntegrityError) as caught:
        connection.execute(text("INSERT INTO items VALUES (1)"))
    assert "UNIQUE" in str(caught.value.orig)
    assert counted(instruments, "INSERT", "error") == 1
    assert counted(instruments, "INSERT") == 1


def test_a_commit_that_fails_is_an_error(watched: Engine, instruments: Instruments) -> None:
    with watched.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql(
            "CREATE TABLE b (a REFERENCES items(id) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql("INSERT INTO b VALUES (99)")
        with pytest.raises(IntegrityError):
            connection.commit()
    assert counted(instruments, "COMMIT", "error") == 1


def test_engines_are_told_apart_by_role_and_shard(tmp_path: Path, instruments: Instruments) -> None:
    probe = DatabaseProbe(instruments)
    primary = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    replica = create_engine(f"sqlite:///{tmp_path / 'b.db'}")
    probe.watch(primary)
    probe.watch(replica, role="replica", shard="7")
    for engine, times in ((primary, 1), (replica, 3)):
        with engine.connect() as connection:
            for _ in range(times):
                connection.execute(text("SELECT 1"))
    assert counted(instruments, "SELECT", role="primary", shard="0") == 1
    assert counted(instruments, "SELECT", role="replica", shard="7") == 3


def test_an_engine_that_is_watched_in_each_of_its_forms_counts_once(
    tmp_path: Path, instruments: Instruments
) -> None:
    probe = DatabaseProbe(instruments)
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    for form in (engine, engine, engine.sync_engine, engine.execution_options(a=1)):
        probe.watch(form, role="primary")

    async def use() -> None:
        async with engine.execution_options(b=2).connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()

    with moved(instruments.registry, DB_OPERATION_DURATION, by=1, db_operation_name="SELECT"):
        asyncio.run(use())


def test_a_cancelled_statement_is_one_error(tmp_path: Path, instruments: Instruments) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    DatabaseProbe(instruments).watch(engine)
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 1000000) SELECT max(n) FROM t"

    async def use() -> None:
        async with engine.connect() as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute(text(endless)), 0.05)
        await engine.dispose()

    asyncio.run(use())
    assert counted(instruments, "SELECT", "error") == 1
    assert counted(instruments, "SELECT") == 0


def test_a_measurement_that_fails_is_counted_and_the_statement_answers(
    watched: Engine, instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(instruments.histogram(DB_OPERATION_DURATION), "at", planted)
    with watched.connect() as connection:
        assert connection.execute(text("SELECT 41 + 1")).scalar() == 42
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT * FROM nowhere"))
    errors = value(
        instruments.registry, LIBRARY_ERRORS, component="probes", error_type="RuntimeError"
    )
    assert errors == 2
