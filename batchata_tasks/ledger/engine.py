"""Connecting: which databases can hold a ledger, how each kind is set up, and what errors say."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from batchata_tasks.common.errors import (
    BatchataError,
    LedgerError,
    SpecError,
    WrongLedgerError,
)
from batchata_tasks.common.libpq import CONNECT_ARGS

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

LOCK_SECONDS = 60  # how long a transaction waits for another one's lock
_REMEDY = "write it as sqlite:////folder/ledger.db or postgresql+psycopg://user@host/name"
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
# of Python's driver; all others are SQLite's own, which gets them by `uri=true` alone
_SQLITE_OPTIONS = {
    "uri",
    "timeout",
    "isolation_level",
    "detect_types",
    "check_same_thread",
    "cached_statements",
}
_REBUILD = "move it away, then run `batchata status SPEC --rebuild`"

# durable on return; no endless wait for a lock, even if a machine that holds one has vanished
_SETTINGS = f"""
SELECT set_config('synchronous_commit', CASE s WHEN 'off' THEN 'on' ELSE s END, false),
       set_config('lock_timeout', '{LOCK_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '{LOCK_SECONDS}s', false)
FROM current_setting('synchronous_commit') s
"""  # noqa: S608 - a number of ours

# the server rolled the transaction back: serialization failure, deadlock
_ROLLED_BACK = ("40001", "40P01")
_GONE = ("57P01", "57P02", "57P03")  # the server is shutting down, crashed, is starting
_MISSING = ("42P01", "42703")  # no such table, no such column


def parse_url(text: str) -> URL:
    """Return the URL of a ledger's database; `postgres://` and `postgresql://` are accepted, too.

    Raises:
        SpecError: it is not a URL, or the database cannot hold a ledger.
    """
    try:
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text))
    except (ArgumentError, ValueError):  # a port that is not a number is a ValueError
        message = f"BATCHATA_LEDGER_URL: not the URL of a database; {_REMEDY}."
        raise SpecError(message) from None
    if url.drivername not in _DRIVERS:
        message = (
            f"BATCHATA_LEDGER_URL: a database of the kind {url.drivername} cannot hold a ledger; "
            f"{_REMEDY}."
        )
        raise SpecError(message)
    if url.database in (None, "", ":memory:"):
        message = (
            "BATCHATA_LEDGER_URL: it names no database, and a ledger in memory would be lost with "
            f"the process; {_REMEDY}."
        )
        raise SpecError(message)
    if url.get_backend_name() == "sqlite" and url.query.get("uri") not in ("true", "1"):
        for name in sorted(url.query.keys() - _SQLITE_OPTIONS):
            message = (
                f"BATCHATA_LEDGER_URL: SQLite gets the option {name!r} only by a URL such as "
                f"sqlite:///file:/folder/ledger.db?{name}=…&uri=true; leave it out, or write it so."
            )
            raise SpecError(message)
    return url


def make_engine(url: URL) -> Engine:
    """Return the engine for a ledger's database; it connects when it is used.

    Raises:
        SpecError: the driver is not installed, or the URL of a SQLite file is malformed.
        WrongLedgerError: the folder of the SQLite file cannot be created.
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
            connect_args={
                name: value for name, value in CONNECT_ARGS.items() if name not in url.query
            },
        )
    except ImportError:
        message = (
            "BATCHATA_LEDGER_URL: the driver for Postgres is not installed; "
            "run `pip install 'batchata-flows[postgres]'`."
        )
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
        raise WrongLedgerError(message) from error
    arguments = {"timeout": LOCK_SECONDS, "check_same_thread": False}
    try:
        engine = create_engine(url, connect_args=arguments, poolclass=QueuePool)
    except (ArgumentError, ValueError, TypeError):  # it has a host, or options of other types
        message = f"BATCHATA_LEDGER_URL: not the URL of a SQLite file; {_REMEDY}."
        raise SpecError(message) from None
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def use_wal(engine: Engine) -> None:
    """Let processes read a SQLite ledger while another writes; the file stores this mode.

    Raises:
        LedgerError: the file cannot be written.
    """
    for tries_left in reversed(range(LOCK_SECONDS * 20)):
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            # SQLite does not wait for locks here, as when two processes create one ledger
            if tries_left == 0 or error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise LedgerError(_of_sqlite(error, place_of(engine.url))) from error
            time.sleep(0.05)
        else:
            return


