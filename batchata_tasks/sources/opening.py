"""Opens a source by what it is: files by their endings or their content, folders, URLs, queries.

CSV cells are texts unless the spec's `types` says otherwise; JSONL and Parquet keep their types.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources import jsonl, parquet
from batchata_tasks.sources.documents import ENDINGS
from batchata_tasks.sources.files import File, found
from batchata_tasks.sources.forms import (
    DatabaseSource,
    DocumentsSource,
    Form,
    FrameSource,
    SheetSource,
    SqlSource,
)
from batchata_tasks.sources.registry import FileOpener, all_endings, kind_of, of_form, of_scheme
from batchata_tasks.sources.source import ReadOptions, Source, errors_of
from batchata_tasks.sources.sql import SqlQuery
from batchata_tasks.sources.table import Part, Table, partitions_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_source(
    source: str | Form, options: ReadOptions | None = None, frame: Source | None = None
) -> Source:
    """Open a table: files, a pattern, a folder of Parquet files, a query, or documents.

    `frame` is the table in memory of a source that is one.

    Raises:
        SourceError: it does not exist, cannot be read, or is of an unknown kind.
    """
    options = options or ReadOptions()
    if isinstance(source, str):
        return _files(source, options)
    if isinstance(source, SheetSource):
        return _files(source.file, replace(options, sheet=source.sheet))
    _refuse_options(source, options)
    if (table := of_form(source)) is not None:
        return table
    if frame is None:
        message = (
            "source: a frame is given in Python, by batchata_tasks.enrich(frame, …); name a path, "
            "or a query."
        )
        raise SourceError(message)
    return Table(frame.url, [Part(frame, {})])


def files_of(source: str | Form) -> list[str]:
    """Return the paths, patterns and URLs that a source reads, as far as they can be known.

    Raises:
        SourceError: it is a query that DuckDB cannot read.
    """
    if isinstance(source, str):
        return [source]
    if isinstance(source, SheetSource):
        return [source.file]
    if isinstance(source, DocumentsSource):
        return [source.documents]
    return SqlQuery(source.sql).files if isinstance(source, SqlSource) else []


def _refuse_options(source: Form, options: ReadOptions) -> None:
    """Refuse options that only files have."""
    for name, given in (("types", options.types), ("csv", options.csv)):
        if given:
            what, how = "a query", "cast in the query" if name == "types" else "call read_csv in it"
            if isinstance(source, DatabaseSource):
                how = "cast in the query"
            if isinstance(source, FrameSource):
                what, how = "a frame", "convert its columns"
            if isinstance(source, DocumentsSource):
                what, how = "a table of documents", "its columns have types"
            message = f"{name}: {what} has no such option; {how}, and remove `{name}`."
            raise SourceError(message)


def _files(url: str, options: ReadOptions) -> Source:
    if (opener := of_scheme(url.partition("://")[0] if "://" in url else "")) is not None:
        return opener(url, options)
    with errors_of(url):
        files, is_folder = found(url)
        if is_folder:
            files = [file for file in files if _is_data(file) and _is_parquet(file)]
            kind, open_file = "parquet", parquet.ParquetTable
        else:
            kind, open_file = _kind(url, files)
    _check(url, kind, options)
    parts = [Part(open_file(file, options), partitions_of(file.within)) for file in files]
    table = Table(url, parts, jsonl.joined) if kind == "jsonl" else Table(url, parts)
    if missing := sorted(set(options.types) - set(table.names())):
        names = ", ".join(table.names())
        message = f"types: the source has no column {missing[0]!r}; it has: {names}."
        raise SourceError(message)
    return table


def _is_data(file: File) -> bool:
    """Whether a file of a folder is data: names that begin with _ or . are other programs' notes.

    A partition's column may begin so.
    """
    names = (*file.within, file.path.rpartition("/")[2])
    return not any(
        name.startswith(".") or (name.startswith("_") and "=" not in name) for name in names
    )


def _is_parquet(file: File) -> bool:
    """Whether a file is Parquet by its name, or by its content if the name tells nothing."""
    kind = kind_of(file.ending)
    return file.begins_with(parquet.MARK) if kind is None else kind[0] == "parquet"


def _kind(url: str, files: Sequence[File]) -> tuple[str, FileOpener]:
    """Return the kind of some files, and how one is opened."""
    kinds = {file.ending: kind_of(file.ending) for file in files}
    for file in files:
        if kinds[file.ending] is None and file.begins_with(parquet.MARK):
            kinds[file.ending] = ("parquet", parquet.ParquetTable)
    unknown = next((file for file in files if kinds[file.ending] is None), None)
    if unknown is not None and unknown.ending in ENDINGS:
        message = (
            f"source: {unknown.name} is a document, and no table; write `source: {{documents: "
            f"{url}}}` for a table of them."
        )
        raise SourceError(message)
    if unknown is not None:
        message = (
            f"source: cannot tell what {unknown.name} is; name a file of the kinds {all_endings()} "
            "(also compressed: .gz, .zst, .bz2), or a folder of Parquet files."
        )
        raise SourceError(message)
    known = {one[0]: one for one in kinds.values() if one is not None}
    if len(known) != 1:
        message = (
            f"source: {url} matches files of several kinds ({', '.join(sorted(known))}); name one."
        )
        raise SourceError(message)
    return next(iter(known.values()))


def _check(url: str, kind: str, options: ReadOptions) -> None:
    """Refuse options that files of a kind do not have."""
    if options.types and kind not in ("csv", "workbook"):
        message = (
            f"types: only columns of CSV files and workbooks can be given types, and {url} is "
            "neither; remove `types`."
        )
        raise SourceError(message)
    if options.csv and kind != "csv":
        message = (
            f"csv: only CSV columns have such options, and {url} is not a CSV file; remove `csv`."
        )
        raise SourceError(message)
    if options.sheet is not None and kind != "workbook":
        message = f"source.sheet: {url} is no workbook; name it as `source: {url}`."
        raise SourceError(message)
