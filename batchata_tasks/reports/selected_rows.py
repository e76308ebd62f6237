"""The rows of a dataset that `batchata show` prints: those asked for, in the source's order."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.errors import InputError, SpecError
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import READ_ROWS, opened_part
from batchata_tasks.dataset.parts import check_key
from batchata_tasks.execution.renaming import require_one_name
from batchata_tasks.planning.hints import nearest
from batchata_tasks.planning.key_arrays import Keys
from batchata_tasks.planning.prepare import opened_source
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.planning.templates import RowCondition
from batchata_tasks.spec.run import RunSpec
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from batchata_tasks.reports.shown_dataset import ShownDataset

_WHEN = "_enriched_at"


class Selection(NamedTuple):
    """Which rows, and which of their columns, are asked for; `columns` None: all."""

    rows: int
    only_failed: bool = False
    where: str | None = None
    columns: Sequence[str] | None = None


def parts_of(dataset: ShownDataset) -> list[Path]:
    """Return the files of a dataset.

    Raises:
        SpecError: there is no dataset yet, or it has another key.
    """
    folder = DatasetFolder(dataset.output)
    require_one_name(folder)
    data = folder.data
    if not (paths := sorted(data.glob("*.parquet"))):
        message = (
            f"output: there are no rows in {data} yet; `batchata status {folder.word}` tells what "
            "its runs did."
        )
        raise SpecError(message)
    check_key(dataset.key, data, pq.read_schema(paths[0]))
    return paths


def dataset_rows(dataset: ShownDataset, asked: Selection) -> list[dict[str, Any]]:
    """Return rows of a dataset, in the order of the source; then those that left the source.

    If the source cannot be read, or is not known, they come in the dataset's order.

    Raises:
        SpecError: there is no dataset yet, or it has no such column.
        SourceError: the condition cannot be applied to a row.
    """
    paths = parts_of(dataset)
    names = list[str](pq.read_schema(paths[0]).names)
    for name in asked.columns or ():
        if name not in names:
            message = f"--columns: the dataset has no column {name!r}{nearest(name, names)}."
            raise SpecError(message)
    condition = (
        None if asked.where is None else RowCondition(asked.where, names, "dataset", "--where")
    )
    found = _Found(dataset, paths, condition, only_failed=asked.only_failed)
    columns = names if asked.columns is None else list(dict.fromkeys(asked.columns))
    return found.read(found.first(asked.rows), columns)


class _Found:
    """The rows of a dataset that a condition holds for: where each is, by the digest of its key."""

    def __init__(
        self,
        dataset: ShownDataset,
        paths: list[Path],
        condition: RowCondition | None,
        *,
        only_failed: bool,
    ) -> None:
        self._dataset, self._paths = dataset, paths
        used = () if condition is None else condition.columns
        self._read = list(dict.fromkeys([*dataset.key, "_status", _WHEN, *used]))
        blocks = [
            block
            for file in range(len(paths))
            for block in self._matching(file, condition, only_failed=only_failed)
        ]
        self._digests = [digest for digests, _ in blocks for digest in digests]
        columns = [places for _, places in blocks]
        # of each row: its file, its place there, and when it landed
        self._places = np.concatenate(columns) if columns else np.empty((0, 3), np.int64)
        self._keys, self._order = self._sorted()

    def _matching(
        self, file: int, condition: RowCondition | None, *, only_failed: bool
    ) -> Iterator[tuple[list[bytes], NDArray[np.int64]]]:
        first = 0
        with opened_part(self._paths[file]) as part:
            for batch in part.iter_batches(READ_ROWS, columns=self._read):
                numbers = range(first, first + batch.num_rows)
                first += batch.num_rows
                rows = RowBlock(batch, numbers, self._dataset.key, landed=True)
                if only_failed:
                    failed = pc.not_equal(batch.column("_status"), Outcome.SUCCEEDED.value)
                    rows = rows.take(np.flatnonzero(failed).tolist())
                if condition is not None:
                    rows = rows.take(condition.kept(rows))
                if len(rows):
                    when = rows.batch.column(_WHEN).cast(pa.int64()).fill_null(0)
                    places = [np.full(len(rows), file), np.array(rows.numbers), np.array(when)]
                    digests = key_digests(keys_of(rows.batch, self._dataset.key))
                    yield list(digests), np.column_stack(places)

    def _sorted(self) -> tuple[Keys, NDArray[np.int64]]:
        """Return the keys, sorted, and where the newest row of each is in the list of rows."""
        keys = Keys.of(self._digests)
        order = np.lexsort([self._places[:, 2], keys.low, keys.high])
        high, low = keys.high[order], keys.low[order]
        is_newest = np.ones(len(order), np.bool_)
        is_newest[:-1] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return Keys(high[is_newest], low[is_newest]), order[is_newest]

    def first(self, rows: int) -> list[int]:
        """Return the first rows, as numbers in the list of those found."""
        found = dict[int, None]()
        with suppress(InputError):  # the source may be gone: the dataset's order is left
            for keys in self._source_keys():
                at = self._keys.find(keys)
                found |= dict.fromkeys(self._order[at[at >= 0]].tolist())
                if len(found) >= rows:
                    break
        if len(found) < rows:
            found |= dict.fromkeys(sorted(self._order.tolist()))
        return list(found)[:rows]

    def _source_keys(self) -> Iterable[Keys]:
        if not len(self._order) or not isinstance(self._dataset, RunSpec):
            return
        source, key = opened_source(self._dataset), self._dataset.key
        if not set(key) <= set(source.names()):
            return
        schema = pq.read_schema(self._paths[0])
        stored = {name: schema.field(name).type for name in key}
        source.declare(
            {name: kind for name, kind in stored.items() if not pa.types.is_nested(kind)}
        )
        for block in source.batches(key):
            yield Keys.of(key_digests(keys_of(block.rows, key)))

    def read(self, rows: list[int], columns: list[str]) -> list[dict[str, Any]]:
        """Return these rows whole; only the row groups that have some of them are read."""
        values = dict[int, dict[str, Any]]()
        wanted = [(int(self._places[i, 0]), int(self._places[i, 1]), i) for i in rows]
        for number in sorted({file for file, _, _ in wanted}):
            with opened_part(self._paths[number]) as part:
                places = {place: i for file, place, i in wanted if file == number}
                values |= _rows_at(part, places, columns)
        return [values[i] for i in rows]


def _rows_at(
    part: pq.ParquetFile, places: dict[int, int], columns: list[str]
) -> dict[int, dict[str, Any]]:
    """Return the rows at some places of a part, by the numbers that they are known by."""
    values, first = dict[int, dict[str, Any]](), 0
    present = [name for name in columns if name in part.schema_arrow.names]
    for group in range(part.num_row_groups):
        after = first + part.metadata.row_group(group).num_rows
        if here := [place for place in places if first <= place < after]:
            table = part.read_row_group(group, columns=present)
            for place in here:
                (row,) = table.slice(place - first, 1).to_pylist()
                values[places[place]] = {name: row.get(name) for name in columns}
        first = after
    return values
