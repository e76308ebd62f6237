"""Recovering: a dataset whose files are gone, while the ledger knows what was paid for.

The providers keep results for a month. So batches whose rows are neither in the dataset nor can be
landed from its folder are fetched again, and nothing is sent for what they answered: the custom_ids
of the answers tell, row by row, which request of today's plan was theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.dataset import Dataset, part_of_chunk
from batchata_tasks.doubt import adopt
from batchata_tasks.land import collect_and_land, downloaded, land_again
from batchata_tasks.ledger import UNCLEAR, UNFINISHED, Chunk
from batchata_tasks.manifest import SYSTEM_FIELDS, read_plan, write_manifest
from batchata_tasks.money import PICO
from batchata_tasks.poll import poll
from batchata_tasks.session import restored

if TYPE_CHECKING:
    from batchata_tasks.session import Session
    from batchata_tasks.site import Site

CLAIMED = "claimed"  # the name of the plan of rows that lost chunks have answers for
_PRIORS = {
    "_prior_attempts": "_attempts", "_prior_input_tokens": "_input_tokens", "_prior_output_tokens": "_output_tokens",
    "_prior_cache_read_tokens": "_cache_read_tokens", "_prior_cost": "_cost_usd",
}


@dataclass(frozen=True)
class Recovery:
    """The chunks that are recovered, in the order in which they were sent, and the rows that each has answers for."""

    claims: dict[str, set[str]]

    @property
    def row_ids(self) -> set[str]:
        """The rows for which nothing needs to be sent."""
        return set(chain.from_iterable(self.claims.values()))


def recover(site: Site) -> Recovery | None:
    """Fetch what the providers still have of chunks whose files are gone; None where no file is.

    Batches that have not ended are awaited first.

    Raises:
        BatchataError: something stopped it; nothing was sent, and the next run goes on with it.
    """
    parts_alone, landed, unfinished = _lost(site)
    if number := len(parts_alone) + len(landed) + len(unfinished):
        text = f"files of the dataset are gone: the results of {number} batches are looked up again, nothing is sent for them."
        site.progress.note(text)
    for chunk in parts_alone:
        if not land_again(restored(site, site.ledger.run(chunk.run_id)), chunk):
            site.ledger.give_up(site.lease, chunk.id)
    if not landed and not unfinished:
        return None
    site.ledger.begin_again(site.lease, [chunk.id for chunk in landed])
    order = {chunk_id: place for place, chunk_id in enumerate(site.ledger.order_of(site.lease.dataset_id))}
    chunks = sorted((*landed, *unfinished), key=lambda chunk: order[chunk.id])
    claims = {chunk.id: _answered(site, chunk) for chunk in chunks}
    return Recovery({chunk_id: row_ids for chunk_id, row_ids in claims.items() if row_ids is not None})


def _lost(site: Site) -> tuple[list[Chunk], list[Chunk], list[Chunk]]:
    """Return the chunks of which (the part alone; part and manifest; what is to be landed) is lost.

    Where manifests are lost, the chunks that were superseded since count too: they tell what earlier
    attempts at a row used. And so do chunks that an earlier recovery began with, and died: their runs
    are closed, so nobody else would land them.
    """
    ledger, folder, dataset_id = site.ledger, site.folder, site.lease.dataset_id
    parts = Dataset(folder.data, pa.schema([]), [], []).parts()

    def has_manifest(chunk: Chunk) -> bool:
        return (folder.intents / f"{chunk.id}.arrow").exists()

    gone = [chunk for chunk in ledger.landed_chunks(dataset_id) if part_of_chunk(chunk.id) not in parts]
    landed = [chunk for chunk in gone if not has_manifest(chunk)]
    sent = [chunk for chunk in ledger.unfinished_chunks(dataset_id, "") if chunk.state in UNFINISHED]
    unfinished = [chunk for chunk in sent if not has_manifest(chunk) or ledger.run(chunk.run_id).state == "closed"]
    if landed or unfinished:
        landed += [chunk for chunk in ledger.emptied_chunks(dataset_id) if not has_manifest(chunk)]
    return [chunk for chunk in gone if has_manifest(chunk)], landed, unfinished


def _answered(site: Site, chunk: Chunk) -> set[str] | None:
    """Return the rows that a chunk's results have answers for; None for a chunk that was never accepted."""
    session = restored(site, site.ledger.run(chunk.run_id))
    if chunk.state == UNCLEAR and adopt(session, chunk) is None:
        site.ledger.withdraw_intent(site.lease, chunk.id)
        return None
    chunk = site.ledger.chunk(chunk.id)
    if chunk.batch_id is None:  # rows that cannot be sent at all
        return set()
    paths = downloaded(session, chunk, poll(session, chunk.batch_id))
    answers = chain.from_iterable(session.provider.answers(path) for path in paths)
    ran = (answer.custom_id for answer in answers if not answer.outcome.never_ran)
    return {name.removeprefix(f"{chunk.id}-") for name in ran if name.startswith(f"{chunk.id}-")}


def land_recovered(session: Session, recovery: Recovery) -> int:
    """Land the recovered chunks with the rows of today's plan that they have answers for; return how many rows."""
    if not recovery.row_ids:
        for chunk_id in recovery.claims:
            session.ledger.give_up(session.lease, chunk_id)
        return 0
    rows = read_plan(session.folder.run_folder(session.run_id), CLAIMED)
    row_ids: list[str] = rows["_row_id"].to_pylist()
    states, landed = dict[str, dict[str, Any]](), set[str]()
    for chunk_id, claimed in recovery.claims.items():
        at = [i for i, row_id in enumerate(row_ids) if row_id in claimed]
        chunk = session.ledger.chunk(chunk_id)
        if not at:
            session.ledger.give_up(session.lease, chunk_id)
            continue
        picked = rows.take(pa.array(at, pa.int64())).combine_chunks()
        write_manifest(session.folder.intents / f"{chunk_id}.arrow", _with_priors(picked, states))
        collect_and_land(session, chunk)
        landed |= {row_ids[i] for i in at}
        states |= _states(session, chunk_id)
    return len(landed)


def _states(session: Session, chunk_id: str) -> dict[str, dict[str, Any]]:
    """Return what a recovered part says of its rows, for a later attempt at the same rows."""
    assert session.table is not None  # noqa: S101 - a run that plans has one
    part = part_of_chunk(chunk_id)
    found = dict[str, dict[str, Any]]()
    for batch in session.table.dataset.part_rows(part, ["_custom_id", *_PRIORS.values()]):
        for state in batch.to_pylist():
            found[str(state["_custom_id"]).removeprefix(f"{chunk_id}-")] = state | {"_replaces": part}
    return found


def _priors(state: dict[str, Any] | None) -> dict[str, Any]:
    if state is None:
        return {}
    cost = state["_cost_usd"]
    priors = {prior: state[column] for prior, column in _PRIORS.items()}
    return priors | {"_replaces": state["_replaces"], "_prior_cost": None if cost is None else int(cost * PICO)}


def _with_priors(rows: pa.Table, states: dict[str, dict[str, Any]]) -> pa.Table:
    """Return manifest rows that know what earlier attempts at them used."""
    systems = [system | _priors(states.get(system["_row_id"])) for system in rows.select(SYSTEM_FIELDS.names).to_pylist()]
    arrays = [
        pa.array([system[name] for system in systems], type=SYSTEM_FIELDS.field(name).type) if name in SYSTEM_FIELDS.names
        else rows.column(name).combine_chunks()
        for name in rows.schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=rows.schema)
