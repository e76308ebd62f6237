"""The files of a dataset's parts: what their names and footers tell, and how they are read.

The name of a part tells the chunk that landed as it. A merged part has the rows of many parts. Its
footer names them, so that what became of a part stands in the very file that took it over: neither
is ever without the other, and nothing else has to be made durable.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.common.canonical import digest
from batchata_tasks.common.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

READ_ROWS = 8192
_GROUP_ROWS = 65_536  # of a row group; the footer grows with their number
_GROUP_BYTES = 16 << 20  # in memory
_BUFFER = 1 << 20
_VERSION = re.compile(r"(.+)\.v([0-9]+)\.parquet")
_MERGED = "merged-"
_FOOTER_KEY = "batchata.merged"


class TakenOver(NamedTuple):
    """What a merged part took over.

    `files` were to be deleted then: those that are still there belong to a merge that died.
    `parts` are all whose rows it has, by name; those of merged parts among them, too.
    """

    files: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def footer(self) -> dict[str, str]:
        """Return the entry of the Parquet footer that says so."""
        return {_FOOTER_KEY: json.dumps(self._asdict())} if self.parts else {}


def part_of_chunk(chunk_id: str) -> str:
    """Return the name of the part that a chunk lands as."""
    return f"part-{chunk_id}.parquet"


def merged_part(files: Iterable[str]) -> str:
    """Return the name of the part that these files are merged into.

    It follows from them: whoever merges the same files once more, after a death, makes the same.
    """
    names = (name.encode() for name in sorted(files))
    return f"{_MERGED}{digest('merged', *names).hex()[:20]}.parquet"


def is_merged(part: str) -> bool:
    """Whether a part is a merged one, by its name."""
    return part.startswith(_MERGED)


def versioned(name: str) -> tuple[str, int]:
    """Return the name of the part that a file is a version of, and the version."""
    match = _VERSION.fullmatch(name)
    return (name, 1) if match is None else (f"{match[1]}.parquet", int(match[2]))


def taken_over(path: Path) -> TakenOver:
    """Return what the part in a file took over; nothing unless it is a merged one."""
    if not is_merged(path.name):
        return TakenOver()
    with part_errors(path.name):
        footer = pq.read_metadata(path).metadata or {}
    stored = json.loads(footer.get(_FOOTER_KEY.encode(), b"{}"))
    return TakenOver(tuple(stored.get("files", ())), tuple(stored.get("parts", ())))


def chunks_in(path: Path) -> list[str]:
    """Return the chunks that landed as the part in a file, or as parts that it took over."""
    names = (versioned(path.name)[0], *taken_over(path).parts)
    return [
        name.removeprefix("part-").removesuffix(".parquet") for name in names if not is_merged(name)
    ]


@contextmanager
def opened_part(path: Path) -> Generator[pq.ParquetFile, None, None]:
    """Open a part's file to stream it; one that is damaged is named."""
    with (
        part_errors(versioned(path.name)[0]),
        # with its default, the reader holds all that it has read of the file
        pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file,
    ):
        yield file


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield rows in larger blocks: each write makes a row group, and small ones cost dearly."""
    block, rows, size = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        if not batch.num_rows:
            continue
        block.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_batches(block)
            block, rows, size = [], 0, 0
    if block:
        yield pa.concat_batches(block)


@contextmanager
def part_errors(part: str) -> Generator[None, None, None]:
    """Name the part that is damaged."""
    try:
        yield
    except pa.ArrowException as error:
        message = (
            f"the dataset's part {part} is damaged: {error}. "
            "Restore it, or delete it to have its rows sent again."
        )
        raise StorageError(message) from error
