"""The database of one instance: a bounded pool, short transactions, and errors that say so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from asyncpg.exceptions import (  # type: ignore[import-untyped] # asyncpg ships no types
    InterfaceError as AsyncpgInterfaceError,
)
from asyncpg.exceptions import PostgresError
from sqlalchemy import Connection, event, exists, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from taskscope.errors import SettingsError
from taskscope_taskapi.models import Base, User
from taskscope_taskapi.secret import private_folder
from taskscope_taskapi.settings import Settings

__all__ = ["Database", "DatabaseUnavailable"]

_SCHEMA_LOCK: Final = 7_305_117_302_021
"""Advisory lock that one starting instance holds while it makes the tables; any number of our own does."""

_SCHEMA_TRIES: Final = 20
_OUR_OWN_FAULT: Final = (IntegrityError, DataError, ProgrammingError)


class DatabaseUnavailable(Exception):  # noqa: N818 # it is a state of the database, answered with 503
    """The database does not answer, or every connection of the pool is lent out."""


class _Cursor(Protocol):
    def execute(self, statement: str) -> object: ...
    def close(self) -> None: ...


class _DriverConnection(Protocol):
    def cursor(self) -> _Cursor: ...


class Database:
    """Sessions over one engine. `reading` and `writing` lend a connection for the length of a block."""

    def __init__(self, settings: Settings) -> None:
        url = make_url(settings.database)
        self.is_sqlite: Final = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            variable = "TASKAPI_DATABASE_URL" if settings.database_url else "TASKAPI_STATE_DIR"
            _make_private(Path(url.database or ""), variable)
        self._turn_s: Final = settings.statement_s
        self._turn: Final = asyncio.Lock()
        self.engine: Final[AsyncEngine] = create_async_engine(
            url,
            pool_size=settings.pool_size,
            max_overflow=settings.pool_overflow,
            pool_timeout=settings.pool_wait_s,
            pool_pre_ping=not self.is_sqlite,
            pool_recycle=1800,
            hide_parameters=True,
            connect_args=_arguments(settings, is_sqlite=self.is_sqlite),
        )
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    @property
    def place(self) -> str:
        """Where the database is, without user or password: for people, never for answers."""
        url = self.engine.url
        return url.database or "" if self.is_sqlite else f"{url.host}:{url.port or 5432}"

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that is rolled back at the end. Raises DatabaseUnavailable."""
        with _translated():
            async with AsyncSession(self.engine, expire_on_commit=False) as session:
                yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session that is committed at the end, or rolled back by an exception.

        SQLite takes its write lock at the start: a reader that turned writer would be refused, not queued.
        Raises DatabaseUnavailable.
        """
        with _translated():
            async with (
                self._one_writer(),
                AsyncSession(self.engine, expire_on_commit=False) as session,
            ):
                await session.connection(execution_options={"taskapi_writes": True})
                yield session
                await session.commit()

    @asynccontextmanager
    async def _one_writer(self) -> AsyncIterator[None]:
        # SQLite has one writer, and who waits for it sleeps and tries again, in no order: of twenty-four some
        # waited for five seconds. Here they queue, and only one of each process waits for another process.
        if not self.is_sqlite:
            yield
            return
        async with asyncio.timeout(self._turn_s):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    async def ping(self) -> None:
        """The database answered a question about its tables. Raises DatabaseUnavailable.

        SQLite answers `SELECT 1` without its file.
        """
        try:
            async with self.reading() as session:
                await session.execute(select(exists().where(User.id.is_(None))))
        except ProgrammingError as error:
            raise DatabaseUnavailable("its tables are not there") from error

    async def create_schema(self) -> None:
        """The tables exist, also when several instances start at once. Raises DatabaseUnavailable."""
        for attempt in range(_SCHEMA_TRIES):
            try:
                await self._create_schema()
            except DatabaseUnavailable:
                # SQLite refuses the switch to WAL at once, unqueued, while another instance makes it.
                if attempt == _SCHEMA_TRIES - 1:
                    raise
                await asyncio.sleep(0.05 * (attempt + 1) if self.is_sqlite else 0.5)
            else:
                return

    async def _create_schema(self) -> None:
        async with self.writing() as session:
            if not self.is_sqlite:
                await session.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK}
                )
            connection = await session.connection()
            await connection.run_sync(Base.metadata.create_all)

    async def close(self) -> None:
        """No connection is left open."""
        await self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _OUR_OWN_FAULT:
        raise
    except (PoolTimeout, DBAPIError, OSError, AsyncpgInterfaceError, PostgresError) as error:
        # asyncpg's own come from connecting: a wrong password, too many connections.
        raise DatabaseUnavailable(type(error).__name__) from error


def _arguments(settings: Settings, *, is_sqlite: bool) -> dict[str, object]:
    if is_sqlite:
        # Without an isolation level the driver begins nothing itself; `_begin_sqlite` does.
        return {"timeout": settings.statement_s, "isolation_level": None}
    return {
        "timeout": settings.statement_s,
        "command_timeout": settings.statement_s + 1,
        "server_settings": {
            "application_name": "taskapi",
            "statement_timeout": str(int(settings.statement_s * 1000)),
            "idle_in_transaction_session_timeout": "30000",
        },
    }


def _prepare_sqlite(connection: _DriverConnection, record: object) -> None:  # noqa: ARG001 # SQLAlchemy's
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("taskapi_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_private(path: Path, variable: str) -> None:
    """The file exists with mode 0600; SQLite gives its journal files the same mode."""
    private_folder(path.parent, variable=variable)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{variable}: {path} cannot be opened ({error.strerror}); name a file that may be written"
        ) from error
    try:
        os.fchmod(descriptor, 0o600)
    except PermissionError as error:
        raise SettingsError(
            f"{variable}: {path} belongs to another user; name a file that this user owns"
        ) from error
    finally:
        os.close(descriptor)
