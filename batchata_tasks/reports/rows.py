"""Rows of a dataset for people."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.columns import META_FIELDS
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

    from batchata_tasks.spec.enrichment import EnrichmentSpec

_NARROW, _WIDEST, _GAP = (
    10,
    40,
    2,
)  # characters that a column keeps on a narrow terminal, has at most, and that lie between two


def dataset_rows(spec: EnrichmentSpec, rows: int, *, only_failed: bool) -> list[dict[str, Any]]:
    """Return the first rows of a dataset, key and answers first.

    Raises:
        SpecError: there is no dataset yet.
    """
    data = DatasetFolder(spec.output).data
    if not any(data.glob("*.parquet")):
        message = f"output: there is no dataset in {data} yet; run the spec first."
        raise SpecError(message)
    wanted = pc.field("_status") != Outcome.SUCCEEDED.value if only_failed else None
    found: pa.Table = pads.dataset(data, format="parquet").head(rows, filter=wanted)
    return found.to_pylist()


def rows_table(spec: EnrichmentSpec, rows: list[dict[str, Any]], width: int) -> RenderableType:
    """Return rows for a terminal: key, answers, how it ended; all else is left to other tools.

    Long texts are cut. Where there is no room for all columns, those that are left out are named.
    """
    if not rows:
        return "No such rows."
    known = {*spec.carried, *META_FIELDS.names}
    kept = [*spec.key, "_status", "_error"]
    names = [
        *spec.key,
        "_status",
        *(name for name in rows[0] if name not in known),
        "_error",
        "_cost_usd",
    ]
    cells = {
        name: [_cell(row.get(name)) for row in rows]
        for name in names
        if any(row.get(name) is not None for row in rows)
    }
    whole = {
        name: min(max(map(cell_len, [name, *texts])), _WIDEST) for name, texts in cells.items()
    }
    gone = list[str]()
    while (room := width - sum(min(size, _NARROW) + _GAP for size in whole.values()) + _GAP) < 0:
        spare = [name for name in whole if name not in kept]
        if not spare:
            break
        gone.insert(0, spare[-1])
        del whole[spare[-1]]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for name, size in whole.items():
        more = max(min(size - _NARROW, room), 0)
        room -= more
        table.add_column(
            Text(name), no_wrap=True, overflow="ellipsis", width=min(size, _NARROW) + more
        )
    for row in zip(*(cells[name] for name in whole), strict=True):
        table.add_row(*map(Text, row))
    return (
        Group(table, Text(f"… and {pluralize(len(gone), 'more column')}: {', '.join(gone)}"))
        if gone
        else table
    )


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case list():
            return ", ".join(map(str, cast("list[Any]", value)))
        case float():
            return f"{value:g}"
        case Decimal():
            return f"{value.normalize():f}"
        case _:
            return " ".join(str(value).split())


def how_to_open(spec: EnrichmentSpec) -> str:
    """Return how to read the dataset from pandas and DuckDB."""
    data = DatasetFolder(spec.output).data
    return f"""Open it:
  pandas   pd.read_parquet("{data}")
  DuckDB   from read_parquet('{data}/*.parquet')"""
