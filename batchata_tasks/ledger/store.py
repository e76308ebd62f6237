"""The database under the ledger: opening it, and the transactions in which everything else happens."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from batchata_tasks.errors import LedgerError, SpecError
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.values import new_id, now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Connection

S = TypeVar("S", bound="Store")
P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """An open ledger database: its engine, its id, and the one way to a transaction."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            if self.is_sqlite and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": 60, "check_same_thread": False} if self.is_sqlite else {}
            self._engine = create_engine(parsed, connect_args=arguments, poolclass=QueuePool)
        except (ArgumentError, ImportError) as error:
            what = f"there is no module {error.name}" if isinstance(error, ImportError) else "it is no URL of a known database"
            message = f"BATCHATA_LEDGER_URL: {what}; write it as sqlite:////folder/ledger.db or postgresql+psycopg://user@host/name."
            raise SpecError(message) from None
        except OSError as error:
            message = f"BATCHATA_LEDGER_URL: the ledger cannot be opened: {error.strerror}."
            raise LedgerError(message) from error
        if self.is_sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self.id = self._open()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _begin(self, *, reading: bool = False) -> Generator[Connection, None, None]:
        try:
            with self._engine.connect().execution_options(batchata_reading=reading) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            # the driver's own text names the table and the reason, never the URL's password
            reason = getattr(error, "orig", None) or type(error).__name__
            message = f"the ledger refused a read or write: {reason}."
            raise LedgerError(message) from error

    def transact(self, body: Callable[[Connection], T], *, reading: bool) -> T:
        """Run `body` in one transaction and return what it returns.

        Raises:
            LedgerError: the database refused; nothing of `body` was written.
        """
        with self._begin(reading=reading) as connection:
            return body(connection)

    def _open(self) -> str:
        with self._begin() as connection:
            t.metadata.create_all(connection)
            found = connection.execute(select(t.meta)).first()
            if found is None:
                ledger_id = new_id()
                row = {"ledger_id": ledger_id, "schema_version": t.SCHEMA_VERSION, "created_at": now_us()}
                connection.execute(insert(t.meta).values(row))
                return ledger_id
        if found.schema_version != t.SCHEMA_VERSION:
            message = f"the ledger has schema version {found.schema_version}, this program writes version {t.SCHEMA_VERSION}; update it."
            raise LedgerError(message)
        return str(found.ledger_id)


def reads(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that only reads; its callers leave `connection` out."""

    @wraps(method)
    def call(store: S, *args: P.args, **kwargs: P.kwargs) -> T:
        return store.transact(lambda connection: method(store, connection, *args, **kwargs), reading=True)

    return call


def writes(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction, durable on return or without effect; its callers leave `connection` out."""

    @wraps(method)
    def call(store: S, *args: P.args, **kwargs: P.kwargs) -> T:
        return store.transact(lambda connection: method(store, connection, *args, **kwargs), reading=False)

    return call


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event opens transactions, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # read-then-write must be one step among processes, so a transaction that writes takes the lock first
    reading = connection.get_execution_options().get("batchata_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
