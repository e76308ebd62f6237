"""How a batch ends if a fault, or another person, interferes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.core.faults import Rule

Ending: TypeAlias = Literal["finished", "expired", "cancelled"]
Course: TypeAlias = Ending | Literal["never", "stuck"]
"""How a batch ends; `never`: only once cancelled; `stuck`: only by `finish` of the controls."""

_ENDINGS: dict[str, Course] = {
    "batch_expires": "expired",
    "batch_cancelled": "cancelled",
    "never_ends": "never",
    "stuck_finalizing": "stuck",
}
_USUAL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Fate:
    """How a batch will end; by default, normally."""

    ending: Course = "finished"
    share: float = 1.0
    """The share of its requests that run, however long it lives."""
    late_seconds: float = 0.0
    late_reads: int = 0
    """How long after its end, and for how many reads, its files are not named."""
    late_file: str | None = None
    """Which of the two files is late: `output` or `error`; None for both."""
    cancels: bool = True
    """Whether a cancellation ever ends."""
    false_reads: int = 0
    """How many reads from its creation say that it has ended, or failed."""
    taken_back: int = 0
    """How many reads after the one that finds its end say that it goes on."""
    fails: bool = False
    """Whether it is said to have failed after all its requests have run."""
    reason: str | None = None
    """Why it is said to have failed."""
    list_lag: float = 0.0
    """For how many seconds lists leave it out."""


NEVER = Fate(ending="never", share=0.0)
"""For a batch that does nothing and never ends."""


def fate_of(rules: Iterable[Rule]) -> Fate:
    """Return how a new batch will end by the rules that struck it; the first of a sort counts."""
    fate, seen = Fate(), set[str]()
    for rule in rules:
        sort = "ending" if rule.kind in _ENDINGS else rule.kind
        if sort not in seen:
            seen.add(sort)
            fate = replace(fate, **_changes(rule))
    return fate


def _changes(rule: Rule) -> dict[str, Any]:
    """Return what a rule changes of a fate."""
    reads = 1 if rule.reads is None else rule.reads
    if rule.kind in _ENDINGS:
        ending = _ENDINGS[rule.kind]
        usual = 1.0 if ending == "stuck" else _USUAL_SHARE
        return {"ending": ending, "share": usual if rule.share is None else rule.share}
    late = {"late_seconds": rule.seconds} if rule.reads is None else {"late_reads": reads}
    changes = {
        "cancel_ignored": {"cancels": False},
        "late_files": {**late, "late_file": rule.file},
        "false_end": {"false_reads": reads, "reason": rule.message},
        "end_taken_back": {"taken_back": reads},
        "fails_billed": {"fails": True, "reason": rule.message},
        "list_lag": {"list_lag": rule.seconds},
    }
    return changes.get(rule.kind, {})
