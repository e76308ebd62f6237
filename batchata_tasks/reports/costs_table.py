"""`batchata costs` for people: a table that fits a terminal, whole lines in pipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from batchata_tasks.common.money import dollars

if TYPE_CHECKING:
    from rich.console import Console

    from batchata_tasks.reports.costs import Costs, Group, Period

_NAMELESS = {"spec": "(outside of runs)", "model": "(outside of runs)", "budget": "(no budget)"}
# what a narrow terminal goes without, in this order; `--json` has it all
_SPARE = ("Overhead", "List price", "Batches", "Cached", "In flight", "Runs", "Expected", "Per row")
_NOTHING = ("-", "$0.00")
_NARROWEST, _GAP = (
    16,
    2,
)  # characters that the first column takes at least, and that lie between two

Lines = list[list[str]]


def print_costs(costs: Costs, out: Console) -> None:
    """Print the groups and their total, then the shared budgets."""
    title = f"Costs by {costs.by} since {costs.since.date().isoformat()} (UTC)"
    if not costs.groups:
        _say(out, f"{title}: nothing was spent.")
    else:
        names = [*(group.name or _NAMELESS.get(costs.by, "") for group in costs.groups), "Total"]
        cells = [_cells(group) for group in [*costs.groups, costs.total]]
        lines = [[name, *line.values()] for name, line in zip(names, cells, strict=True)]
        _print(out, title, [[costs.by.capitalize(), *cells[0]], *lines])
        outcomes = ", ".join(
            f"{dollars(tally.cost)} {name}"
            for name, tally in sorted(costs.total.tallies.items())
            if tally.cost
        )
        _say(out, f"By outcome: {outcomes or 'nothing yet'}.")
    if costs.total.unpriced:
        _say(
            out,
            f"No price is known for {costs.total.unpriced:,} of the batches: no sum holds them.",
        )
    if costs.budgets:
        _say(out, "")
        head = ["Budget", "Period", "Limit", "Spent", "In flight", "Left"]
        _print(
            out,
            "Shared budgets",
            [head, *(line for periods in costs.budgets for line in _budget(periods))],
            total=False,
        )


def _cells(group: Group) -> dict[str, str]:
    money, share = group.money, group.whole.cached_share
    unknown = " + ?" if group.unpriced and group.priced else ""
    return {
        "Runs": f"{len(group.runs):,}",
        "Batches": f"{group.batches:,}",
        "Rows": f"{group.whole.rows:,}",
        "Expected": _amount(money["expected"]),
        "Settled": dollars(money["settled"]) + unknown,
        "In flight": _amount(money["in_flight"]),
        "List price": _amount(money["list_price"]),
        "Saved": _amount(money["saved"]),
        "Per row": _amount(money["cost_per_row"]),
        "Cached": f"{share:.0%}" if share else "-",
        "Overhead": _amount(money["overhead"]),
    }


def _amount(pico: int | None) -> str:
    return dollars(pico) if pico else "-"


def _budget(periods: list[Period]) -> Lines:
    present, terms = periods[0], periods[0].terms
    when = "in total" if present.first_day is None else f"{terms.period} from {present.first_day}"
    spent = [[dollars(period.books.settled), _amount(period.books.in_flight)] for period in periods]
    first = [terms.name, when, dollars(terms.limit), *spent[0], dollars(present.left)]
    # what the limit was then is not kept
    return [
        first,
        *(
            [terms.name, f"from {one.first_day}", "", *amounts, ""]
            for one, amounts in zip(periods[1:], spent[1:], strict=True)
        ),
    ]


def _print(out: Console, title: str, lines: Lines, *, total: bool = True) -> None:
    """Print a table: its first line is the head, its last one the total."""
    if not out.is_terminal:
        sides = [str.ljust if name in (lines[0][0], "Period") else str.rjust for name in lines[0]]
        columns = list(zip(sides, _widths(lines), strict=True))
        text = [
            "  ".join(
                side(cell, width) for cell, (side, width) in zip(line, columns, strict=True)
            ).rstrip()
            for line in lines
        ]
        out.file.write("\n".join([title, *text]) + "\n")
        return
    head, *rows = _fitting(lines, out.width)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for name in head:
        table.add_column(
            name, justify="left" if name in (head[0], "Period") else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if total and row is rows[-1] else None)
    out.print(table)


def _fitting(lines: Lines, width: int) -> Lines:
    """Leave columns out until the others fit, first those that say nothing; then cut the names."""
    head = lines[0]
    gone = {
        name
        for i, name in enumerate(head)
        if name in _SPARE and all(line[i] in _NOTHING for line in lines[1:])
    }
    for name in _SPARE:
        first, *widths = [
            size + _GAP for i, size in enumerate(_widths(lines)) if head[i] not in gone
        ]
        if min(first, _NARROWEST) + sum(widths) <= width:
            break
        gone.add(name)
    rest = max(
        width
        - sum(size + _GAP for i, size in enumerate(_widths(lines)) if i and head[i] not in gone)
        - _GAP,
        1,
    )
    short = [
        [line[0] if len(line[0]) <= rest else f"{line[0][: rest - 1]}…", *line[1:]]
        for line in lines
    ]
    return [[cell for i, cell in enumerate(line) if head[i] not in gone] for line in short]


def _widths(lines: Lines) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _say(out: Console, text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
