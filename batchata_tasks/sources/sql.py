"""Queries over files, by DuckDB: joins, other names, rows of which one is kept, dialects of CSV.

DuckDB reads just the files that the query names (see named_files.py): it has no network, loads no
extensions, and sees neither databases nor this program's own objects.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.duckdb_rows import DuckDbRows
from batchata_tasks.sources.files import found, pattern_base
from batchata_tasks.sources.named_files import named_files

if TYPE_CHECKING:
    from collections.abc import Generator

    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_LONG = 500  # characters of DuckDB's own words


class SqlQuery(DuckDbRows):
    """A SELECT of DuckDB over files, as a Source."""

    url, label = "the query", "source.sql"

    def __init__(self, query: str) -> None:
        self._query = query

    @cached_property
    def files(self) -> list[str]:
        """The files, patterns and folders that the query names.

        Raises:
            SourceError: it is not one SELECT; or it names a URL.
        """
        with _connected([]) as connection, _told():
            names = named_files(connection, self._query)
        if remote := next((name for name in names if "://" in name), None):
            message = (
                f"source.sql: {remote} is no file of this machine, and a query reads no others; "
                "copy it, or name it as the source itself."
            )
            raise SourceError(message)
        return names

    @contextmanager
    def asked(self) -> Generator[DuckDBPyRelation, None, None]:
        """See DuckDbRows."""
        with _connected(self.files) as connection, _told():
            yield connection.sql(self._query)


@contextmanager
def _connected(files: list[str]) -> Generator[DuckDBPyConnection, None, None]:
    """Connect to a database in memory that may read these files, and nothing else."""
    try:
        import duckdb  # noqa: PLC0415 - it may not be installed, and few specs need it
    except ImportError:
        message = (
            "source.sql: DuckDB is not installed; run `pip install 'batchata-flows[sql]'` to query "
            "files."
        )
        raise SourceError(message) from None
    folders, paths = _readable(files)
    with (
        tempfile.TemporaryDirectory(prefix="batchata-sql-") as spill,
        duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_persistent_secrets": "false",
                "python_enable_replacements": "false",
                "temp_directory": spill,  # what does not fit into memory
            }
        ) as connection,
    ):
        # moments are the same on each machine
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET allowed_directories = ?", [folders])
        connection.execute("SET allowed_paths = ?", [paths])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def _readable(files: list[str]) -> tuple[list[str], list[str]]:
    """Return the folders and the paths that the query may read.

    Raises:
        SourceError: one of its files does not exist.
    """
    folders, paths = list[str](), list[str]()
    for name in files:
        found(name)
        path = Path(name).expanduser()
        if path.is_dir():
            folders.append(str(path))
        elif path.exists():
            paths.append(str(path))
        else:
            folders.append(pattern_base(str(path)))
    return folders, paths


@contextmanager
def _told() -> Generator[None, None, None]:
    """Turn DuckDB's errors into one sentence with the remedy."""
    import duckdb  # noqa: PLC0415 - as above

    try:
        yield
    except duckdb.PermissionException as error:
        message = (
            f"source.sql: {_reason(error)}; a query reads just the files that it names as texts "
            "('data/x.csv', read_csv('data/*.csv')): name the file so."
        )
        raise SourceError(message) from error
    except duckdb.Error as error:
        remedy = "fix the query (names of files stand in quotes: FROM 'data/x.csv')"
        if "encodings extension" in str(error):  # no query here may load one
            remedy = "write the file as UTF-8, or make it the source itself, with `csv: {encoding}`"
        message = f"source.sql: DuckDB says: {_reason(error)}; {remedy}."
        raise SourceError(message) from error


def _reason(error: Exception) -> str:
    """Return what DuckDB says, without the lines that only point into the query."""
    text = str(error).split("\n\nLINE ")[0].split("It is possible that the encoding exists")[0]
    words = " ".join(text.split())
    return (words if len(words) <= _LONG else f"{words[:_LONG]}…").rstrip(".")
