"""The dataset: Parquet parts in `<output>/data`, at rest one row per key.

A chunk lands as one new part; then older parts that hold the same keys are replaced by a next
version without them (`part-x.parquet`, `part-x.v2.parquet` …), or deleted. A file appears by one
rename and never changes, so a reader in between may see a row twice, or a key's old and its new
row, never neither. A reader that listed the folder before may miss a file, and has to list again.

At rest small parts are merged (see merging.py). Whatever named a part before that (the manifest of
a batch in flight, say) still finds its rows: in the part that took it over.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchata_tasks.common.arrow_types import as_stored
from batchata_tasks.common.canonical import key_digest, key_digests
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import (
    gone_if_failed,
    put_in_place,
    storage_errors,
    sync_folder,
    written_aside,
)
from batchata_tasks.dataset.columns import (
    MISSING_SINCE,
    OWN_NAMES,
    conformed,
    keys_of,
    without,
)
from batchata_tasks.dataset.manifest import renamed_schema
from batchata_tasks.dataset.part_files import (
    READ_ROWS,
    TakenOver,
    chunks_in,
    opened_part,
    part_errors,
    row_groups,
    taken_over,
    versioned,
)
from batchata_tasks.dataset.stored_json import (
    from_parquet,
    parquet_schema,
    schema_of_part,
    to_parquet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
    from pathlib import Path


class Dataset:
    """The parts of one dataset. Only one process at a time may change them (the lease).

    `gate` raises if this process no longer may: a stopped one may wake up in the middle of a change
    that its successor has made since. `emptied` is called with the chunks of a part of which no row
    is left, before the part is deleted.
    """

    def __init__(
        self,
        data: Path,
        schema: pa.Schema,
        key: list[str],
        carried: list[str],
        gate: Callable[[], None] = lambda: None,
        emptied: Callable[[list[str]], None] = lambda _chunks: None,
    ) -> None:
        self.data = data
        self.schema = schema
        self.key = key
        self.gate = gate
        self.emptied = emptied
        self.carried = [name for name in carried if name not in key]
        self.retired = list[str]()  # columns that left the spec's `columns`

    @property
    def answers(self) -> list[str]:
        """The columns that hold answers."""
        others = {*self.key, *self.carried, *self.retired, *OWN_NAMES}
        return [name for name in self.schema.names if name not in others]

    @property
    def carried_fields(self) -> list[pa.Field]:
        """The carried columns, but for those of the key."""
        return [self.schema.field(name) for name in self.carried]

    def parts(self) -> dict[str, Path]:
        """Return the files of the parts by the name of their first version, sorted."""
        with storage_errors("reading the dataset"):
            files = sorted((versioned(path.name), path) for path in self.data.glob("*.parquet"))
        return {part: path for (part, _), path in files}  # of a part's versions the last counts

    def holders(self) -> dict[str, str]:
        """Return, by name, which part has a part's rows: it itself, or the one that took it over.

        Of a part that is not in it no row is left, or its file was lost.
        """
        parts = self.parts()
        merged = {name: part for part, path in parts.items() for name in taken_over(path).parts}
        return merged | {part: part for part in parts}

    def holder(self, part: str) -> str | None:
        """Return the part that has a part's rows; None if there is none."""
        return part if part in self.parts() else self.holders().get(part)

    def schemas(self) -> dict[str, pa.Schema]:
        """Return the columns of each part."""
        schemas = dict[str, pa.Schema]()
        for part, path in self.parts().items():
            with part_errors(part), storage_errors("reading the dataset"):
                schemas[part] = schema_of_part(pq.read_schema(path))
        return schemas

    def column_names(self) -> list[str]:
        """Return the columns of the newest part; a dataset at rest has the same in all."""
        newest = max(self.parts().values(), key=lambda path: path.stat().st_mtime_ns, default=None)
        return [] if newest is None else list(pq.read_schema(newest).names)

    def rows(self, columns: list[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield (part, rows); a column that an old part lacks reads as null."""
        for part, path in self.parts().items():
            with opened_part(path) as file:
                names = file.schema_arrow.names
                present = [column for column in columns if column in names]
                for batch in file.iter_batches(READ_ROWS, columns=present):
                    yield part, from_parquet(batch)

    def part_rows(self, part: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one part, or of the part that took it over; none if it is gone."""
        if (holder := self.holder(part)) is not None:
            with opened_part(self.parts()[holder]) as file:
                yield from map(from_parquet, file.iter_batches(READ_ROWS, columns=columns))

    def check_key(self, stored: pa.Schema) -> None:
        """Refuse a key other than the one that rows were written, or sent, with."""
        check_key(self.key, self.data, stored)

    def supersede(self, replaced: Mapping[str, set[bytes]]) -> None:
        """Take the given keys (digests) out of older parts; a part left empty is deleted.

        The other rows stay just as they are.
        """
        gone_from = defaultdict[str, set[bytes]](set)
        for part, keys in replaced.items():
            if (holder := self.holder(part)) is not None:
                gone_from[holder] |= keys
        for part, keys in gone_from.items():
            path = self.parts()[part]
            with part_errors(part):
                own = schema_of_part(pq.read_schema(path))
            self._rewrite(path, lambda batch, gone=keys: without(batch, self.key, gone), own)

    def carry(self, changes: Mapping[str, Mapping[bytes, tuple[Any, ...]]]) -> None:
        """Write changed carried columns into the rows of the given keys; nothing else changes."""
        for part, rows in changes.items():
            self._rewrite(
                self.parts()[part], lambda batch, new=rows: self._carried(batch, new), self.schema
            )

    def mark(
        self, gone: Mapping[str, set[bytes]], back: Mapping[str, set[bytes]], moment: int
    ) -> None:
        """Note in rows of some keys (digests, by part) since when the source lacks them.

        In those of the keys in `back` it is noted that the source has them again. `moment` is in
        microseconds since 1970.
        """
        for part in dict.fromkeys((*gone, *back)):
            marked = partial(self._marked, gone.get(part, set()), back.get(part, set()), moment)
            self._rewrite(self.parts()[part], marked, self.schema)

    def _marked(
        self, gone: set[bytes], back: set[bytes], moment: int, batch: pa.RecordBatch
    ) -> pa.RecordBatch:
        rows, kind = self.conformed(batch), MISSING_SINCE.type
        digests = key_digests(keys_of(rows, self.key))
        at = rows.schema.get_field_index(MISSING_SINCE.name)
        is_gone, is_back = (
            pa.array([one in keys for one in digests], pa.bool_()) for keys in (gone, back)
        )
        marks = pc.if_else(is_gone, pa.scalar(moment, kind), rows.column(at))
        marks = pc.if_else(is_back, pa.scalar(None, kind), marks)
        return rows.set_column(at, MISSING_SINCE, marks)

    def change(
        self, parts: Iterable[str], change: Callable[[pa.RecordBatch], pa.RecordBatch]
    ) -> None:
        """Write some parts anew, with other values in the dataset's columns."""
        for part in parts:
            self._rewrite(
                self.parts()[part], lambda batch: change(self.conformed(batch)), self.schema
            )

    def rename(self, names: Mapping[str, str]) -> None:
        """Give columns other names (old: new) in all parts that have them; their values stay.

        A column that has a new name already, beside the old one, is dropped: it holds no value.
        """
        for part, path in self.parts().items():
            with part_errors(part):
                own = schema_of_part(pq.read_schema(path))
            if names.keys().isdisjoint(own.names):
                continue
            dropped = {names.get(name) for name in own.names}
            kept = [name for name in own.names if name not in dropped]
            schema = renamed_schema((own.field(name) for name in kept), names)
            self._rewrite(path, partial(_under, kept, schema), schema)

    def conform(self, but: Container[str] = ()) -> None:
        """Rewrite parts that were written with other columns: one schema for all.

        The parts named in `but` are left alone. A new column is null in old rows. Keys and carried
        columns keep every value; an answer that the response model cannot hold any more stays in
        `_response` alone.
        """
        stored_as = as_stored(parquet_schema(self.schema))
        for part, path in self.parts().items():
            if part in but:
                continue
            with part_errors(part):
                stored = pq.read_schema(path)
            if not stored.remove_metadata().equals(stored_as):
                self._rewrite(path, self.conformed, self.schema)

    def tidy(self) -> None:
        """Delete what a dead run had replaced already: versions of parts, and parts it merged."""
        current = set(self.parts().values())
        merged = {name for path in current for name in taken_over(path).files}
        with storage_errors("tidying the dataset"):
            for path in self.data.glob("*.parquet"):
                if path not in current or path.name in merged:
                    self.gate()
                    path.unlink(missing_ok=True)

    def conformed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of a part in the dataset's columns of today."""
        return conformed(batch, self.schema, self.answers)

    def _carried(
        self, batch: pa.RecordBatch, rows: Mapping[bytes, tuple[Any, ...]]
    ) -> pa.RecordBatch:
        changes = [rows.get(key_digest(key)) for key in keys_of(batch, self.key)]
        result = self.conformed(batch)
        for i, name in enumerate(self.carried):
            old = result.column(name).to_pylist()
            values = [was if new is None else new[i] for was, new in zip(old, changes, strict=True)]
            at = self.schema.get_field_index(name)
            field = self.schema.field(at)
            result = result.set_column(at, field, pa.array(values, type=field.type))
        return result

    def _rewrite(
        self, path: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema
    ) -> None:
        """Replace a part by its next version, or delete it if it has no rows left.

        `change` returns rows of the given schema.
        """
        part, version = versioned(path.name)
        older = [other for other in self.data.glob("*.parquet") if versioned(other.name)[0] == part]
        following = path.with_name(f"{part.removesuffix('.parquet')}.v{version + 1}.parquet")
        with part_errors(part), storage_errors(f"rewriting {part}"):
            for other in older:  # a run that died may have left it beside its next version
                if other != path:
                    other.unlink()
            with opened_part(path) as file:
                stored = map(from_parquet, file.iter_batches(READ_ROWS))
                remaining = row_groups(change(batch) for batch in stored)
                if (first := next(remaining, None)) is not None:
                    with self.part_file(following, schema, taken_over(path)) as writer:
                        writer.write_batch(first)
                        for batch in remaining:
                            writer.write_batch(batch)
            self.gate()
            if first is None:
                self.emptied(self._chunks_only_in(path))
            path.unlink()
            sync_folder(path.parent)

    def _chunks_only_in(self, path: Path) -> list[str]:
        """Return the chunks of which no row is left once a file is deleted."""
        others = [other for other in self.parts().values() if other != path]
        elsewhere = {chunk for other in others for chunk in chunks_in(other)}
        return [chunk for chunk in chunks_in(path) if chunk not in elsewhere]

    @contextmanager
    def part_file(
        self,
        path: Path,
        schema: pa.Schema | None = None,
        merged: TakenOver | None = None,
    ) -> Generator[pq.ParquetWriter, None, None]:
        """Write a part outside of `data/`; it is renamed to `path` when the block ends well.

        `merged` is what a merged part took over.
        """
        with self.part_aside(path, schema, merged) as (aside, writer):
            yield writer
        with gone_if_failed(aside):
            put_in_place(aside, path, self.gate)

    @contextmanager
    def part_aside(
        self,
        path: Path,
        schema: pa.Schema | None = None,
        merged: TakenOver | None = None,
    ) -> Generator[tuple[Path, pq.ParquetWriter], None, None]:
        """Write a part outside of `data/`, as `part_file`, and leave it there."""
        schema = self.schema if schema is None else schema
        with (
            written_aside(path, self.data.parent / "_batchata") as (aside, stream),
            _PartWriter(stream, parquet_schema(schema), compression="zstd") as writer,
        ):
            if merged is not None:
                writer.add_key_value_metadata(merged.footer())
            yield aside, writer


def _under(kept: list[str], schema: pa.Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return some columns of a part under the names of a schema."""
    return pa.RecordBatch.from_arrays([batch.column(name) for name in kept], schema=schema)


def check_key(key: list[str], data: Path, stored: pa.Schema) -> None:
    """Refuse a key other than the one that the rows in `data` were written, or sent, with."""
    for name in key:
        if name not in stored.names:
            message = (
                f"key: the dataset in {data} has no column {name!r}; a dataset keeps its key: name "
                "another `output`, or, if the column was renamed, give `batchata rename SPEC "
                f"--column OLD={name}`."
            )
            raise SpecError(message)


class _PartWriter(pq.ParquetWriter):
    """Writes rows whose columns of JSON become texts."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        super().write_batch(to_parquet(batch))
