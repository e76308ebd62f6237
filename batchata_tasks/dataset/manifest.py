"""Manifests: the rows of a plan or a chunk, as Arrow files, and the request bodies beside them.

A plan is two files in the run's folder: `plan.arrow`, one row per request with its key, carried
columns and what is known of the row so far, and `bodies.jsonl`, one request body per line. A chunk
is a range of rows of it. Its own manifest, the same columns for that range, stays in `intents/`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import durable, storage_errors
from batchata_tasks.ledger import ChunkKind

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from batchata_tasks.ledger import Chunk

# beside the key and the carried columns; `prior` is what earlier attempts of the same key and
# fingerprint used (`prior_status` how the last one of this run ended, `prior_error` what it said),
# `replaced_cost` what the older answer cost that this row will supersede; `changed` tells that the
# request is not the base one; `cap`, `turns`, `schema` and `attached` are the base request's shape
SYSTEM_FIELDS = pa.schema(
    [
        pa.field("_row_id", pa.string()),
        pa.field("_fingerprint", pa.string()),
        pa.field("_bound", pa.int64()),
        pa.field("_bytes", pa.int64()),
        pa.field("_offset", pa.int64()),
        pa.field("_cap", pa.int64()),
        pa.field("_turns", pa.int32()),
        pa.field("_schema", pa.string()),
        pa.field("_attached", pa.int64()),
        pa.field("_error", pa.string()),
        pa.field("_replaces", pa.string()),
        pa.field("_changed", pa.bool_()),
        pa.field("_prior_status", pa.string()),
        pa.field("_prior_error", pa.string()),
        pa.field("_prior_attempts", pa.int32()),
        pa.field("_prior_input_tokens", pa.int64()),
        pa.field("_prior_output_tokens", pa.int64()),
        pa.field("_prior_cache_read_tokens", pa.int64()),
        pa.field("_prior_cost", pa.int64()),
        pa.field("_replaced_cost", pa.int64()),
    ]
)
_MOST_BYTES = 32_000_000  # of request bodies in memory; documents make large ones


class PlanWriter:
    """Writes a plan as a stream; closing it makes it durable.

    `name` tells the plan of requests ("plan") from those of later rounds ("plan-2" …) and from that
    of rows that are not to be sent ("local").
    """

    def __init__(self, folder: Path, name: str, source_fields: pa.Schema) -> None:
        self.schema = pa.schema([*source_fields, *SYSTEM_FIELDS])
        self.rows = 0
        self._offset = 0
        self._files = [durable(folder / f"{name}.arrow"), durable(folder / f"{name}.bodies.jsonl")]

    def __enter__(self) -> Self:
        arrow, self._bodies = (file.__enter__() for file in self._files)
        self._writer = pa.ipc.new_file(arrow, self.schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._writer.close()
        for file in self._files:
            file.__exit__(kind, error, trace)

    def write(
        self, source_rows: pa.RecordBatch, system: list[dict[str, Any]], bodies: list[bytes]
    ) -> None:
        """Append rows: their source columns, their system columns and their bodies, in one order."""
        for fields, body in zip(system, bodies, strict=True):
            fields["_offset"] = self._offset
            self._offset += len(body) + 1
        arrays = [source_rows.column(name) for name in source_rows.schema.names]
        arrays += [
            pa.array([row.get(f.name) for row in system], type=f.type) for f in SYSTEM_FIELDS
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._bodies.writelines(body + b"\n" for body in bodies)
        self.rows += len(bodies)


@dataclass
class PlanRows:
    """Rows of a batch of the source that go to one plan, until they are written there."""

    at: list[int] = field(default_factory=list[int])
    systems: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    bodies: list[bytes] = field(default_factory=list[bytes])
    size: int = 0

    def add(self, at: int, system: dict[str, Any], body: bytes) -> bool:
        """Add a row; whether they should be written, as they take much memory."""
        self.at.append(at)
        self.systems.append(system)
        self.bodies.append(body)
        self.size += len(body)
        return self.size > _MOST_BYTES

    def write(self, writer: PlanWriter, source_rows: pa.RecordBatch) -> None:
        """Write them."""
        if self.at:
            writer.write(source_rows.take(pa.array(self.at, pa.int64())), self.systems, self.bodies)


@contextmanager
def _damage_of(path: Path) -> Generator[None, None, None]:
    """Say what to do about a plan or manifest that is gone or cannot be read."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        message = (
            f"{path} is needed to bring home what was sent, and cannot be read ({type(error).__name__}); "
            "restore it from a copy, or name another `output` to start anew."
        )
        raise StorageError(message) from error