def _prepare_postgres(connection: Any, _record: object) -> None:
    connection.execute(_SETTINGS)
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are opened by `_begin_sqlite`, not the driver
    for pragma in ("synchronous=FULL", f"busy_timeout={LOCK_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that writes takes the lock before it reads, so that nothing changes in between
    reading = connection.get_execution_options().get("batchata_reading")
    statement = "BEGIN" if reading else "BEGIN IMMEDIATE"
    try:
        # by the driver alone: SQLAlchemy's way to it takes as long as a small query
        cast("Any", connection.connection.dbapi_connection).execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError.instance(statement, None, error, sqlite3.Error) from error


# --- errors ---------------------------------------------------------------------------------------


def is_lost(error: BaseException) -> bool:
    """Whether a connection to Postgres failed or broke, or the server rolled its transaction back.

    If no commit was sent, nothing was written: the transaction may run again.
    """
    if not isinstance(error, DBAPIError) or isinstance(error, ProgrammingError):
        return False
    if isinstance(error.orig, sqlite3.Error):
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
    """Whether a query failed because the database has no such table or column."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _MISSING:
        return True
    return str(error.orig).startswith(("no such table", "no such column"))


def opening_error(error: SQLAlchemyError, url: URL) -> BatchataError:
    """Return the error to raise for one of the database that came as it was opened.

    A file that is no ledger, and a path that leads to no file, are for the setting to be changed.
    """
    orig = getattr(error, "orig", None)
    wrong = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN)
    if isinstance(orig, sqlite3.Error) and _code(orig) in wrong:
        return WrongLedgerError(f"BATCHATA_LEDGER_URL: {_of_sqlite(orig, place_of(url))}")
    return ledger_error(error, url)


def foreign_database_error(url: URL) -> WrongLedgerError:
    """Return the error for a database that another program uses."""
    if url.get_backend_name() == "sqlite":
        problem = (
            f"{place_of(url)} is a database, but not a ledger: another program made its tables"
        )
        remedy = f"name another file, or {_REBUILD}"
    else:
        problem = (
            f"the database at {place_of(url)} has tables with names that a ledger needs, "
            "but another program made them"
        )
        remedy = "name another database"
    return WrongLedgerError(f"BATCHATA_LEDGER_URL: {problem}; {remedy}.")


def ledger_error(error: Exception, url: URL) -> LedgerError | SpecError:
    """Return the error to raise for one of the database, in one sentence and without a password.

    It names the file or server, the reason, and the remedy.
    """
    if isinstance(error, PoolTimeoutError):
        message = f"the ledger {place_of(url)} did not answer for {LOCK_SECONDS} s; "
        return LedgerError(f"{message}start the run again.")
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return LedgerError(_of_sqlite(orig, place_of(url)))
    reason = _reason(orig or error, url)
    state = getattr(orig, "sqlstate", None)
    if isinstance(error, DBAPIError) and state is None and url.get_backend_name() != "sqlite":
        message = (
            f"the ledger's database at {place_of(url)} cannot be used: {reason}; "
            "fix BATCHATA_LEDGER_URL, or check the server."
        )
        return SpecError(message) if isinstance(error, ProgrammingError) else LedgerError(message)
    return LedgerError(f"the ledger refused a read or write: {reason}.")


def _of_sqlite(error: sqlite3.Error, place: str) -> str:
    code = _code(error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"the ledger {place} is damaged, or not a ledger ({error}); {_REBUILD}."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"the ledger {place} cannot be opened for writing ({error}); "
            "check the permissions of the file and its folder."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"the ledger {place} was locked by another process for more than {LOCK_SECONDS} s "
            f"({error}); find that process."
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"the ledger {place} could not be written ({error}); check the disk."
    return f"the ledger refused a read or write: {error}."


def _code(error: sqlite3.Error) -> int:
    """Return the kind of an error; the higher bits of SQLite's number hold details."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def place_of(url: URL) -> str:
    """Return the file, or host, port and name, of a database."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}"


def _reason(error: BaseException, url: URL) -> str:
    """Return the reason in a driver's message, as one line.

    The message may go on with hints, positions, and further hosts that were tried.
    """
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    lines = [line.strip() for line in str(primary or error).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    first = next((line for line in lines if "failed: " in line), lines[0])
    reason = re.sub(r"^(FATAL|ERROR):\s+", "", first.rpartition("failed: ")[2]).rstrip(".")
    return reason.replace(str(url.password), "***") if url.password else reason
