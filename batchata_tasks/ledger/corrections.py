"""Corrections: by how much the bounds of a model were found too low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.store import Store, reads, writes

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ONE = 10**6


class Corrections(Store):
    """What the ledger knows of answers that cost more than their bound."""

    @writes
    def correct_bounds(
        self,
        connection: Connection,
        provider: str,
        model: str,
        base: int,
        excess: int,
        chunk_id: str,
    ) -> int:
        """Note that a cost was `excess` millionths of its bound; return the factor (in millionths) for bounds from now on.

        `base` is the factor that the bound itself was made with. The same note twice, or those of chunks
        that were planned together, multiply nothing twice. A tenth is added: the next answer may be a little dearer still.
        """
        self.lock(connection, f"bounds {provider} {model}")
        here = (t.corrections.c.provider == provider) & (t.corrections.c.model == model)
        known = connection.execute(select(t.corrections.c.factor).where(here)).scalar()
        factor = max(known or _ONE, -(-base * excess * 11 // (10 * _ONE)))
        row = {"factor": factor, "chunk_id": chunk_id, "noted_at": now_us()}
        if known is None:
            connection.execute(
                insert(t.corrections).values(row | {"provider": provider, "model": model})
            )
        else:
            connection.execute(update(t.corrections).where(here).values(row))
        return factor

    @reads
    def bounds_factor(self, connection: Connection, provider: str, model: str) -> int:
        """Return what bounds of a model are to be multiplied with, in millionths."""
        here = (t.corrections.c.provider == provider) & (t.corrections.c.model == model)
        return connection.execute(select(t.corrections.c.factor).where(here)).scalar() or _ONE
