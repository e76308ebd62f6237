"""Queries over files, by DuckDB: joins, other names, rows of which one is kept, dialects of CSV.

DuckDB reads just the files that the query names (see named_files.py): it has no network, loads no
extensions, and sees neither databases nor this program's own objects.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.arrow_types import plain
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import JSON
from batchata_tasks.common.text import printable
from batchata_tasks.sources.files import found, pattern_base
from batchata_tasks.sources.named_files import named_files
from batchata_tasks.sources.queried import checked
from batchata_tasks.sources.source import Block, Place, errors_of
from batchata_tasks.sources.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from duckdb import DuckDBPyConnection, DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType

_FETCHED_ROWS = 2048  # at once, as DuckDB makes them
_WHERE = "the query"
# what Arrow or a dataset has no type for: values would be changed in silence
_NO_TYPE = {
    "uhugeint": "DECIMAL(38, 0)",
    "time with time zone": "VARCHAR",
    "interval": "VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
    "union": "VARCHAR",
    "variant": "JSON",
    "geometry": "VARCHAR",
}
_NESTED = ("list", "array", "struct", "map")


class SqlQuery:
    """A SELECT of DuckDB, as a Source.

    It runs once, when its rows are first asked for: they are kept aside, so that each reading of a
    plan has the same rows in the same order.
    """

    url = _WHERE

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
    def _asked(self) -> Generator[DuckDBPyRelation, None, None]:
        """Yield the query, about to run."""
        with _connected(self.files) as connection, _told():
            yield connection.sql(self._query)

    @cached_property
    def _types(self) -> dict[str, tuple[pa.DataType, str]]:
        """Of each column its type as Arrow has it, and what DuckDB calls what no type holds."""
        with self._asked() as asked:
            names, kinds = asked.columns, asked.types
            with asked.limit(0).to_arrow_reader(1) as reader:
                schema: pa.Schema = reader.schema
        if doubled := next((name for name in names if names.count(name) > 1), None):
            message = (
                f"source.sql: it selects two columns named {printable(doubled)!r}; "
                "rename one (AS …)."
            )
            raise SourceError(message)
        columns = dict[str, tuple[pa.DataType, str]]()
        for name, kind, field in zip(names, kinds, schema, strict=True):
            arrow = JSON if str(kind) == "JSON" else plain(field.type)
            columns[name] = arrow, _lacking(kind)
        return columns

    def names(self) -> list[str]:
        """See Source."""
        return list(self._types)

    def schema(self, columns: list[str]) -> pa.Schema:
        """See Source."""
        for name in columns:
            if odd := self._types[name][1]:
                message = (
                    f"source.sql: the column {printable(name)!r} is of DuckDB's type "
                    f"{odd.upper()}, which a dataset has no type for; cast it in the query, such "
                    f"as CAST(… AS {_NO_TYPE[odd]})."
                )
                raise SourceError(message)
        return pa.schema([(name, self._types[name][0]) for name in columns])

    @cached_property
    def _spool(self) -> Spool:
        return Spool(self._rows())

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """Run the query; yield its rows, but for the columns that no type holds."""
        usable = [name for name, (_, odd) in self._types.items() if not odd]
        with self._asked() as asked, asked.to_arrow_reader(_FETCHED_ROWS) as reader:
            for batch in reader:
                yield batch.select(usable)

    def batches(self, columns: list[str]) -> Iterator[Block]:
        """See Source."""
        schema, first = self.schema(columns), 1
        with errors_of(_WHERE):
            for batch in self._spool.batches(columns):
                place = Place(_WHERE, first)
                yield Block(checked(batch, schema, place), place)
                first += batch.num_rows


def _lacking(kind: DuckDBPyType) -> str:
    """Return the type in a type of DuckDB that a dataset has no type for; "" if there is none."""
    if kind.id in _NO_TYPE:
        return kind.id
    if kind.id not in _NESTED:
        return ""
    children: list[tuple[str, Any]] = kind.children
    for _, part in children:
        if not isinstance(part, int) and (odd := _lacking(part)):  # the length of an array
            return odd
    return ""


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
        message = f"source.sql: DuckDB says: {_reason(error)}; {remedy}."
        raise SourceError(message) from error


def _reason(error: Exception) -> str:
    """Return what DuckDB says, without the lines that only point into the query."""
    text = str(error).split("\n\nLINE ")[0]
    return " ".join(text.split())[:500].rstrip(".")
