"""The books of a table's runs, compared with the dataset's and the provider's own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from batchata_tasks.common.money import PICO
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.ledger import Chunk, Ledger, opened_ledger
from batchata_tasks.ledger import tables as t
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.types.answer import Usage
from tests.support.table import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.summary import Options
    from tests.support.table import Table


@contextmanager
def opened() -> Iterator[Ledger]:
    """Open the ledger of the runs."""
    with opened_ledger(Settings().ledger_url) as ledger:
        yield ledger


def all_chunks() -> list[Chunk]:
    """Return the chunks of all runs, in the order in which their rows were sent."""
    order = select(t.runs.c.id).order_by(t.runs.c.started_at)
    with opened() as ledger:
        runs = ledger.transact(
            lambda connection: list(connection.execute(order).scalars()), reading=True
        )
        return [chunk for run_id in runs for chunk in ledger.chunks(run_id)]


@dataclass(frozen=True)
class Money:
    """Picodollars of all runs together."""

    reserved: int  # of what is still in flight
    settled: int
    superseded: int
    overhead: int
    dataset: int


def money(table: Table) -> Money:
    """Add the books up."""
    with opened() as ledger:
        rows = ledger.transact(
            lambda connection: connection.execute(select(t.reservations)).all(), reading=True
        )
    return Money(
        sum(row.reserved for row in rows if row.settled is None),
        sum(row.settled or 0 for row in rows),
        sum(row.superseded or 0 for row in rows),
        sum(row.overhead or 0 for row in rows),
        sum(int((row["_cost_usd"] or 0) * PICO) for row in table.rows()),
    )


def billed(table: Table) -> int:
    """Return the provider's bill for all that it ever ran, in picodollars."""
    book, rates = table.ledger(), published_rates(table.provider, MODELS[table.provider])
    assert rates is not None
    return rates.cost(
        Usage(
            book["input_tokens_billed"],
            book["output_tokens_billed"],
            *(book[f"cache_{kind}_tokens_billed"] for kind in ("read", "write_5m", "write_1h")),
        )
    )


def check_money(table: Table, *, lost: bool = False) -> Money:
    """Check that nothing is in flight and that the ledger's sum is the dataset's, to the digit.

    Unless lines were `lost`, it is the provider's bill as well; else it is at least that.
    """
    sums = money(table)
    assert sums.reserved == 0
    assert sums.settled == sums.dataset + sums.superseded + sums.overhead
    if lost:
        assert sums.settled >= billed(table)
    else:
        assert sums.overhead == 0
        assert sums.settled == billed(table)
    return sums


def sent(table: Table, text: str) -> list[dict[str, Any]]:
    """Return the request bodies that were sent for the row of this text, oldest first."""
    order = {chunk.id: place for place, chunk in enumerate(all_chunks())}
    requests = [
        (order[name.partition("-")[0]], body)
        for name, body in table.bodies().items()
        if _asks(table.turns(body), text)
    ]
    return [body for _, body in sorted(requests, key=lambda pair: pair[0])]


def _asks(turns: list[dict[str, Any]], text: str) -> bool:
    first = next(turn for turn in turns if turn["role"] == "user")
    return str(first["content"]) == text


def run_with(table: Table, steps: Steps, options: Options | None = None, **changes: Any) -> Receipt:
    """Run the table's spec with other steps."""
    return enrich(table.spec(**changes), options, steps)


def stopping_at(
    step: str, when: Callable[[Chunk], bool], error: BaseException, *, after: bool = False
) -> Steps:
    """Return steps of which one raises for the chunks that `when` selects.

    It raises before it acts, or after.
    """
    real = getattr(Steps(), step)

    def wrapped(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        meant = when(context_of(ref).ledger.chunk(chunk_id))
        if meant and not after:
            raise error
        done: dict[str, Any] = real(ref, chunk_id)
        if meant:
            raise error
        return done

    return replace(Steps(), **{step: wrapped})
