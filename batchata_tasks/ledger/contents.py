"""What a ledger of any version holds, for those who may have to leave it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import exists, select

from batchata_tasks.ledger import tables as t
from batchata_tasks.ledger.leases import Leases
from batchata_tasks.ledger.opening import ledger_exists

if TYPE_CHECKING:
    from sqlalchemy import Connection


class LedgerContents(NamedTuple):
    """A ledger's id and what it records, by columns that its first version had."""

    ledger_id: str
    datasets: dict[str, str]  # the URL by the id
    runs: list[tuple[str, str]]  # the id of the dataset, and the spec's name
    chunks: frozenset[str]
    in_use: bool  # a process is at work on one of the datasets
    other_money: bool  # money was spent outside of runs


def ledger_contents(url: str) -> LedgerContents | None:
    """Return what a ledger holds, or None if there is none; nothing is created or migrated.

    Raises:
        WrongLedgerError: the database belongs to another program.
        LedgerError: the database cannot be reached, or is damaged.
    """
    if not ledger_exists(url):
        return None
    ledger = Leases(url)
    try:
        contents = ledger.transact(_contents, reading=True)
        in_use = any(ledger.is_held(dataset_id) for dataset_id in contents.datasets)
        return contents._replace(in_use=in_use)
    finally:
        ledger.close()


def _contents(connection: Connection) -> LedgerContents:
    datasets = connection.execute(select(t.datasets.c.id, t.datasets.c.url))
    runs = connection.execute(select(t.runs.c.dataset_id, t.runs.c.name).distinct())
    outside = ~exists().where(t.runs.c.id == t.reservations.c.run_id)
    other_money = connection.execute(select(t.reservations.c.chunk_id).where(outside)).first()
    return LedgerContents(
        ledger_id=str(connection.execute(select(t.meta.c.ledger_id)).scalar_one()),
        datasets={row.id: row.url for row in datasets},
        runs=[(row.dataset_id, row.name) for row in runs],
        chunks=frozenset(connection.execute(select(t.chunks.c.id)).scalars()),
        in_use=False,
        other_money=other_money is not None,
    )
