"""What binds a run's spending: its own limit and a shared budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.dataset.folder import DatasetFolder

if TYPE_CHECKING:
    from batchata_tasks.ledger import BudgetTerms
    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True, slots=True)
class Limits:
    """What binds a run's spending: its own limit in picodollars, and the budget that it shares."""

    run: int | None = None
    budget: BudgetTerms | None = None


def limits_of(spec: RunSpec) -> Limits:
    """Return what binds the spending of a spec's runs."""
    run = pico_from_usd(spec.cost_limit_usd) if spec.cost_limit_usd is not None else None
    return Limits(run, spec.budget.terms() if spec.budget is not None else None)


def budget_member(spec: RunSpec) -> str:
    """Return who a spec is where it speaks of a budget: two may have one name, but not one dataset."""
    return f"{spec.name} for {DatasetFolder(spec.output).url}"


def limit_of(spec: RunSpec) -> str | None:
    """Name the first key of a spec that limits costs."""
    if spec.cost_limit_usd is not None:
        return "cost_limit_usd"
    if spec.budget is not None:
        return "budget"
    return (
        "pilot.max_cost_per_row_usd"
        if spec.pilot is not None and spec.pilot.max_cost_per_row_usd is not None
        else None
    )
