"""Which files a DuckDB query reads: those that it names as texts, and no others.

DuckDB itself tells the parts of a query. What a query makes up while it runs is not read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb import DuckDBPyConnection

_READS = ("read_", "parquet_", "sniff_csv", "glob")  # how the names of functions that read begin
_MADE_UP = ("query", "query_table")
_MARKS = "./\\*?["  # a table's name that has one of these is that of a file, or a pattern


def named_files(connection: DuckDBPyConnection, query: str) -> list[str]:
    """Return the paths, patterns and URLs that a query names.

    Raises:
        SourceError: it is not one SELECT.
    """
    connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query])
    row: Any = connection.fetchone()
    parsed: dict[str, Any] = json.loads(row[0])
    if parsed.get("error"):
        is_other = parsed.get("error_type") == "not implemented"
        reason = " ".join(str(parsed.get("error_message")).split())
        problem = "it is no SELECT" if is_other else f"DuckDB cannot read it ({reason})"
        message = f"source.sql: {problem}; write one SELECT."
        raise SourceError(message)
    if len(parsed["statements"]) != 1:
        message = (
            f"source.sql: there are {len(parsed['statements'])} statements; write one SELECT "
            "(parts of it may stand before it: WITH name AS (SELECT …) SELECT …)."
        )
        raise SourceError(message)
    return list(dict.fromkeys(_of(parsed["statements"][0])))


def _of(part: object) -> Iterator[str]:
    """Yield what a part of a query names, in the order of the parts."""
    if isinstance(part, list):
        for one in cast("list[object]", part):
            yield from _of(one)
    elif isinstance(part, dict):
        node = cast("dict[str, Any]", part)
        if node.get("type") == "BASE_TABLE":
            path = node["qualified_name"]["path"]
            if len(path) == 1 and any(mark in path[0] for mark in _MARKS):
                yield path[0]
        if node.get("type") == "TABLE_FUNCTION":
            yield from _read_by(node["function"])
        for one in node.values():
            yield from _of(one)


def _read_by(function: dict[str, Any]) -> Iterator[str]:
    """Yield the files that a function in the place of a table reads.

    Raises:
        SourceError: the query makes their names up while it runs.
    """
    name = str(function["function_name"])
    positional = [one["expression"] for one in function["arguments"] if not one["name"]]
    if name in _MADE_UP or (name.startswith(_READS) and not all(map(_is_written_out, positional))):
        message = (
            "source.sql: a query reads just the files that it names as texts, and what "
            f"{name}() reads here is made up while it runs; write the names, or the SELECT, out."
        )
        raise SourceError(message)
    if name.startswith(_READS):
        yield from _texts(positional)


def _is_written_out(part: dict[str, Any]) -> bool:
    if part.get("class") == "COMPARISON":  # an option: delim = ';'
        return True
    if part.get("function_name") == "list_value":
        return all(_is_written_out(one["expression"]) for one in part["arguments"])
    return part.get("literal") is not None


def _texts(part: object) -> Iterator[str]:
    """Yield the texts that are written out, alone or in lists; not those that are parts of more."""
    if isinstance(part, list):
        for one in cast("list[object]", part):
            yield from _texts(one)
    elif isinstance(part, dict):
        node = cast("dict[str, Any]", part)
        literal = node.get("literal")
        if literal is not None and literal.get("kind") == "STRING":
            yield literal["text"]
        elif node.get("function_name") == "list_value":
            yield from _texts([one["expression"] for one in node["arguments"]])
