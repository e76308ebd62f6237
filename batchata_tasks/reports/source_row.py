"""One row of a source, found by its key, with the prompt that the spec makes of it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.errors import SourceError
from batchata_tasks.planning.prepare import opened_source
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown
from batchata_tasks.reports.requests import RequestParts
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True)
class SourceRow:
    """The columns of a row that the templates use, and the prompt; None of a batch of jobs."""

    inputs: dict[str, Any]
    prompt: RequestParts | None


def source_row(spec: RunSpec, key: Mapping[str, pa.Scalar]) -> SourceRow:
    """Return the row of a source that has this key.

    Raises:
        InputError: it is not there, or cannot be read or rendered.
    """
    if not isinstance(spec, EnrichmentSpec):
        return SourceRow({}, None)
    source = opened_source(spec)
    names = source.names()
    turns = [(turn.role, RowTemplate(turn.role, turn.content, names)) for turn in spec.turns()]
    used = [name for name in names if any(name in template.columns for _, template in turns)]
    first = 1
    for block in source.batches([*dict.fromkeys([*spec.key, *used])]):
        numbers = range(first, first + block.rows.num_rows)
        first += block.rows.num_rows
        if len(places := _places(block.rows, key)):
            row = RowBlock(block.rows, numbers, spec.key).take(places[:1])
            values = {name: row.values(name)[0] for name in used}
            seen, where = variables(shown(values, used)), row.namer(0)
            texts = tuple((role, template.render(seen, where)) for role, template in turns)
            return SourceRow(values, RequestParts(texts, None, {}))
    message = "the row is not in the source any more."
    raise SourceError(message)


def _places(rows: pa.RecordBatch, key: Mapping[str, pa.Scalar]) -> list[int]:
    """Return the places of the rows that have a key, whatever types the source has it in."""
    same = np.ones(rows.num_rows, np.bool_)
    for name, value in key.items():
        try:
            column = rows.column(name).cast(value.type)
        except pa.ArrowException:  # it has other values by now
            return []
        found = pc.equal(column, value).fill_null(False)  # noqa: FBT003 - its only form
        same &= found.to_numpy(zero_copy_only=False)
    return np.flatnonzero(same).tolist()
