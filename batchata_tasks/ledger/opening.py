"""Opening a ledger: create a new one, migrate an older one, refuse any other database untouched."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_mock_engine, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.engine import (
    foreign_database_error,
    is_missing,
    make_engine,
    opening_error,
    parse_url,
    use_wal,
)
from batchata_tasks.ledger.values import new_id

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, ExecutableDDLElement, Row

    from batchata_tasks.ledger.store import Store


def open_ledger(store: Store, *, read_only: bool = False) -> str:
    """Return the ledger's id; this is one read if the ledger has today's version.

    A ledger that does not exist is created and an older one migrated, unless `read_only`.

    Raises:
        WrongLedgerError: the database belongs to another program, or the file is no database.
        LedgerError: the ledger is of a later version (or of an older one, if `read_only`), or
            cannot be reached.
    """
    try:
        meta = store.transact(_read, reading=True, patience=0)
    except LedgerError as error:
        if not is_missing(error.__cause__):
            if isinstance(error.__cause__, SQLAlchemyError):
                raise opening_error(error.__cause__, store.url) from error.__cause__
            raise
        meta = None
        # before anything is written: a database of others keeps even its journal mode
        store.transact(lambda connection: _is_free(store.url, connection), reading=True)
    if read_only and (meta is None or meta.schema_version < t.SCHEMA_VERSION):
        message = (
            "the ledger is of an older version than this program, and this command changes "
            "nothing: `batchata run` or `batchata status` migrates it, after which older programs "
            "refuse it."
        )
        raise LedgerError(message)
    if store.is_sqlite and not read_only:
        use_wal(store.engine)
    if meta is None or meta.schema_version < t.SCHEMA_VERSION:
        meta = store.transact(
            lambda connection: _create_or_migrate(store, connection), reading=False
        )
    if meta.schema_version > t.SCHEMA_VERSION:
        message = (
            f"the ledger has schema version {meta.schema_version}, this program writes version "
            f"{t.SCHEMA_VERSION}; update it: a later batchata-flows has used this ledger."
        )
        raise LedgerError(message)
    return str(meta.ledger_id)


def ledger_exists(url_text: str) -> bool:
    """Whether there is a ledger; finding out creates and writes nothing.

    Raises:
        WrongLedgerError: the database belongs to another program, or the file is no database.
        LedgerError: the database cannot be reached.
    """
    url = parse_url(url_text)
    is_file = url.get_backend_name() == "sqlite" and "uri" not in url.query
    with suppress(OSError):  # of a path that cannot be: connecting tells why
        if is_file and not Path(str(url.database)).exists():
            return False
    engine = make_engine(url)
    try:
        with engine.connect().execution_options(batchata_reading=True) as connection:
            return not _is_free(url, connection)
    except SQLAlchemyError as error:
        raise opening_error(error, url) from error
    finally:
        engine.dispose()


def _read(connection: Connection) -> Row[Any] | None:
    return connection.execute(select(t.meta)).first()


def _is_free(url: URL, connection: Connection) -> bool:
    """Whether a ledger can be created here; False if there is one.

    Raises:
        WrongLedgerError: the database belongs to another program.
    """
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    if t.meta.name in tables:
        columns = {column["name"] for column in inspector.get_columns(t.meta.name)}
        if set(t.meta.columns.keys()) <= columns:
            return False
    # a SQLite file belongs to one program, but a server's database may hold other tables, too
    is_file = url.get_backend_name() == "sqlite"
    if tables if is_file else tables & set(t.metadata.tables):
        raise foreign_database_error(url)
    return True


@cache
def _definitions(driver: str) -> tuple[str, ...]:
    """Return the statements that make the tables in a database by this driver.

    Compiling them takes longer than running them, and a process may make many ledgers.
    """
    statements: list[str] = []

    def note(statement: ExecutableDDLElement, *_: object, **__: object) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine(f"{driver}://", note)
    t.metadata.create_all(engine, checkfirst=False)
    return tuple(statements)


def _create_or_migrate(store: Store, connection: Connection) -> Row[Any]:
    """Create or migrate the ledger in one transaction that excludes other processes."""
    store.lock(connection, "opening")
    if _is_free(store.url, connection):
        for statement in _definitions(store.url.drivername):
            connection.exec_driver_sql(statement)
        row = {"ledger_id": new_id(), "schema_version": t.SCHEMA_VERSION, "created_at": now_us()}
        connection.execute(insert(t.meta).values(row))
    meta = _read(connection)
    if meta is None:
        raise foreign_database_error(store.url)
    if meta.schema_version < t.SCHEMA_VERSION:
        # imported here, because Alembic is needed once in years
        from batchata_tasks.ledger.migrations import migrate  # noqa: PLC0415 - see above

        migrate(connection, meta.schema_version, t.SCHEMA_VERSION)
        connection.execute(update(t.meta).values(schema_version=t.SCHEMA_VERSION))
    return connection.execute(select(t.meta)).one()
