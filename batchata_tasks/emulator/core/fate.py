"""How a batch ends if a fault, or another person, interferes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.core.faults import Rule

Ending: TypeAlias = Literal["finished", "expired", "cancelled"]

_ENDINGS: dict[str, Ending | Literal["never"]] = {
    "batch_expires": "expired",
    "batch_cancelled": "cancelled",
    "never_ends": "never",
}
_USUAL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Fate:
    """How a batch will end; by default, normally."""

    ending: Ending | Literal["never"] = "finished"
    share: float = 1.0
    """The share of its requests that run, however long it lives."""
    late_seconds: float = 0.0
    late_reads: int = 0
    """How long after its end, and for how many reads, its files are not named."""


NEVER = Fate(ending="never", share=0.0)
"""For a batch that does nothing and never ends."""


def fate_of(rules: Iterable[Rule]) -> Fate:
    """Return how a new batch will end by the rules that struck it; the first of a sort counts."""
    ending: Ending | Literal["never"] = "finished"
    share = 1.0
    seconds, reads = 0.0, 0
    for rule in rules:
        if rule.kind in _ENDINGS and ending == "finished":
            ending = _ENDINGS[rule.kind]
            share = _USUAL_SHARE if rule.share is None else rule.share
        elif rule.kind == "late_files" and not (seconds or reads):
            if rule.reads is None:
                seconds = rule.seconds
            else:
                reads = rule.reads
    return Fate(ending, share, seconds, reads)
