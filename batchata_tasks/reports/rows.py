"""`batchata show`: rows of a dataset, for people."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.dataset.columns import META_FIELDS
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.reports.printing import GAP, cell
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from batchata_tasks.spec.run import RunSpec

_NARROW = 10  # characters that a column keeps on a narrow terminal
_WIDEST = 40  # characters that a column has at most


def dataset_rows(spec: RunSpec, rows: int, *, only_failed: bool) -> list[dict[str, Any]]:
    """Return the first rows of a dataset, key and answers first.

    Raises:
        SpecError: there is no dataset yet.
    """
    data = DatasetFolder(spec.output).data
    if not any(data.glob("*.parquet")):
        message = f"output: there are no rows in {data} yet; `batchata status` tells what runs did."
        raise SpecError(message)
    failed = pc.field("_status") != Outcome.SUCCEEDED.value
    dataset: pads.Dataset = pads.dataset(data, format="parquet")
    first: pa.Table = dataset.head(rows, filter=failed if only_failed else None)
    return first.to_pylist()


def rows_table(spec: RunSpec, rows: list[dict[str, Any]], width: int) -> RenderableType:
    """Return rows for a terminal: key, outcome, answers, carried columns, error and cost.

    Long texts are cut. Columns that do not fit are left out and named below.
    """
    if not rows:
        return "No such rows."
    others = {*spec.carried, *META_FIELDS.names}
    answers = [name for name in rows[0] if name not in others]
    cells = {
        name: [_cell(row.get(name)) for row in rows]
        for name in dict.fromkeys(
            [*spec.key, "_status", *answers, *spec.carried, "_error", "_cost_usd"]
        )
        if any(row.get(name) is not None for row in rows)
    }
    sizes = {
        name: min(max(map(cell_len, [name, *texts])), _WIDEST) for name, texts in cells.items()
    }
    left_out = list[str]()
    while (room := _room(width, sizes.values())) < 0:
        spare = [name for name in sizes if name not in (*spec.key, "_status", "_error")]
        if not spare:
            break
        left_out.insert(0, spare[-1])
        del sizes[spare[-1]]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name, size in sizes.items():
        more = max(min(size - _NARROW, room), 0)
        room -= more
        shown = min(size, _NARROW) + more
        table.add_column(cell(name), no_wrap=True, overflow="ellipsis", width=shown)
    for row in zip(*(cells[name] for name in sizes), strict=True):
        table.add_row(*map(cell, row))
    if not left_out:
        return table
    more_columns = f"… and {pluralize(len(left_out), 'more column')}: {', '.join(left_out)}"
    return Group(table, cell(more_columns))


def _room(width: int, sizes: Iterable[int]) -> int:
    """Return the characters that a line has left if each column is as narrow as it may be."""
    return width - sum(min(size, _NARROW) + GAP for size in sizes) + GAP


def _cell(value: Any) -> str:
    match value:
        case None:
            text = ""
        case list():
            text = ", ".join(map(str, cast("list[Any]", value)))
        case float():
            text = f"{value:g}"
        case Decimal():
            text = f"{value.normalize():f}"
        case _:
            text = str(value)
    return " ".join(printable(text).split())


def how_to_open(spec: RunSpec) -> str:
    """Return how to read the dataset from pandas and DuckDB."""
    data = DatasetFolder(spec.output).data
    return f"""Open it:
  pandas   pd.read_parquet("{data}")
  DuckDB   from read_parquet('{data}/*.parquet')"""
