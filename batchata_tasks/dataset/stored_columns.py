"""The columns that a dataset's files have: its parts, and the manifests of what is on its way."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from batchata_tasks.dataset.manifest import SYSTEM_FIELDS, manifest_batches, manifest_schema
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.dataset.part_files import chunks_in

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset


class Place(NamedTuple):
    """A column in one file: the file's name, the type there, how to read the values."""

    name: str
    type: pa.DataType
    read: Callable[[], Iterator[pa.Array]]


class StoredColumns:
    """Reads a dataset's columns by name. Schemas are read when they are first asked for.

    `unlanded` are the chunks whose rows are on their way.
    """

    def __init__(self, dataset: Dataset, folder: DatasetFolder, unlanded: Iterable[str]) -> None:
        self._dataset = dataset
        self._folder = folder
        self._unlanded_chunks = sorted(unlanded)

    @cached_property
    def _parts(self) -> dict[str, pa.Schema]:
        return self._dataset.schemas()

    @cached_property
    def _unlanded(self) -> dict[Path, pa.Schema]:
        """The manifests of chunks that have not landed, with their columns."""
        paths = map(self._folder.manifest, self._unlanded_chunks)
        return {path: manifest_schema(path) for path in paths if is_kept(path)}

    def has_files(self) -> bool:
        """Whether any row has landed, or is on its way."""
        return bool(self._parts or self._unlanded)

    def has_in_parts(self, column: str) -> bool:
        """Whether a part has a column."""
        return any(column in schema.names for schema in self._parts.values())

    def source_columns(self, carried: list[str]) -> list[str]:
        """Return the parts' columns that came from a source: `carried`, and those of manifests."""
        landed = [chunk for path in self._dataset.parts().values() for chunk in chunks_in(path)]
        own = [self._folder.manifest(chunk) for chunk in landed]
        schemas = [manifest_schema(path) for path in own if is_kept(path)]
        sent = [name for one in (*schemas, *self._unlanded.values()) for name in one.names]
        known = dict.fromkeys(name for name in (*carried, *sent) if name not in SYSTEM_FIELDS.names)
        there = {name for schema in self._parts.values() for name in schema.names}
        there |= {name for schema in self._unlanded.values() for name in schema.names}
        return [name for name in known if name in there]

    def places(self, column: str) -> list[Place]:
        """Return where values of a column are, landed or on their way."""
        on_their_way = [
            Place(f"batch {path.stem}", schema.field(column).type, _reader(path, column))
            for path, schema in self._unlanded.items()
            if column in schema.names
        ]
        return [*self.in_parts(column), *on_their_way]

    def in_parts(self, column: str) -> list[Place]:
        """Return where values of a column have landed."""
        return [
            Place(part, schema.field(column).type, self._part_reader(part, column))
            for part, schema in self._parts.items()
            if column in schema.names
        ]

    def others(self, known: Container[str]) -> dict[str, list[Place]]:
        """Return where values of columns have landed that are not known any more."""
        names = {name for schema in self._parts.values() for name in schema.names}
        return {name: self.in_parts(name) for name in sorted(names) if name not in known}

    def _part_reader(self, part: str, column: str) -> Callable[[], Iterator[pa.Array]]:
        return lambda: (b.column(column) for b in self._dataset.part_rows(part, [column]))


def _reader(path: Path, column: str) -> Callable[[], Iterator[pa.Array]]:
    return lambda: (batch.column(column) for batch in manifest_batches(path))
