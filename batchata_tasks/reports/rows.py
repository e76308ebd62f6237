"""`batchata show`: rows of a dataset, for people."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table

from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.dataset.columns import OWN_NAMES
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.reports.printing import GAP, cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from batchata_tasks.reports.shown_dataset import ShownDataset

_COST = "_cost_usd"
_TOLD = ("_error", "_missing_since", _COST)
_NARROW, _NARROWEST = 16, 10  # characters that a column keeps, also on a terminal of 80 or of 30


def rows_table(
    dataset: ShownDataset,
    rows: list[dict[str, Any]],
    width: int,
    columns: Sequence[str] | None = None,
) -> RenderableType:
    """Return rows for a terminal: key, outcome, answers, carried columns, error and cost.

    Given `columns`, these in their order. All of the width is used: long texts are cut to what is
    left of it, and columns that do not fit are left out and named below.
    """
    if not rows:
        return "No such rows."
    cells = {
        name: [_cell(name, row.get(name)) for row in rows]
        for name in columns or _named(dataset, rows)
    }
    sizes = {name: max(map(cell_len, [name, *texts])) for name, texts in cells.items()}
    left_out = list[str]()
    while _room(width, sizes.values()) < 0:
        spare = [name for name in sizes if name not in (*dataset.key, "_status", "_error")]
        if not spare:
            break
        left_out.insert(0, spare[-1])
        del sizes[spare[-1]]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name, shown in zip(sizes, _widths(list(sizes.values()), width), strict=True):
        table.add_column(cell(name), no_wrap=True, overflow="ellipsis", width=shown)
    for row in zip(*(cells[name] for name in sizes), strict=True):
        table.add_row(*map(cell, row))
    if not left_out:
        return table
    more_columns = f"… and {pluralize(len(left_out), 'more column')}: {', '.join(left_out)}"
    return Group(table, cell(more_columns))


def _named(dataset: ShownDataset, rows: list[dict[str, Any]]) -> list[str]:
    """Return the columns that are shown unless others are asked for: those that say something."""
    others = {*dataset.carried, *OWN_NAMES}
    answers = [name for name in rows[0] if name not in others]
    names = [*dataset.key, "_status", *answers, *dataset.carried, *_TOLD]
    return [name for name in dict.fromkeys(names) if any(row.get(name) is not None for row in rows)]


def _room(width: int, sizes: Iterable[int]) -> int:
    """Return the characters that a line has left if each column is as narrow as it may be."""
    return width - sum(min(size, _least(width)) + GAP for size in sizes) + GAP


def _least(width: int) -> int:
    """Return the characters that a column keeps on a terminal of a width: a fifth of it."""
    return max(_NARROWEST, min(width // 5, _NARROW))


def _widths(sizes: list[int], width: int) -> list[int]:
    """Return the widths of columns whose texts have these sizes: what is left is shared evenly."""
    widths = [min(size, _least(width)) for size in sizes]
    room = _room(width, sizes)
    # the column that wants least first: what it leaves of its share is the others'
    for left, place in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        share = max(room, 0) // (len(sizes) - left)
        more = min(sizes[place] - widths[place], share)
        widths[place] += more
        room -= more
    return widths


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            text = ""
        case list():
            text = ", ".join(map(str, cast("list[Any]", value)))
        case float():
            text = f"{value:g}"
        case Decimal():
            # the cost has twelve decimals, of which most are nearly always zeros
            text = f"{value.normalize() if name == _COST else value:f}"
        case _:
            text = str(value)
    return " ".join(printable(text).split())


def how_to_open(dataset: ShownDataset) -> str:
    """Return how to read the dataset from pandas and DuckDB."""
    data = DatasetFolder(dataset.output).data
    return f"""Open it:
  pandas   pd.read_parquet("{data}")
  DuckDB   from read_parquet('{data}/*.parquet')"""
