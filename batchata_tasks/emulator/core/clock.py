"""The emulator's clock, which a test can move, and the pace at which batches proceed on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

DAY = 86_400.0
LONGEST_CANCEL = 600.0

Mode: TypeAlias = Literal["immediate", "reads", "seconds"]
"""When a batch ends: at its first look, after n reads of it, or n seconds after its creation."""


class Clock:
    """Real time plus an offset; can be stopped."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None

    def now(self) -> float:
        """Return seconds since the epoch on this clock."""
        return self._frozen if self._frozen is not None else time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward, or back."""
        self._offset += seconds
        if self._frozen is not None:
            self._frozen += seconds

    def freeze(self, *, frozen: bool) -> None:
        """Stop the clock, or let it run on from where it stands."""
        if frozen:
            self._frozen = self.now()
        elif self._frozen is not None:
            self._offset = self._frozen - time.time()
            self._frozen = None


@dataclass(frozen=True)
class Pace:
    """How fast batches proceed."""

    mode: Mode = "immediate"
    n: float = 0.0

    def share(self, reads: int, age: float) -> float:
        """Return the share of a batch's life that is over; 1.0 if it has ended."""
        if self.mode == "immediate" or (self.mode == "seconds" and self.n <= 0):
            return 1.0
        return min(1.0, reads / (self.n + 1) if self.mode == "reads" else max(0.0, age) / self.n)

    def moment(self, share: float, created_at: float, now: float) -> float:
        """Return when `share` of a batch's life was over, for a batch that has lived so long."""
        return created_at + share * self.n if self.mode == "seconds" else now

    def end(self, created_at: float, now: float) -> float:
        """Return when a batch that has finished ended."""
        if self.mode == "reads":
            return min(now, created_at + DAY)
        return created_at + (self.n if self.mode == "seconds" else 0.0)

    def cancelled(self, reads: int, waited: float) -> bool:
        """Whether a cancellation has ended: after a read, or a tenth of a batch's time."""
        if self.mode == "seconds":
            return waited >= min(LONGEST_CANCEL, self.n / 10)
        return self.mode == "immediate" or reads > min(1.0, self.n)


def rfc3339(moment: float) -> str:
    """Format a moment as Anthropic does, with microseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
