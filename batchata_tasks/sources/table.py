"""A table that can be read as often as needed, in whatever format it is stored."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import pyarrow as pa

from batchata_tasks.common.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

BATCH_ROWS = 8192
_fsspec = cast("Any", fsspec)  # it has no types


@dataclass(frozen=True)
class Source:
    """A table that can be read as often as needed; `schema` lists all its columns."""

    url: str
    schema: pa.Schema
    _read: Callable[[list[str]], Iterator[pa.RecordBatch]]

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, as record batches of at most 8,192 rows with just `columns`.

        Raises:
            SourceError: the table is broken somewhere.
        """
        with errors_of(self.url):
            for batch_read in self._read(columns):
                batch = _plain(batch_read)
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without a writer's encoding, which may vary by file."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    for i, field in enumerate(batch.schema):
        plain = plain_type(field.type)
        if not plain.equals(field.type):
            batch = batch.set_column(i, pa.field(field.name, plain), batch.column(i).cast(plain))
    return batch


@contextmanager
def errors_of(url: str) -> Generator[None, None, None]:
    """Turn the readers' errors into one sentence that names the source."""
    try:
        yield
    except FileNotFoundError:
        raise no_such_file(url) from None
    except SourceError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, ImportError) as error:
        reason = " ".join(str(error).split())[:500]
        remedy = "; save it as UTF-8." if "utf" in reason.lower() else ""
        message = f"source: {url} cannot be read: {reason}{remedy}"
        raise SourceError(message) from error


def no_such_file(url: str) -> SourceError:
    """Return the error for a source that does not exist."""
    place = "paths are relative to the folder you run in"
    return SourceError(f"source: there is no file {url} ({place}).")


def filesystem_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it, without what earlier runs listed there.

    fsspec keeps file systems for the life of the process, and remote ones keep their listings: a
    later run would not see new files, or would read a file by its old size.
    """
    filesystem, path = _fsspec.url_to_fs(url)
    filesystem.invalidate_cache()
    return filesystem, str(path)


@contextmanager
def bytes_of(url: str) -> Generator[Any, None, None]:
    """Open a file or URL, decompressed by its ending."""
    filesystem_of(url)
    with _fsspec.open(url, "rb", compression="infer") as stream:
        yield stream
