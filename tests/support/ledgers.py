"""The ledgers of tests: SQLite files and Postgres databases, new or copied from a prepared one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchata_tasks.ledger.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.postgres import Server

T = TypeVar("T")
TABLES = sorted(metadata.tables)


class Databases(Protocol):
    """One kind of database."""

    kind: str

    def new(self) -> str:
        """Return the URL of an empty database."""
        ...

    def copy(self, prepare: Callable[[str], T]) -> tuple[str, T]:
        """Return a database that `prepare` filled, and what `prepare` returned.

        It runs once, and its database is copied.
        """
        ...


class SqliteFiles:
    """Files in a folder."""

    kind = "sqlite"
    # once for the whole session
    _prepared: dict[Callable[[str], Any], tuple[bytes, Any]] = {}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0

    def _path(self) -> Path:
        self._made += 1
        return self._folder / f"ledger{self._made}.db"

    def new(self) -> str:
        return f"sqlite:///{self._path()}"

    def copy(self, prepare: Callable[[str], T]) -> tuple[str, T]:
        if prepare not in self._prepared:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "ledger.db"
                facts = prepare(f"sqlite:///{path}")
                self._prepared[prepare] = path.read_bytes(), facts
        content, facts = self._prepared[prepare]
        path = self._path()
        path.write_bytes(content)
        return f"sqlite:///{path}", facts


class PostgresDatabases:
    """Databases on a server; `close` drops those that were made new."""

    kind = "postgres"

    def __init__(self, server: Server) -> None:
        self.server, self._made = server, list[str]()

    def new(self) -> str:
        self._made.append(self.server.create())
        return self.server.url(self._made[-1])

    def copy(self, prepare: Callable[[str], T]) -> tuple[str, T]:
        """Return the prepared database, as it was then: the copy before this one is gone.

        Filling the same tables anew takes a tenth of the time that copying a database takes.
        """
        if prepare not in self.server.prepared:
            name = self.server.create()
            facts = prepare(self.server.url(name))
            self.server.prepared[prepare] = name, facts
            self.server.run("CREATE SCHEMA prepared", database=name)
            for table in TABLES:
                self.server.run(
                    "CREATE TABLE prepared.{0} AS TABLE public.{0}", table, database=name
                )
            return self.server.url(name), facts
        name, facts = self.server.prepared[prepare]
        self.server.run(
            (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                "current_database() AND pid <> pg_backend_pid()"
            ),
            database=name,
        )
        again = "; ".join(
            f"DELETE FROM public.{table}; INSERT INTO public.{table} TABLE prepared.{table}"
            for table in TABLES
        )
        self.server.run(again, database=name)
        return self.server.url(name), facts

    def close(self) -> None:
        for name in self._made:
            self.server.drop(name)
        self._made.clear()
