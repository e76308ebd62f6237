"""`batchata costs` for people: a table that fits a terminal, whole lines in pipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from batchata_tasks.common.money import dollars
from batchata_tasks.progress.output import write_on
from batchata_tasks.reports.printing import (
    GAP,
    aligned,
    cell,
    column_widths,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from rich.console import Console

    from batchata_tasks.reports.costs import Costs, Group, Period

_NAMELESS = {"spec": "(outside of runs)", "model": "(outside of runs)", "budget": "(no budget)"}
# columns that a narrow terminal goes without, in this order; `--json` has them all
_SPARE = ("Overhead", "List price", "Batches", "Cached", "In flight", "Runs", "Expected", "Per row")
_EMPTY = ("-", "$0.00")
_NARROWEST = 16  # characters that the first column keeps at least

Lines = list[list[str]]


def print_costs(costs: Costs, out: Console) -> None:
    """Print the groups and their total, then the shared budgets, and those of rehearsals."""
    title = f"Costs by {costs.by} since {costs.since.date().isoformat()} (UTC)"
    if not costs.groups:
        print_text(out, f"{title}: nothing was spent; rehearsals are not counted.")
    else:
        _print_groups(costs, title, out)
    if costs.total.unpriced:
        unpriced = f"{costs.total.unpriced:,} of the batches"
        print_text(out, f"No price is known for {unpriced}: they are in no sum.")
    tables = {
        "Shared budgets": costs.budgets,
        "Budgets of rehearsals, whose money is made up and in no sum": costs.rehearsed,
    }
    for title, budgets in tables.items():
        if budgets:
            print_text(out, "")
            head = ["Budget", "Period", "Limit", "Spent", "In flight", "Left"]
            lines = [line for periods in budgets for line in _budget_lines(periods)]
            _print_table(out, title, [head, *lines])


def _print_groups(costs: Costs, title: str, out: Console) -> None:
    names = [*(group.name or _NAMELESS.get(costs.by, "") for group in costs.groups), "Total"]
    cells = [_cells(group) for group in [*costs.groups, costs.total]]
    lines = [[name, *line.values()] for name, line in zip(names, cells, strict=True)]
    _print_table(out, title, [[costs.by.capitalize(), *cells[0]], *lines], has_total=True)
    by_outcome = [
        f"{dollars(total.cost)} {name}"
        for name, total in sorted(costs.total.outcomes.items())
        if total.cost
    ]
    print_text(out, f"By outcome: {', '.join(by_outcome) or 'nothing yet'}.")


def _cells(group: Group) -> dict[str, str]:
    """Return a group's cells by the names of their columns."""
    amounts, share = group.amounts, group.answers.cached_share
    unknown = " + ?" if group.unpriced and group.priced else ""
    return {
        "Runs": f"{len(group.runs):,}",
        "Batches": f"{group.batches:,}",
        "Rows": f"{group.answers.rows:,}",
        "Expected": _amount(amounts["expected"]),
        "Settled": dollars(amounts["settled"]) + unknown,
        "In flight": _amount(amounts["in_flight"]),
        "List price": _amount(amounts["list_price"]),
        "Saved": _amount(amounts["saved"]),
        "Per row": _amount(amounts["cost_per_row"]),
        "Cached": f"{share:.0%}" if share else "-",
        "Overhead": _amount(amounts["overhead"]),
    }


def _amount(pico: int | None) -> str:
    return dollars(pico) if pico else "-"


def _budget_lines(periods: list[Period]) -> Lines:
    """Return a line for each period of a budget, the present one first.

    Past periods have no limit, since the limit of that time is not stored.
    """
    present, *past = periods
    terms = present.terms
    when = "in total" if present.first_day is None else f"{terms.period} from {present.first_day}"
    limit, left = dollars(terms.limit), dollars(present.left)
    first = [terms.label, when, limit, *_spent(present), left]
    return [
        first,
        *([terms.label, f"from {period.first_day}", "", *_spent(period), ""] for period in past),
    ]


def _spent(period: Period) -> list[str]:
    return [dollars(period.totals.settled), _amount(period.totals.in_flight)]


def _print_table(out: Console, title: str, lines: Lines, *, has_total: bool = False) -> None:
    """Print a table: its first line is the head, its last one may be the total."""
    if not out.is_terminal:
        right = [number for number, name in enumerate(lines[0]) if number and name != "Period"]
        write_on(out, f"{title}\n{aligned(lines, right)}")
        return
    head, *rows = _fit(lines, out.width)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for number, name in enumerate(head):
        is_left = number == 0 or name == "Period"
        table.add_column(name, justify="left" if is_left else "right", no_wrap=True)
    for row in rows:
        style = "bold" if has_total and row is rows[-1] else None
        table.add_row(*map(cell, row), style=style)
    print_table(out, table)


def _fit(lines: Lines, width: int) -> Lines:
    """Leave out columns until the others fit, beginning with empty ones; then cut the names."""
    head = lines[0]
    sizes = {name: size + GAP for name, size in zip(head, column_widths(lines), strict=True)}
    for number, name in enumerate(head):
        if name in _SPARE and all(line[number] in _EMPTY for line in lines[1:]):
            del sizes[name]
    for name in _SPARE:
        if min(sizes[head[0]], _NARROWEST) + sum(sizes.values()) - sizes[head[0]] <= width:
            break
        sizes.pop(name, None)
    others = sum(sizes.values()) - sizes[head[0]]
    room = max(width - others - GAP, 1)
    return [
        [_cut(line[0], room), *(line[i] for i, name in enumerate(head) if i and name in sizes)]
        for line in lines
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
