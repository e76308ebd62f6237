"""The kinds of sources: files by their endings, and whatever else a package adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.installed import entry_points_of
from batchata_tasks.sources.csv import CsvTable
from batchata_tasks.sources.csv_format import DELIMITERS
from batchata_tasks.sources.database import DatabaseQuery
from batchata_tasks.sources.document_table import DocumentTable
from batchata_tasks.sources.excel import ENDINGS, ExcelSheet
from batchata_tasks.sources.forms import DatabaseSource, DocumentsSource, SqlSource
from batchata_tasks.sources.jsonl import JsonLines
from batchata_tasks.sources.parquet import ParquetTable
from batchata_tasks.sources.sql import SqlQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.sources.files import File
    from batchata_tasks.sources.source import ReadOptions, Source

_GROUP = "batchata.sources"


class FileOpener(Protocol):
    """Makes a Source of one file; nothing is read before the source is asked something."""

    def __call__(self, file: File, options: ReadOptions, /) -> Source:
        """Return the file as a Source."""
        ...


class UrlOpener(Protocol):
    """Makes a Source of a URL that is no file, such as a database."""

    def __call__(self, url: str, options: ReadOptions, /) -> Source:
        """Return what the URL names as a Source."""
        ...


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    endings: tuple[str, ...]
    open_file: FileOpener


_KINDS = [
    _Kind("csv", tuple(DELIMITERS), CsvTable),
    _Kind("jsonl", (".jsonl", ".ndjson"), JsonLines),
    _Kind("parquet", (".parquet", ".pq"), ParquetTable),
    _Kind("workbook", ENDINGS, ExcelSheet),
]
# forms of a source that are tables by themselves: what makes a Source of each
_FORMS: dict[type[Any], Callable[[Any], Source]] = {
    SqlSource: lambda form: SqlQuery(form.sql),
    DatabaseSource: lambda form: DatabaseQuery(form.url_env, form.query),
    DocumentsSource: DocumentTable,
}
# by the scheme of the URL
_SCHEMES: dict[str, UrlOpener] = {}


def register(kind: str, endings: tuple[str, ...], opener: FileOpener) -> None:
    """Add a kind of files to this process, by the endings of their names, such as `(".xlsx",)`.

    An installed package names the module that calls this as an entry point of the group
    `batchata.sources`. A kind replaces an earlier one of its name.

    Raises:
        SourceError: an ending is another kind's.
    """
    for ending in endings:
        taken = next((k for k in _KINDS if ending.lower() in k.endings and k.name != kind), None)
        if taken is not None or not ending.startswith("."):
            problem = "does not begin with a dot" if taken is None else f"is taken by {taken.name}"
            message = f"endings: {ending!r} {problem}; give another one."
            raise SourceError(message)
    _KINDS[:] = [one for one in _KINDS if one.name != kind]
    _KINDS.append(_Kind(kind, tuple(ending.lower() for ending in endings), opener))


def register_scheme(scheme: str, opener: UrlOpener) -> None:
    """Add sources that are no files, by the scheme of their URLs, such as `postgresql`."""
    _SCHEMES[scheme] = opener


def kind_of(ending: str) -> tuple[str, FileOpener] | None:
    """Return the kind of files of an ending in lower case, and its opener; None if unknown."""
    _load_installed()
    found = next((one for one in _KINDS if ending in one.endings), None)
    return None if found is None else (found.name, found.open_file)


def of_scheme(scheme: str) -> UrlOpener | None:
    """Return the opener of URLs of a scheme, if a package added one."""
    _load_installed()
    return _SCHEMES.get(scheme)


def of_form(form: object) -> Source | None:
    """Return the Source that a form is by itself, if it is one."""
    opener = _FORMS.get(type(form))
    return None if opener is None else opener(form)


def all_endings() -> str:
    """Return the endings of all kinds, for people."""
    return ", ".join(ending for kind in _KINDS for ending in kind.endings)


@cache
def _load_installed() -> None:
    """Import what installed packages name, once; each registers its kinds."""
    for entry in entry_points_of(_GROUP):
        try:
            loaded: Any = entry.load()
        except ImportError as error:
            message = f"source: the package of the entry point {entry.name!r} fails: {error}"
            raise SourceError(message) from error
        del loaded
