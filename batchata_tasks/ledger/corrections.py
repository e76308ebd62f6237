"""Corrections: by how much the bounds of a model turned out to be too low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ONE = 10**6
_CHARS = 200  # of a model's name
_FACTOR = select(t.corrections.c.factor).where(
    t.corrections.c.provider == bindparam("provider"), t.corrections.c.model == bindparam("model")
)


def _named(model: str, *, rehearsal: bool) -> str:
    return f"rehearsal:{model}"[:_CHARS] if rehearsal else model


class Corrections(Store):
    """The part of the ledger about answers that cost more than their bound."""

    @writes
    def correct_bounds(
        self,
        connection: Connection,
        provider: str,
        model: str,
        base: int,
        excess: int,
        chunk_id: str,
        *,
        rehearsal: bool = False,
    ) -> int:
        """Record that an answer cost `excess` millionths of its bound.

        Returns the factor, in millionths, by which to multiply bounds from now on. `base` is the
        factor that this bound was made with, so that the same excess recorded twice, or by chunks
        that were planned together, is applied once. A tenth is added, because the next answer may
        cost a little more still. What a `rehearsal` shows counts for rehearsals alone.
        """
        model = _named(model, rehearsal=rehearsal)
        self.lock(connection, f"bounds {provider} {model}")
        which = {"provider": provider, "model": model}
        previous = connection.execute(_FACTOR, which).scalar()
        factor = max(previous or _ONE, -(-base * excess * 11 // (10 * _ONE)))
        row = {"factor": factor, "chunk_id": chunk_id, "noted_at": now_us()}
        if previous is None:
            connection.execute(insert(t.corrections), row | which)
        else:
            here = (t.corrections.c.provider == provider) & (t.corrections.c.model == model)
            connection.execute(update(t.corrections).where(here).values(row))
        return factor

    @reads
    def bounds_factor(
        self, connection: Connection, provider: str, model: str, *, rehearsal: bool = False
    ) -> int:
        """Return the factor by which to multiply bounds of a model, in millionths."""
        which = {"provider": provider, "model": _named(model, rehearsal=rehearsal)}
        return connection.execute(_FACTOR, which).scalar() or _ONE
