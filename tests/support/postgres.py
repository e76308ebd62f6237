"""A Postgres on loopback that starts with the first test that asks, and ends with the tests.

The binaries are those on the PATH, or Debian's under /usr/lib/postgresql. If there are none, the
tests that need them are skipped with that reason.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from psycopg import sql

from tests.support.waiting import PATIENCE

# what is written need not outlive the machine; the rest is the server's default
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}


def binaries() -> Path | None:
    """Return the folder that holds `initdb` and `postgres`, or None."""
    initdb = shutil.which("initdb")
    folders = [Path(initdb).resolve().parent] if initdb else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name),
        reverse=True,
    )
    return next(
        (
            folder
            for folder in folders
            if (folder / "postgres").exists() and (folder / "initdb").exists()
        ),
        None,
    )


def _as_user() -> dict[str, Any]:
    """Return the options that make a subprocess an ordinary user's: Postgres refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("Postgres does not run as root, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EndedError(Exception):
    """The server process ended by itself."""


class Server:
    """One server process in a temporary folder; `with` starts and stops it."""

    def __init__(self, folder: Path) -> None:
        self._binaries = folder
        self._data = Path()
        self._user = _as_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()
        self.password = secrets.token_hex(8)
        self.prepared: dict[
            Any, tuple[str, Any]
        ] = {}  # databases that tests begin with, by the function that filled them
        self._connections: dict[str, psycopg.Connection[Any]] = {}
        self.port = 0

    def __enter__(self) -> Self:
        home = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="batchata-postgres-"))
        )
        self._data = home / "data"
        (home / "password").write_text(self.password)
        if self._user:
            for path in (home, home / "password"):
                os.chown(path, self._user["user"], self._user["group"])
        arguments = [
            "--username=tester",
            "--auth=scram-sha-256",
            f"--pwfile={home / 'password'}",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]
        done = subprocess.run(
            [self._binaries / "initdb", *arguments, "--pgdata", self._data],
            capture_output=True,
            check=False,
            cwd="/",
            **self._user,
        )
        if done.returncode:
            self._stack.close()
            pytest.skip(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        for _ in range(5):
            self.port = _free_port()
            with suppress(EndedError):  # somebody else was quicker to take the port
                self.start()
                return self
        self._stack.close()
        pytest.fail("postgres does not start")

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it accepts connections."""
        if self._process is not None and self._process.poll() is None:
            return
        options = [
            part
            for name, value in {**_SETTINGS, "port": str(self.port)}.items()
            for part in ("-c", f"{name}={value}")
        ]
        # it ends with the tests, however they end
        tie = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*tie, self._binaries / "postgres", "-D", self._data, *options],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        for _ in range(int(PATIENCE / 0.05)):
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise EndedError from None
                time.sleep(0.05)
            else:
                return
        self.stop()
        pytest.fail("postgres did not let anybody in")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the process: SIGINT ends every connection first, SIGQUIT is a crash."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a new connection of the server's owner; each statement is a transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="tester",
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=60,
        )

    def run(self, statement: str, *names: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner; each {} is a name."""
        connection = self._connections.get(database)
        if connection is None or connection.closed:
            connection = self._connections[database] = self.connect(database)
        cursor = connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
        return cursor.fetchall() if cursor.description else []

    def url(self, database: str) -> str:
        """Return the URL of a database as BATCHATA_LEDGER_URL wants it."""
        return f"postgresql+psycopg://tester:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Make an empty database and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.run("CREATE DATABASE {}", name)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


class LazyServer:
    """The server of a test session.

    The first test that asks starts it, so that most workers start none.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    @cached_property
    def server(self) -> Server:
        """The server; skips the test if there can be none."""
        folder = binaries()
        if folder is None:
            pytest.skip("there is no Postgres: neither on the PATH nor in /usr/lib/postgresql")
        return self._stack.enter_context(Server(folder))

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()
