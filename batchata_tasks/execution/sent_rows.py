"""The rows of a chunk as they were sent: what its manifest says of each, by position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.dataset.columns import kept
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.execution.earlier import RetiredValues

SENT_FIELDS = (
    *("_row_id", "_fingerprint", "_schema", "_changed", "_prior_error"),
    *("_prior_attempts", "_prior_cost", "_batchata_left"),
    *("_prior_input_tokens", "_prior_output_tokens", "_prior_cache_read_tokens"),
)


class SentRows:
    """The rows of a chunk by their positions in its manifest."""

    def __init__(
        self, manifest: pa.Table, token: str, columns: pa.Schema, retired: RetiredValues | None
    ) -> None:
        source = [name for name in manifest.schema.names if name not in SYSTEM_FIELDS.names]
        self._source = [column for column in columns if column.name in source]
        self._retired = [] if retired is None else [n for n in retired.names if n not in source]
        self._retired_values = retired
        names = [*(field.name for field in self._source), *SENT_FIELDS]
        self._rows = manifest.select(names)
        self._token = token
        row_ids = manifest["_row_id"].to_pylist()
        self.positions = {custom_id(token, row_id): i for i, row_id in enumerate(row_ids)}
        self.bounds: list[Any] = manifest["_bound"].to_pylist()  # picodollars
        schemas: list[str | None] = manifest["_schema"].to_pylist()
        self.schemas = schemas if any(schemas) else None  # digests of response models of their own
        unknown = pc.indices_nonzero(pc.is_null(manifest["_prior_cost"])).to_pylist()
        self.unknown_costs = frozenset[int](unknown)  # positions of rows whose earlier cost is

    def __len__(self) -> int:
        return self._rows.num_rows

    def at(self, positions: Sequence[int]) -> pa.RecordBatch:
        """Return the rows at some positions, in that order, as the manifest has them."""
        first, count = positions[0], len(positions)
        if list(positions) == list(range(first, first + count)):  # results came in order
            rows = self._rows.slice(first, count)
        else:
            rows = self._rows.take(pa.array(positions, pa.int64()))
        return rows.combine_chunks().to_batches()[0]

    def carried(self, rows: pa.RecordBatch, positions: Sequence[int]) -> dict[str, pa.Array]:
        """Return the columns of these rows that no answer changes, in the dataset's types."""
        arrays = {field.name: kept(rows.column(field.name), field) for field in self._source}
        if self._retired_values is not None:
            of = self._retired_values.of
            arrays |= {name: of(name, list(positions)) for name in self._retired}
        return arrays

    def prior_costs(self, positions: Sequence[int]) -> int:
        """Return what these rows cost before, as far as it is known, in picodollars."""
        return sum(cost or 0 for cost in self.at(positions).column("_prior_cost").to_pylist())

    def custom_ids(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the names that these rows' requests had at the provider."""
        return custom_ids_of(self._token, rows.column("_row_id"))


def custom_ids_of(token: str, row_ids: pa.Array | pa.ChunkedArray) -> Any:
    """Return the names that requests had at the provider, by their chunk and rows."""
    return pc.binary_join_element_wise(token, row_ids, "-")
