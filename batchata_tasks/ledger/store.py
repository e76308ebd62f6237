"""The ledger's database, and the transactions in which all its methods run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LedgerError
from batchata_tasks.ledger.engine import is_lost, ledger_error, make_engine, parse_url, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection

_VALUES = 900

S = TypeVar("S", bound="Store")
P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """A ledger's database, and the only way to run a transaction in it.

    `patience` is how many seconds to wait for a Postgres that answered before and does not now (it
    is being restarted, say). The database is not touched before the first transaction.
    """

    def __init__(self, url: str, *, patience: float = 30) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = make_engine(self.url)
        self._reader = self.engine.execution_options(batchata_reading=True)
        self._patience = patience

    @property
    def place(self) -> str:
        """Where it lies, without user and password: a file, or host, port and name."""
        return place_of(self.url)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def transact(
        self, body: Callable[[Connection], T], *, reading: bool, patience: float | None = None
    ) -> T:
        """Run `body` in one transaction and return its result.

        If the connection is lost before the commit is sent, the database has rolled everything
        back, so `body` runs again, on a new connection. If it is lost during the commit, nobody
        knows whether the commit took effect: that is an error, with the same consequences as a
        crash at that moment. The next run reads what was written.

        Raises:
            LedgerError: the database refused; unless the message says otherwise, nothing was
                written.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause, committing = 0.05, False
        while True:
            try:
                with (self._reader if reading else self.engine).begin() as connection:
                    result = body(connection)
                    committing = not reading
            except OverflowError as error:
                message = "the ledger cannot hold a number of more than 63 bits."
                raise LedgerError(message) from error
            except SQLAlchemyError as error:
                lost = is_lost(error)
                if lost and committing:
                    message = (
                        "the connection to the ledger's database was lost during a commit, which "
                        "may have taken effect or not; start the run again."
                    )
                    raise LedgerError(message) from error
                if not lost or time.monotonic() + pause > deadline:
                    raise ledger_error(error, self.url) from error
            else:
                return result
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def lock(self, connection: Connection, name: str) -> None:
        """Hold the lock of this name until the transaction ends, waiting for it if need be.

        A transaction that writes to SQLite has locked the whole database anyway.
        """
        if not self.is_sqlite:
            digest = hashlib.sha256(f"batchata {name}".encode()).digest()
            number = int.from_bytes(digest[:8], signed=True)
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def clock(self, connection: Connection) -> int:
        """Return the time in microseconds, by a clock that all users of the ledger share.

        Several machines can use a Postgres ledger, and their clocks differ: the database's counts.
        """
        if self.is_sqlite:
            return now_us()
        query = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(connection.execute(query).scalar_one())


def blocks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield ids, each once, in as many at a time as a statement can have.

    SQLite takes up to 32,766 values (before 3.32: 999), Postgres 65,535.
    """
    different = iter(dict.fromkeys(ids))
    while block := list(islice(different, _VALUES)):
        yield block


def ledger_place(url: str) -> str:
    """Return where the ledger of a URL lies, without user and password."""
    return place_of(parse_url(url))


def reads(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction that only reads; callers leave out `connection`."""
    return _as_transaction(method, reading=True)


def writes(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method as one transaction, durable on return; callers leave out `connection`."""
    return _as_transaction(method, reading=False)


def _as_transaction(
    method: Callable[Concatenate[S, Connection, P], T], *, reading: bool
) -> Callable[Concatenate[S, P], T]:
    @wraps(method)
    def call(store: S, *args: P.args, **kwargs: P.kwargs) -> T:
        # the method may run more than once, and an iterator would be exhausted the second time
        reusable: Any = [
            list(cast("Iterator[Any]", arg)) if isinstance(arg, Iterator) else arg for arg in args
        ]
        return store.transact(
            lambda connection: method(store, connection, *reusable, **kwargs), reading=reading
        )

    return call
