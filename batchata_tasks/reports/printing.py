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
        console.file.write(aligned(pairs))  # no folding in logs and pipes
        return
    table = Table.grid(padding=(0, GAP))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in pairs:
        table.add_row(label, Text(value))
    console.print(table, highlight=False)


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return lines of cells in aligned columns; the columns numbered in `right` to the right."""
    widths = column_widths(lines)
    texts: list[str] = []
    for line in lines:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append((" " * GAP).join(cells).rstrip() + "\n")
    return "".join(texts)


def column_widths(lines: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of the widest cell of each column."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]
