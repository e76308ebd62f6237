"""Opening a ledger: a new one is made, an older one migrated, anything else left as it is and refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.engine import (
    foreign,
    is_missing,
    make_engine,
    parse_url,
    sentence,
    use_wal,
)
from batchata_tasks.ledger.values import new_id

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Row

    from batchata_tasks.ledger.store import Store


def open_ledger(store: Store, *, as_it_is: bool = False) -> str:
    """Return the ledger's id; at today's version that is one read. `as_it_is` makes and migrates none.

    Raises:
        WrongLedgerError: it is somebody else's database.
        LedgerError: it is of a later version (or, `as_it_is`, of an older one), damaged, or cannot be reached.
    """
    try:
        found = store.transact(_read, reading=True, patience=0)
    except LedgerError as error:
        if not is_missing(error.__cause__):
            raise
        found = None
        # before anything is written: what is not ours stays as it is, down to its journal mode
        store.transact(lambda connection: _is_free(store.url, connection), reading=True)
    if as_it_is and (found is None or found.schema_version < t.SCHEMA_VERSION):
        message = (
            "the ledger is of an older version than this program, and nothing is changed by looking at it: `batchata run` or "
            "`batchata status` migrates it, after which older programs refuse it."
        )
        raise LedgerError(message)
    if store.is_sqlite and not as_it_is:
        use_wal(store.engine)
    if found is None or found.schema_version < t.SCHEMA_VERSION:
        found = store.transact(
            lambda connection: _make_or_migrate(store, connection), reading=False
        )
    if found.schema_version > t.SCHEMA_VERSION:
        message = (
            f"the ledger has schema version {found.schema_version}, this program writes version {t.SCHEMA_VERSION}; update it: "
            "a later version of batchata-flows has used this ledger."
        )
        raise LedgerError(message)
    return str(found.ledger_id)


def is_made(url_text: str) -> bool:
    """Whether there is a ledger; nothing is made or written to find out.

    Raises:
        WrongLedgerError: it is somebody else's database.
        LedgerError: the database cannot be reached.
    """
    url = parse_url(url_text)
    if (
        url.get_backend_name() == "sqlite"
        and "uri" not in url.query
        and not Path(str(url.database)).exists()
    ):
        return False
    engine = make_engine(url)
    try:
        with engine.connect().execution_options(batchata_reading=True) as connection:
            return not _is_free(url, connection)
    except SQLAlchemyError as error:
        raise sentence(error, url) from error
    finally:
        engine.dispose()


def _read(connection: Connection) -> Row[Any] | None:
    return connection.execute(select(t.meta)).first()


def _is_free(url: URL, connection: Connection) -> bool:
    """Whether a ledger is to be made there, or is there; raises WrongLedgerError where something else is."""
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    if t.meta.name in names and set(t.meta.columns.keys()) <= {
        column["name"] for column in inspector.get_columns(t.meta.name)
    }:
        return False
    # a server's database may hold other things, too; a file of SQLite is one program's
    if names if url.get_backend_name() == "sqlite" else names & set(t.metadata.tables):
        raise foreign(url)
    return True


def _make_or_migrate(store: Store, connection: Connection) -> Row[Any]:
    """Make or migrate the ledger, in one transaction beside which no other does: all of it, or nothing."""
    store.lock(connection, "opening")
    if _is_free(store.url, connection):
        t.metadata.create_all(connection)
        row = {"ledger_id": new_id(), "schema_version": t.SCHEMA_VERSION, "created_at": now_us()}
        connection.execute(insert(t.meta).values(row))
    found = _read(connection)
    if found is None:
        raise foreign(store.url)
    if found.schema_version < t.SCHEMA_VERSION:
        from batchata_tasks.ledger.migrations import migrate  # noqa: PLC0415 - Alembic is wanted once in years

        migrate(connection, found.schema_version, t.SCHEMA_VERSION)
        connection.execute(update(t.meta).values(schema_version=t.SCHEMA_VERSION))
    return connection.execute(select(t.meta)).one()
