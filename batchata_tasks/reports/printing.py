"""How reports are printed: tables on a terminal, whole lines in pipes and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rich.console import Console

GAP = 2  # characters between two columns


def print_text(console: Console, text: str, style: str | None = None) -> None:
    """Print a text as it is: no markup, no highlighting, no folding."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print (label, value) pairs, such as a receipt or a plan."""
    if not console.is_terminal:
        write_aligned(console, pairs)
        return
    table = Table.grid(padding=(0, GAP))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, Text(value))
    console.print(table, highlight=False)


def write_aligned(
    console: Console, lines: Sequence[Sequence[str]], right: Collection[int] = ()
) -> None:
    """Write lines of cells in aligned columns, whole; those numbered in `right` to the right."""
    widths = column_widths(lines)
    for line in lines:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        console.file.write((" " * GAP).join(cells).rstrip() + "\n")


def column_widths(lines: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of the widest cell of each column."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]
