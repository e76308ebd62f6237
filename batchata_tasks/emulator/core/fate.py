"""How a batch ends if a fault, or another person, interferes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

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
    cancels: bool = True
    """Whether a cancellation ever ends."""


NEVER = Fate(ending="never", share=0.0)
"""For a batch that does nothing and never ends."""


def fate_of(rules: Iterable[Rule]) -> Fate:
    """Return how a new batch will end by the rules that struck it; the first of a sort counts."""
    ending: Course = "finished"
    share = 1.0
    seconds, reads, cancels = 0.0, 0, True
    for rule in rules:
        if rule.kind in _ENDINGS and ending == "finished":
            ending = _ENDINGS[rule.kind]
            usual = 1.0 if ending == "stuck" else _USUAL_SHARE
            share = usual if rule.share is None else rule.share
        elif rule.kind == "cancel_ignored":
            cancels = False
        elif rule.kind == "late_files" and not (seconds or reads):
            if rule.reads is None:
                seconds = rule.seconds
            else:
                reads = rule.reads
    return Fate(ending, share, seconds, reads, cancels)
