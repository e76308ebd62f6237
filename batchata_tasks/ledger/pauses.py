"""How often a provider is asked under an account, by all runs of a ledger together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes
from batchata_tasks.types.batch_life import LONGEST_LIFE

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LONGEST = 600.0  # seconds; a server may ask for years
_UNTIL = select(t.pauses.c.until).where(t.pauses.c.account == bindparam("under"))
_NONE = delete(t.pauses).where(t.pauses.c.account == bindparam("under"))
_OPEN = (
    select(func.count())
    .select_from(t.batches)
    .where(
        t.batches.c.account == bindparam("under"),
        t.batches.c.ended_at.is_(None),
        t.batches.c.submitted_at > bindparam("after"),  # older ones ended without being seen to
    )
)


class LooksUnder(NamedTuple):
    """The looks under an account: at how many batches, and for how many seconds none is made."""

    batches: int
    paused: float


class Pauses(Store):
    """The part of the ledger about when a provider wants to be left alone."""

    @writes
    def pause_looks(self, connection: Connection, account: str, seconds: float) -> None:
        """Let no run look at batches of an account for a while: the provider asked for that.

        One that asked for more than ten minutes is asked again all the same: its limits are counted
        by the minute, so that is a mistake, and nobody is to wait for the end of it.
        """
        if seconds > _LONGEST:
            return
        self.lock(connection, f"pause of {account}")
        now = self.clock(connection)
        if seconds > self._left(connection, account, now):
            until = now + int(seconds * 1e6)
            connection.execute(_NONE, {"under": account})
            connection.execute(insert(t.pauses), {"account": account, "until": until})

    @reads
    def looks_under(self, connection: Connection, account: str) -> LooksUnder:
        """Return how many batches of an account are looked at, and for how long none is."""
        now = self.clock(connection)
        asked = {"under": account, "after": now - int(LONGEST_LIFE * 1e6)}
        batches = connection.execute(_OPEN, asked).scalar_one()
        return LooksUnder(batches, self._left(connection, account, now))

    @staticmethod
    def _left(connection: Connection, account: str, now: int) -> float:
        """Return how many seconds of a pause are left.

        One that ends later than any lasts was noted while a clock was ahead: it counts for nothing.
        """
        until = connection.execute(_UNTIL, {"under": account}).scalar() or now
        left = (until - now) / 1e6
        return left if 0 < left <= _LONGEST else 0.0
