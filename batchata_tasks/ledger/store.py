"""The database under the ledger, and the transactions in which everything else happens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger.engine import is_lost, make_engine, parse_url, sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

S = TypeVar("S", bound="Store")
P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """A ledger's database, and the one way to a transaction in it.

    `patience` is for how many seconds a Postgres that is away (restarted, say) is waited for, once
    it has been there. The database is not touched before the first transaction.
    """

    def __init__(self, url: str, *, patience: float = 30) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = make_engine(self.url)
        self._patience = patience

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def transact(
        self, body: Callable[[Connection], T], *, reading: bool, patience: float | None = None
    ) -> T:
        """Run `body` in one transaction and return what it returns.

        Where the connection is lost before the commit is sent, the database has undone everything, so
        `body` runs again, on a new connection. While a commit is under way nobody can tell whether it
        stands; that is an error, and like a death at that moment: the next run reads what stands.

        Raises:
            LedgerError: the database refused; unless the message says otherwise, nothing was written.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause, committing = 0.05, False
        while True:
            try:
                with (
                    self.engine.connect().execution_options(batchata_reading=reading) as connection,
                    connection.begin(),
                ):
                    result = body(connection)
                    committing = not reading
            except OverflowError as error:
                message = "the ledger cannot hold a number of more than 63 bits."
                raise LedgerError(message) from error
            except SQLAlchemyError as error:
                lost = is_lost(error)
                if lost and committing:
                    message = "the ledger's database was lost while it confirmed a write, which may stand or not; start the run again."
                    raise LedgerError(message) from error
                if not lost or time.monotonic() + pause > deadline:
                    raise sentence(error, self.url) from error
            else:
                return result
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def lock(self, connection: Connection, what: str) -> None:
        """Keep every other transaction out that asks for the same name, until this one ends.

        A transaction that writes to SQLite has the whole database anyway.
        """
        if not self.is_sqlite:
            number = int.from_bytes(
                hashlib.sha256(f"batchata {what}".encode()).digest()[:8], signed=True
            )
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def clock(self, connection: Connection) -> int:
        """Return the time in microseconds, by a clock that all who share the ledger share.

        Machines' clocks differ, so where several can use the ledger it is the database's.
        """
        if self.is_sqlite:
            return now_us()
        return int(
            connection.execute(
                text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            ).scalar_one()
        )


def reads(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that only reads; its callers leave `connection` out."""
    return _as_transaction(method, reading=True)


def writes(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction, durable on return or without effect; its callers leave `connection` out."""
    return _as_transaction(method, reading=False)


def _as_transaction(
    method: Callable[Concatenate[S, Connection, P], T], *, reading: bool
) -> Callable[Concatenate[S, P], T]:
    @wraps(method)
    def call(store: S, *args: P.args, **kwargs: P.kwargs) -> T:
        # it may run more than once, and an iterator would be used up by then
        kept: Any = [
            list(cast("Iterator[Any]", arg)) if isinstance(arg, Iterator) else arg for arg in args
        ]
        return store.transact(
            lambda connection: method(store, connection, *kept, **kwargs), reading=reading
        )

    return call
