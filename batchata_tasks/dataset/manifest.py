"""Manifests: the rows of a plan or a chunk, as Arrow files, and the request bodies beside them.

A plan is two files in the run's folder: `plan.arrow`, one row per request with its key, carried
columns and system columns, and `plan.bodies.jsonl`, one request body per line. A chunk is a range
of rows of it. Its own manifest, the same columns for that range, stays in `intents/`.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import durable, storage_errors
from batchata_tasks.dataset.packs import open_kept
from batchata_tasks.ledger import ChunkKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from batchata_tasks.ledger import Chunk

# beside the key and the carried columns. `prior` columns sum up earlier attempts of the same key
# and fingerprint (`prior_status` and `last_error` are those of the last one in this run, and
# `prior_error` what a changed request may be set back to);
# `replaced_cost` is the cost of the older answer that this row will supersede; `changed` marks a
# request that is not the base one; `cap`, `turns`, `schema` and `attached` are the base request's
# shape. `batchata_left` is written when the chunk lands: of rows that stay in an older part, since
# what they ask did not run, the outcome and the error. Its name is long since it came late: it must
# be no column of a table that is enriched already
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
        pa.field("_last_error", pa.string()),
        pa.field("_prior_attempts", pa.int32()),
        pa.field("_prior_input_tokens", pa.int64()),
        pa.field("_prior_output_tokens", pa.int64()),
        pa.field("_prior_cache_read_tokens", pa.int64()),
        pa.field("_prior_cost", pa.int64()),
        pa.field("_replaced_cost", pa.int64()),
        pa.field("_batchata_left", pa.string()),
    ]
)
PLANNED_FIELDS = tuple(
    name
    for name in SYSTEM_FIELDS.names
    if name not in ("_offset", "_prior_status", "_last_error", "_batchata_left")
)
"""The system columns that a plan's first round gives a value, in their order."""
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_MOST_BYTES = 32_000_000  # of request bodies in memory: documents make them large


class PlanWriter:
    """Writes a plan as a stream; closing it makes it durable.

    `name` is "plan" for the requests of the first round, "plan-2" … for later rounds, and "local"
    for rows that are not to be sent.
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
        self, source_rows: pa.RecordBatch, system: Mapping[str, Sequence[Any]], bodies: list[bytes]
    ) -> None:
        """Append rows: their source columns, system columns and bodies, in the same order.

        A system column that is missing is null.
        """
        offsets = list(accumulate((len(body) + 1 for body in bodies), initial=self._offset))
        self._offset = offsets.pop()
        arrays = [source_rows.column(name) for name in source_rows.schema.names]
        columns = {**system, "_offset": offsets}
        arrays += [
            pa.array(columns[f.name], f.type)
            if f.name in columns
            else pa.nulls(len(bodies), f.type)
            for f in SYSTEM_FIELDS
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        for body in bodies:
            self._bodies.write(body)
            self._bodies.write(b"\n")
        self.rows += len(bodies)


class PlanRows:
    """Rows of a record batch of the source that go to one plan, until they are written there."""

    def __init__(self, writer: PlanWriter, source_rows: pa.RecordBatch) -> None:
        self._writer, self._source_rows = writer, source_rows
        self._at, self._bodies = list[int](), list[bytes]()
        self._system = list[tuple[Any, ...]]()
        self._size = 0

    def add(self, at: int, system: tuple[Any, ...], body: bytes) -> None:
        """Add a row; `system` has the values of PLANNED_FIELDS."""
        self._at.append(at)
        self._system.append(system)
        self._bodies.append(body)
        self._size += len(body)
        if self._size > _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows, which may take much memory."""
        if self._at:
            rows = self._source_rows.take(pa.array(self._at, pa.int64()))
            columns = zip(*self._system, strict=True)
            self._writer.write(rows, dict(zip(PLANNED_FIELDS, columns, strict=True)), self._bodies)
        self._at, self._bodies, self._system, self._size = [], [], [], 0


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    """Raise a StorageError with the remedy if a plan or manifest cannot be read."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        message = (
            f"{path} is needed to land what was sent, and cannot be read "
            f"({type(error).__name__}); restore it from a copy, or name another `output` to start "
            "anew."
        )
        raise StorageError(message) from error


def _batches(path: Path, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows `start` to `stop` of an Arrow file; only these are read."""
    # sizes come from a mapped file, of which only these few bytes are read. Rows do not: all of
    # their pages would stay in memory, for many chunks at once
    with _readable(path), pa.memory_map(str(path)) as mapped, pa.OSFile(str(path)) as stream:
        sizes, reader = pa.ipc.open_file(mapped), pa.ipc.open_file(stream)
        first = 0
        for number in range(reader.num_record_batches):
            rows = sizes.get_batch(number).num_rows
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                yield reader.get_batch(number).slice(low, high - low)
            first += rows
            if first >= stop:
                return


def plan_name(chunk: Chunk) -> str:
    """Return the name of the plan that a chunk is a range of."""
    if chunk.kind != ChunkKind.BATCH:
        return "local"
    return "plan" if chunk.round == 1 else f"plan-{chunk.round}"


