"""How reports are printed: tables on a terminal, whole lines in pipes and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from batchata_tasks.common.text import printable, printable_lines
from batchata_tasks.progress.output import print_on, write_on

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rich.console import Console, RenderableType

GAP = 2  # characters between two columns


def print_text(console: Console, text: str, style: str | None = None) -> None:
    """Print a text as it is: no markup, no highlighting, no folding."""
    print_on(console, Text(printable_lines(text), style=style or ""))


def print_table(console: Console, table: RenderableType) -> None:
    """Print what was laid out for the console's width."""
    print_on(console, table, wraps=True)


def cell(text: object) -> Text:
    """Return a table's cell: what it says may come from a source, a spec or a provider."""
    return Text(printable(str(text)))


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print (label, value) pairs, such as a receipt or a plan."""
    if not console.is_terminal:
        write_on(console, aligned(pairs))  # no folding in logs and pipes
        return
    table = Table.grid(padding=(0, GAP))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(cell(label), cell(value))
    print_table(console, table)


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return lines of cells in aligned columns; the columns numbered in `right` to the right."""
    lines = [list(map(printable, line)) for line in lines]
    widths = column_widths(lines)
    texts: list[str] = []
    for line in lines:
        cells = list[str]()
        for number, (text, width) in enumerate(zip(line, widths, strict=True)):
            blanks = " " * (width - cell_len(text))
            cells.append(blanks + text if number in right else text + blanks)
        texts.append((" " * GAP).join(cells).rstrip() + "\n")
    return "".join(texts)


def column_widths(lines: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of the widest cell of each column, in characters of a terminal."""
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
