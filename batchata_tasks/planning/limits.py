"""The limits on a run's spending: its own limit, and a shared budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.dataset.folder import DatasetFolder

if TYPE_CHECKING:
    from batchata_tasks.ledger import BudgetTerms
    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """The limits on a run's spending: its own in picodollars, and the budget that it shares."""

    run: int | None = None
    budget: BudgetTerms | None = None


def limits_of(spec: RunSpec, *, rehearsal: bool = False) -> SpendingLimits:
    """Return the limits on the spending of a spec's runs, or of its rehearsals."""
    run = pico_from_usd(spec.cost_limit_usd) if spec.cost_limit_usd is not None else None
    terms = spec.budget.terms() if spec.budget is not None else None
    if terms is not None and rehearsal:
        terms = terms.of_rehearsals()
    return SpendingLimits(run, terms)


def budget_member(spec: RunSpec) -> str:
    """Return what identifies a spec among those that share a budget.

    Two specs may have the same name, but not the same dataset.
    """
    return f"{spec.name} for {DatasetFolder(spec.output).url}"


def overruled(stated: BudgetTerms, binding: BudgetTerms) -> str | None:
    """Return a sentence if a spec's runs have other terms of a budget than it states.

    So it is from when a limit was set by hand until all specs state the same new one.
    """
    if stated == binding:
        return None
    return (
        f"{binding.in_words()} holds, as `batchata costs --set-budget` set it, and not the "
        f"{stated.in_words()} of {stated.file or 'this spec'}, until all that share the budget "
        "state the same new limit, or it is set anew"
    )


def limit_of(spec: RunSpec) -> str | None:
    """Return the first key of a spec that limits costs; None if there is none."""
    if spec.cost_limit_usd is not None:
        return "cost_limit_usd"
    if spec.budget is not None:
        return "budget"
    if spec.pilot is not None and spec.pilot.max_cost_per_row_usd is not None:
        return "pilot.max_cost_per_row_usd"
    return None