def has_plan(folder: Path, chunks: Iterable[Chunk]) -> bool:
    """Whether all files of a run's plan exist, including those of its chunks' later rounds."""
    names = {"plan", "local", *map(plan_name, chunks)}
    return all(
        (folder / f"{name}.{ending}").is_file()
        for name in names
        for ending in ("arrow", "bodies.jsonl")
    )


def plan_rows(folder: Path, chunk: Chunk) -> Iterator[pa.RecordBatch]:
    """Yield a chunk's rows of the plan."""
    return _batches(folder / f"{plan_name(chunk)}.arrow", chunk.start, chunk.stop)


def plan_columns(folder: Path, chunk: Chunk, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield a chunk's rows of the plan as blocks of columns in plain Python values."""
    for batch in plan_rows(folder, chunk):
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
    return _bodies_at(folder / f"{plan_name(chunk)}.bodies.jsonl", offsets)


def _bodies_at(path: Path, offsets: Iterable[int]) -> list[bytes]:
    bodies = list[bytes]()
    with storage_errors(f"reading {path.name}"), path.open("rb") as stream:
        for offset in offsets:
            stream.seek(offset)
            bodies.append(stream.readline().rstrip(b"\n"))
    return bodies


def first_requests(folder: Path, rows: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the first rows of a plan, each with its request body."""
    if rows:
        with storage_errors("reading the plan"), (folder / "plan.bodies.jsonl").open("rb") as lines:
            for batch in _batches(folder / "plan.arrow", 0, rows):
                for row in batch.to_pylist():
                    yield row, next(lines).rstrip(b"\n")


def sampled_bodies(folder: Path, start: int, stop: int, most: int) -> list[tuple[int, bytes]]:
    """Return (bytes of the request, its body) of at most `most` requests of a plan.

    They are spread over its rows from `start` to `stop`.
    """
    step = -(-(stop - start) // most)
    first = 0
    sizes, offsets = list[int](), list[int]()
    for batch in _batches(folder / "plan.arrow", start, stop):
        sample = batch.take(pa.array(range(-first % step, batch.num_rows, step), pa.int64()))
        sizes += sample.column("_bytes").to_pylist()
        offsets += sample.column("_offset").to_pylist()
        first += batch.num_rows
    return list(zip(sizes, _bodies_at(folder / "plan.bodies.jsonl", offsets), strict=True))


def write_chunk_manifest(
    folder: Path, chunk: Chunk, path: Path, gate: Callable[[], None] | None = None
) -> None:
    """Copy a chunk's rows from the plan to a file that outlives the plan.

    `gate` is called right before it appears, and may raise.
    """
    batches = _batches(folder / f"{plan_name(chunk)}.arrow", chunk.start, chunk.stop)
    first = next(batches)
    with (
        durable(path, gate=gate) as stream,
        pa.ipc.new_file(stream, first.schema, options=_COMPRESSED) as writer,
    ):
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def write_manifest(path: Path, rows: pa.Table) -> None:
    """Write a chunk's manifest from its rows."""
    with durable(path) as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        for batch in rows.to_batches():
            writer.write_batch(batch)


def rename_in_manifest(path: Path, names: Mapping[str, str]) -> None:
    """Write a chunk's manifest anew with other names for columns (old: new), if it has them."""
    own = manifest_schema(path)
    if names.keys().isdisjoint(own.names):
        return
    schema = renamed_schema(own, names)
    with durable(path) as stream, pa.ipc.new_file(stream, schema, options=_COMPRESSED) as writer:
        for batch in manifest_batches(path):
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def renamed_schema(schema: Iterable[pa.Field], names: Mapping[str, str]) -> pa.Schema:
    """Return a schema of fields, with other names for some columns (old: new)."""
    return pa.schema([field.with_name(names.get(field.name, field.name)) for field in schema])


def read_plan(folder: Path, name: str) -> pa.Table:
    """Return all rows of a plan."""
    path = folder / f"{name}.arrow"
    with _readable(path), path.open("rb") as stream:
        return pa.ipc.open_file(stream).read_all()


def manifest_schema(path: Path) -> pa.Schema:
    """Return the columns of a chunk's manifest, packed or not; its rows are not read."""
    with _readable(path), open_kept(path) as stream:
        return pa.ipc.open_file(stream).schema


def manifest_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a chunk's manifest, packed or not."""
    with _readable(path), open_kept(path) as stream:
        reader = pa.ipc.open_file(stream)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def read_chunk_manifest(path: Path, only: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of a chunk's manifest, packed or not; `only` some of its columns, if named.

    System columns that an older one lacks are null.
    """
    with _readable(path), open_kept(path) as stream:
        reader = pa.ipc.open_file(stream)
        if only is not None:
            places = [i for i, name in enumerate(reader.schema.names) if name in only]
            options = pa.ipc.IpcReadOptions(included_fields=places)
            reader = pa.ipc.open_file(stream, options=options)
        rows = reader.read_all()
    for column in SYSTEM_FIELDS:
        if column.name not in rows.schema.names and (only is None or column.name in only):
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    return rows
