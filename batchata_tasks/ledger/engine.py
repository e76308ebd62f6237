"""Connecting: where a ledger may lie, how each kind of database is set up, its errors as one sentence each."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from batchata_tasks.common.errors import LedgerError, SpecError, WrongLedgerError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

LOCK_SECONDS = 60  # how long a transaction waits for another's
_REMEDY = "write it as sqlite:////folder/ledger.db or postgresql+psycopg://user@host/name"
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
_REBUILD = "move it away, then run `batchata status SPEC --rebuild`"

# how libpq reaches a server, unless the URL says otherwise: one that is gone is noticed within a minute
_REACH = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 40_000,
    "fallback_application_name": "batchata",
}
# durable on return; no wait without end, neither for a lock nor for a machine that vanished with one
_SETTINGS = f"""
SELECT set_config('synchronous_commit', CASE s WHEN 'off' THEN 'on' ELSE s END, false),
       set_config('lock_timeout', '{LOCK_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', false)
FROM current_setting('synchronous_commit') s
"""  # noqa: S608 - a number of ours

# of a transaction that the server ended itself: deadlock, serialization failure
_ROLLED_BACK = ("40001", "40P01")
_GONE = ("57P01", "57P02", "57P03")  # it shuts down, it crashed, it is starting
_MISSING = ("42P01", "42703")  # no such table, no such column


def parse_url(text: str) -> URL:
    """Return the URL of a ledger's database; the forms that others use for Postgres are understood, too.

    Raises:
        SpecError: it is no URL, or that of a database in which no ledger can lie.
    """
    try:
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text))
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        message = f"BATCHATA_LEDGER_URL: it is no URL of a known database; {_REMEDY}."
        raise SpecError(message) from None
    if url.drivername not in _DRIVERS:
        message = f"BATCHATA_LEDGER_URL: no ledger can lie in a database of the kind {url.drivername}; {_REMEDY}."
        raise SpecError(message)
    if url.database in (None, "", ":memory:"):
        message = f"BATCHATA_LEDGER_URL: it names no database, and a ledger in memory would be lost with the process; {_REMEDY}."
        raise SpecError(message)
    return url


def make_engine(url: URL) -> Engine:
    """Return the engine for a ledger's database; it connects when it is used.

    Raises:
        SpecError: the driver is not installed.
        LedgerError: the folder of the SQLite file cannot be made.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    try:
        engine = create_engine(
            url,
            isolation_level="READ COMMITTED",
            poolclass=QueuePool,
            pool_pre_ping=True,
            pool_timeout=LOCK_SECONDS,
            connect_args={name: value for name, value in _REACH.items() if name not in url.query},
        )
    except ImportError:
        message = "BATCHATA_LEDGER_URL: the driver for Postgres is not installed; run `pip install 'batchata-flows[postgres]'`."
        raise SpecError(message) from None
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    path = Path(str(url.database))
    try:
        if "uri" not in url.query:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"BATCHATA_LEDGER_URL: the ledger {path} cannot be opened: {error.strerror}."
        raise LedgerError(message) from error
    engine = create_engine(
        url, connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False}, poolclass=QueuePool
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def use_wal(engine: Engine) -> None:
    """Let readers of a SQLite ledger through while somebody writes; the file remembers it.

    Raises:
        LedgerError: the file cannot be written.
    """
    for left in reversed(range(LOCK_SECONDS * 20)):
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            # SQLite does not wait here by itself while two processes make one ledger
            if left == 0 or error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise LedgerError(_of_sqlite(error, _place(engine.url))) from error
            time.sleep(0.05)
        else:
            return


def _prepare_postgres(connection: Any, _record: object) -> None:
    connection.execute(_SETTINGS)
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # SQLAlchemy's `begin` event opens transactions, not the driver
    )
    for pragma in ("synchronous=FULL", f"busy_timeout={LOCK_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # read-then-write must be one step among processes, so a transaction that writes takes the lock first
    reading = connection.get_execution_options().get("batchata_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


# --- errors ------------------------------------------------------------------------------------------


def is_lost(error: BaseException) -> bool:
    """Whether a connection to Postgres could not be had, or broke, or its transaction was undone by the server.

    Before a commit was sent all of these mean that nothing was written: the transaction may run again.
    """
    if (
        not isinstance(error, DBAPIError)
        or isinstance(error.orig, sqlite3.Error)
        or isinstance(error, ProgrammingError)
    ):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return (
        error.connection_invalidated
        or state is None
        or state in _ROLLED_BACK
        or state in _GONE
        or state.startswith("08")
    )


def is_missing(error: BaseException | None) -> bool:
    """Whether a query failed since the database has no such table or column."""
    if not isinstance(error, DBAPIError):
        return False
    text = str(error.orig)
    return getattr(error.orig, "sqlstate", None) in _MISSING or text.startswith(
        ("no such table", "no such column")
    )


def foreign(url: URL) -> WrongLedgerError:
    """Return the refusal of a database that is in use, but not as a ledger."""
    if url.get_backend_name() == "sqlite":
        what = f"{_place(url)} is a database, but no ledger: its tables are somebody else's"
        return WrongLedgerError(f"BATCHATA_LEDGER_URL: {what}; name another file, or {_REBUILD}.")
    what = f"the database at {_place(url)} has tables of the names that a ledger needs, but they are somebody else's"
    return WrongLedgerError(f"BATCHATA_LEDGER_URL: {what}; name another database.")


def sentence(error: Exception, url: URL) -> LedgerError | SpecError:
    """Return what to tell of an error of the database, without a password: its file or server, the reason, the remedy."""
    if isinstance(error, PoolTimeoutError):
        return LedgerError(
            f"the ledger {_place(url)} did not answer for {LOCK_SECONDS} s; start the run again."
        )
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return LedgerError(_of_sqlite(orig, _place(url)))
    reason = _reason(orig or error, url)
    state = getattr(orig, "sqlstate", None)
    if isinstance(error, DBAPIError) and state is None and url.get_backend_name() != "sqlite":
        message = f"the ledger's database at {_place(url)} cannot be used: {reason}; mend BATCHATA_LEDGER_URL, or see to the server."
        return SpecError(message) if isinstance(error, ProgrammingError) else LedgerError(message)
    return LedgerError(f"the ledger refused a read or write: {reason}.")


def _of_sqlite(error: sqlite3.Error, place: str) -> str:
    code = (
        getattr(error, "sqlite_errorcode", 0) & 0xFF
    )  # the rest of the bits are the details of each kind
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"the ledger {place} is damaged, or no ledger at all ({error}); {_REBUILD}."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"the ledger {place} cannot be opened for writing ({error}); see to the rights on the file and its folder."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the ledger {place} was kept by another process for more than {LOCK_SECONDS} s ({error}); see what that is."
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"the ledger {place} could not be written ({error}); see to the disk."
    return f"the ledger refused a read or write: {error}."


def _place(url: URL) -> str:
    """Return the file, or host, port and name, of a database."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}"


def _reason(error: BaseException, url: URL) -> str:
    """Return the first fact of a driver's message, on one line: it may go on with hints, positions and other hosts tried."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    lines = [
        line.strip()
        for line in str(primary or error or type(error).__name__).splitlines()
        if line.strip()
    ]
    first = next(
        (line for line in lines if "failed: " in line), lines[0] if lines else type(error).__name__
    )
    reason = re.sub(r"^(FATAL|ERROR):\s+", "", first.rpartition("failed: ")[2]).rstrip(".")
    return reason.replace(str(url.password), "***") if url.password else reason