def _batches(path: Path, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows `start` to `stop` of an Arrow file; only these are read."""
    with _damage_of(path), pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        first = 0
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield batch.slice(low, high - low)
            first += batch.num_rows
            if first >= stop:
                return


def plan_name(chunk: Chunk) -> str:
    """Return the name of the plan that a chunk is a range of."""
    if chunk.kind != ChunkKind.BATCH:
        return "local"
    return "plan" if chunk.round == 1 else f"plan-{chunk.round}"


def has_plan(folder: Path, chunks: Iterable[Chunk]) -> bool:
    """Whether all files of a run's plan, and of the later rounds that its chunks are of, are there."""
    names = {"plan", "local", *map(plan_name, chunks)}
    return all(
        (folder / f"{name}.{ending}").is_file()
        for name in names
        for ending in ("arrow", "bodies.jsonl")
    )


def plan_columns(folder: Path, chunk: Chunk, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield a chunk's rows of the plan as blocks of columns in plain Python values."""
    for batch in _batches(folder / f"{plan_name(chunk)}.arrow", chunk.start, chunk.stop):
        yield {column: batch.column(column).to_pylist() for column in columns}


def plan_bodies(folder: Path, chunk: Chunk) -> Iterator[tuple[str, bytes]]:
    """Yield (row id, request body) of a chunk's rows of the plan."""
    name = plan_name(chunk)
    path = folder / f"{name}.bodies.jsonl"
    with storage_errors(f"reading {path.name}"), path.open("rb") as stream:
        for batch in _batches(folder / f"{name}.arrow", chunk.start, chunk.stop):
            stream.seek(batch.column("_offset")[0].as_py())
            ids = batch.column("_row_id").to_pylist()
            for row_id, body in zip(ids, islice(stream, len(ids)), strict=True):
                yield row_id, body.rstrip(b"\n")


def bodies_at(folder: Path, chunk: Chunk, offsets: list[int]) -> list[bytes]:
    """Return the request bodies of a chunk's plan that begin at these bytes of their file."""
    path = folder / f"{plan_name(chunk)}.bodies.jsonl"
    found: list[bytes] = []
    with storage_errors(f"reading {path.name}"), path.open("rb") as stream:
        for offset in offsets:
            stream.seek(offset)
            found.append(stream.readline().rstrip(b"\n"))
    return found


def sampled_bodies(folder: Path, start: int, stop: int, most: int) -> list[tuple[int, bytes]]:
    """Return (bytes of the request, its body) of at most so many requests, spread over the rows `start` to `stop` of a plan."""
    step, first, picked = -(-(stop - start) // most), 0, list[tuple[int, int]]()
    for batch in _batches(folder / "plan.arrow", start, stop):
        at = pa.array(range(-first % step, batch.num_rows, step), pa.int64())
        sizes, offsets = (batch.column(name).take(at).to_pylist() for name in ("_bytes", "_offset"))
        picked += zip(sizes, offsets, strict=True)
        first += batch.num_rows
    path = folder / "plan.bodies.jsonl"
    found = list[tuple[int, bytes]]()
    with storage_errors(f"reading {path.name}"), path.open("rb") as stream:
        for size, offset in picked:
            stream.seek(offset)
            found.append((size, stream.readline().rstrip(b"\n")))
    return found


def write_chunk_manifest(folder: Path, chunk: Chunk, path: Path) -> None:
    """Copy a chunk's rows from the plan to the file that outlives it."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    batches = _batches(folder / f"{plan_name(chunk)}.arrow", chunk.start, chunk.stop)
    first = next(batches)
    with durable(path) as stream, pa.ipc.new_file(stream, first.schema, options=options) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def write_manifest(path: Path, rows: pa.Table) -> None:
    """Write a chunk's manifest from its rows."""
    with durable(path) as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        for batch in rows.to_batches():
            writer.write_batch(batch)


def read_plan(folder: Path, name: str) -> pa.Table:
    """Return all rows of a plan."""
    path = folder / f"{name}.arrow"
    with _damage_of(path), path.open("rb") as stream:
        return pa.ipc.open_file(stream).read_all()


def read_chunk_manifest(path: Path) -> pa.Table:
    """Return all rows of a chunk's manifest; a column that older ones lack is null."""
    with _damage_of(path), path.open("rb") as stream:
        found = pa.ipc.open_file(stream).read_all()
    for new in SYSTEM_FIELDS:
        if new.name not in found.schema.names:
            found = found.append_column(new, pa.nulls(found.num_rows, new.type))
    return found
