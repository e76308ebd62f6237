"""What specs state of a budget, and which terms hold for all that share it.

Terms hold once all specs state them: until then, a spec that states others is refused. A limit that
was set by hand holds at once, whatever they state, and refuses none of them. It ends when all state
the same new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.types.budget import BudgetTerms

if TYPE_CHECKING:
    from sqlalchemy import Row

TRACKER = "(CostTracker)"  # created a budget that no spec named; no spec can have this name
# between a spec, whose name and URL have no blanks, and the file of budgets which states its terms
_IN_FILE = " in "

Said = dict[str, BudgetTerms | None]
"""What each spec stated last; None if earlier versions did not keep what a hand overruled."""


@dataclass(frozen=True)
class Agreement:
    """The terms of a budget that hold, and what specs state.

    `agreed` are the terms that specs agreed on, or that a hand set or overruled since.
    """

    holds: BudgetTerms
    said: Said
    agreed: tuple[BudgetTerms, ...]

    @classmethod
    def begun(cls, terms: BudgetTerms, spec: str) -> Agreement:
        """Return that of a budget which a spec is the first to name."""
        return cls(terms, {spec: terms}, (terms,))

    @classmethod
    def read(cls, row: Row[Any]) -> Agreement:
        """Return that of a row of the ledger's table of budgets."""
        said: Said = {}
        for key, stated in json.loads(row.said).items():
            spec, _, file = key.partition(_IN_FILE)
            if stated is None:
                said[spec] = None
                continue
            limit, period, timezone, *in_file = stated  # as a version had it for a while
            file = in_file[0] if in_file else file or None
            said[spec] = BudgetTerms(row.name, limit, period, timezone, file)
        agreed = (BudgetTerms(row.name, *stated[:3]) for stated in json.loads(row.agreed))
        return cls(terms_of(row), said, tuple(agreed))

    def values(self) -> dict[str, object]:
        """Return it as columns of that table."""
        said = {
            spec if terms is None or terms.file is None else f"{spec}{_IN_FILE}{terms.file}": (
                terms and _stated(terms)
            )
            for spec, terms in self.said.items()
        }
        return {
            "limit_amount": self.holds.limit,
            "period": self.holds.period,
            "timezone": self.holds.timezone,
            "said": json.dumps(said),
            "agreed": json.dumps([_stated(terms) for terms in self.agreed]),
        }

    @property
    def is_by_hand(self) -> bool:
        """Whether a limit that was set by hand holds, and with it overruled terms are known."""
        return len(self.agreed) > 1

    def conflict(self, terms: BudgetTerms, spec: str) -> tuple[str, BudgetTerms] | None:
        """Return a spec that keeps this one from having terms, and what it states.

        The name is empty if the ledger does: a limit that was set by hand refuses a new spec whose
        terms nobody states, or stated.
        """
        said = self._following(terms)
        others = {name: one for name, one in said.items() if name != spec and one is not None}
        if not self.is_by_hand:
            return next(((name, one) for name, one in others.items() if one != terms), None)
        is_known = spec in said or any(_is_by(terms.file, one) for one in others.values())
        if is_known or terms in self.agreed or terms in others.values():
            return None
        return "", self.holds

    def stated(self, terms: BudgetTerms, spec: str) -> Agreement:
        """Return what it is once a spec has stated terms; they are noted also if it is refused."""
        conflict = self.conflict(terms, spec)
        if conflict is not None and not conflict[0]:
            return self  # else it would be let through when it is run a second time
        after = replace(self, said={**self._following(terms), spec: terms})
        if any(one != terms for one in after.said.values()):
            return after
        is_new = terms not in self.agreed
        if (before := self._before(terms, spec)) is not None:
            is_new = terms != before
        if self.is_by_hand and terms != self.holds and not is_new:
            return after  # they state still what was overruled
        return replace(after, holds=replace(terms, file=None), agreed=(terms,))

    def set_by_hand(self, limit: int) -> Agreement:
        """Return what it is once a limit was set by hand. Trackers follow it."""
        said = {spec: terms for spec, terms in self.said.items() if spec != TRACKER}
        holds, stated = replace(self.holds, limit=limit), filter(None, self.said.values())
        return Agreement(holds, said, (*self.agreed, *stated, holds))

    def _before(self, terms: BudgetTerms, spec: str) -> BudgetTerms | None:
        """Return what a spec, or the file that it names, stated before."""
        of_file = (one for one in self.said.values() if _is_by(terms.file, one))
        return self.said.get(spec) or next(of_file, None)

    def _following(self, terms: BudgetTerms) -> Said:
        """Return what is stated if all specs that name the file of terms state what it says now."""
        return {spec: terms if _is_by(terms.file, one) else one for spec, one in self.said.items()}


def terms_of(row: Row[Any]) -> BudgetTerms:
    """Return the terms that hold, by a row of the ledger's table of budgets."""
    return BudgetTerms(row.name, row.limit_amount, row.period, row.timezone)


def _stated(terms: BudgetTerms) -> list[int | str]:
    return [terms.limit, terms.period, terms.timezone]


def _is_by(file: str | None, terms: BudgetTerms | None) -> bool:
    """Whether terms were had from this file of budgets."""
    return file is not None and terms is not None and terms.file == file
