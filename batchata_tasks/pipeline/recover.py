"""Recovering: a dataset whose files are gone, while the ledger knows what was paid for.

The providers keep results for a month. So batches whose rows are neither in the dataset nor can be
landed from its folder are fetched again, and nothing is sent for what they answered: the custom_ids
of the answers tell, row by row, which request of today's plan was theirs.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.files import read_json
from batchata_tasks.common.money import PICO
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.columns import part_of_chunk, replaced_keys
from batchata_tasks.dataset.manifest import (
    SYSTEM_FIELDS,
    read_chunk_manifest,
    read_plan,
    write_manifest,
)
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.download import downloaded
from batchata_tasks.execution.held_dataset import Recovery
from batchata_tasks.execution.land import collect_and_land, land_again
from batchata_tasks.execution.poll import look_once, poll
from batchata_tasks.execution.unclear import adopt, hold
from batchata_tasks.ledger import UNFINISHED, Chunk, ChunkState, RunPhase
from batchata_tasks.pipeline.start import restored_context

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import BatchContext, RunContext

CLAIMED = "claimed"  # the name of the plan of rows that lost chunks have answers for
_PRIORS = {
    "_prior_attempts": "_attempts",
    "_prior_input_tokens": "_input_tokens",
    "_prior_output_tokens": "_output_tokens",
    "_prior_cache_read_tokens": "_cache_read_tokens",
    "_prior_cost": "_cost_usd",
}


def recover(held: HeldDataset) -> Recovery | None:
    """Fetch what the providers still have of chunks whose files are gone; None where no chunk is to be planned anew.

    Batches that have not ended are awaited first.

    Raises:
        BatchataError: something stopped it; nothing was sent, and the next run goes on with it.
    """
    for chunk in _begun(held):
        _take_up(held, chunk)
    parts_alone, landed, unfinished = _lost(held)
    if number := len(parts_alone) + len(landed) + len(unfinished):
        text = f"files of the dataset are gone: the results of {pluralize(number, 'batch')} are looked up again, nothing is sent for them."
        held.progress.note(text)
    gone = _landed_again(held, parts_alone)
    if not gone and not landed and not unfinished:
        return None
    held.ledger.reopen_landed(held.lease, [chunk.id for chunk in (*gone, *landed)])
    places = {
        chunk_id: place
        for place, chunk_id in enumerate(held.ledger.order_of(held.lease.dataset_id))
    }
    claims = dict[str, set[str]]()
    for chunk in sorted((*gone, *landed, *unfinished), key=lambda chunk: places[chunk.id]):
        answered = set[str]() if chunk in gone else _answered(held, chunk)
        if answered is not None:
            claims[chunk.id] = answered
    newest = _newest(held, places)
    return Recovery(
        {
            chunk_id: {name for name in names if newest.get(name, -1) < places[chunk_id]}
            for chunk_id, names in claims.items()
        }
    )


def _has_manifest(held: HeldDataset, chunk: Chunk) -> bool:
    return held.folder.manifest(chunk.id).exists()


def _sent(held: HeldDataset) -> list[Chunk]:
    return [
        chunk
        for chunk in held.ledger.unfinished_chunks(held.lease.dataset_id, "")
        if chunk.state in UNFINISHED
    ]


def _begun(held: HeldDataset) -> list[Chunk]:
    """Return the chunks that an earlier recovery began with, and died, whose files are there.

    It had written their manifests anew, or could not get their results, or the folder that it missed is back.
    """
    begun = [
        chunk
        for chunk in _sent(held)
        if chunk.state in (ChunkState.SUBMITTED, ChunkState.COLLECTED)
        and _has_manifest(held, chunk)
    ]
    return [
        chunk
        for chunk in begun
        if held.ledger.run(chunk.run_id).state == RunPhase.CLOSED
        or _commit(held, chunk).get("state") == "closed"
    ]


def _commit(held: HeldDataset, chunk: Chunk) -> dict[str, Any]:
    return read_json(held.folder.commit(chunk.id)) or {}


def _take_up(held: HeldDataset, chunk: Chunk) -> None:
    commit = _commit(held, chunk)
    if chunk.state == ChunkState.COLLECTED and commit.get("state") == "closed":
        emptied = commit.get("emptied", part_of_chunk(chunk.id) not in _parts(held))
        held.ledger.land(
            held.lease, chunk.id, commit.get("superseded_picodollars", 0), emptied=bool(emptied)
        )
        return
    context = _restored(held, chunk)
    if chunk.batch_id is not None:
        poll(context, chunk.batch_id)
    collect_and_land(context, chunk)


def _restored(held: HeldDataset, chunk: Chunk) -> BatchContext:
    return restored_context(held, held.ledger.run(chunk.run_id)).for_chunk(chunk)


def _parts(held: HeldDataset) -> set[str]:
    return set(Dataset(held.folder.data, pa.schema([]), [], []).parts())


def _lost(held: HeldDataset) -> tuple[list[Chunk], list[Chunk], list[Chunk]]:
    """Return the chunks of which (the part alone; part and manifest; what is to be landed) is lost.

    Where manifests are lost, the chunks that were superseded since count too: they tell what earlier
    attempts at a row used. And so do chunks that an earlier recovery began with, and died: their runs
    are closed, so nobody else would land them.
    """
    ledger, dataset_id, parts = held.ledger, held.lease.dataset_id, _parts(held)
    gone = [
        chunk for chunk in ledger.landed_chunks(dataset_id) if part_of_chunk(chunk.id) not in parts
    ]
    landed = [chunk for chunk in gone if not _has_manifest(held, chunk)]
    unfinished = [
        chunk
        for chunk in _sent(held)
        if not _has_manifest(held, chunk) or ledger.run(chunk.run_id).state == RunPhase.CLOSED
    ]
    if landed or unfinished:
        landed += [
            chunk for chunk in ledger.emptied_chunks(dataset_id) if not _has_manifest(held, chunk)
        ]
    return [chunk for chunk in gone if _has_manifest(held, chunk)], landed, unfinished


def _landed_again(held: HeldDataset, chunks: list[Chunk]) -> list[Chunk]:
    """Write the parts of landed chunks anew, without rows that were superseded since; return those that cannot be."""
    gone, replaced = list[Chunk](), _replaced(held) if chunks else {}
    for chunk in chunks:
        context = _restored(held, chunk)
        if not land_again(context, chunk, replaced.get(part_of_chunk(chunk.id), set())):
            gone.append(chunk)
    return gone


def _replaced(held: HeldDataset) -> dict[str, set[bytes]]:
    """Return the keys (digests) that landed chunks took out of older parts, by part."""
    found, dataset_id = defaultdict[str, set[bytes]](set), held.lease.dataset_id
    for chunk in (*held.ledger.landed_chunks(dataset_id), *held.ledger.emptied_chunks(dataset_id)):
        if _has_manifest(held, chunk):
            key = restored_context(held, held.ledger.run(chunk.run_id)).spec.key
            manifest = read_chunk_manifest(held.folder.manifest(chunk.id))
            for part, keys in replaced_keys(manifest, key).items():
                found[part] |= keys
    return found


def _newest(held: HeldDataset, places: dict[str, int]) -> dict[str, int]:
    """Return, of the requests whose rows are in the dataset, the place of the chunk that sent each last."""
    newest = dict[str, int]()
    for _, batch in Dataset(held.folder.data, pa.schema([]), [], []).rows(["_custom_id"]):
        for name in batch.column("_custom_id").drop_null().to_pylist():
            chunk_id, _, row_id = name.partition("-")
            newest[row_id] = max(places.get(chunk_id, -1), newest.get(row_id, -1))
    return newest


def _answered(held: HeldDataset, chunk: Chunk) -> set[str] | None:
    """Return the rows that a chunk's results have answers for; None for a chunk that was never accepted, or is held."""
    context = _restored(held, chunk)
    if chunk.state == ChunkState.UNCLEAR:
        try:
            found = adopt(context, chunk)
        except HeldError as error:
            hold(held.ledger, held.lease, held.folder, chunk.id)
            context.log(str(error))
            return None
        if found is None:
            held.ledger.withdraw_intent(held.lease, chunk.id)
            return None
    chunk = held.ledger.chunk(chunk.id)
    if chunk.batch_id is None:  # rows that cannot be sent at all
        return set()
    paths = downloaded(context, chunk, poll(context, chunk.batch_id))
    answers = chain.from_iterable(context.provider.answers(path) for path in paths)
    ran = (answer.custom_id for answer in answers if not answer.outcome.never_ran)
    return {name.removeprefix(f"{chunk.id}-") for name in ran if name.startswith(f"{chunk.id}-")}


def land_recovered(context: RunContext, recovery: Recovery) -> int:
    """Land the recovered chunks with the rows of today's plan that they have answers for; return how many rows."""
    landed = set[str]()
    if recovery.row_ids:
        rows = read_plan(context.folder.run_folder(context.run_id), CLAIMED)
        row_ids: list[str] = rows["_row_id"].to_pylist()
        states = dict[str, dict[str, Any]]()
        for chunk_id, claimed in recovery.claims.items():
            if at := [i for i, row_id in enumerate(row_ids) if row_id in claimed]:
                picked = rows.take(pa.array(at, pa.int64())).combine_chunks()
                write_manifest(context.folder.manifest(chunk_id), _with_priors(picked, states))
                collect_and_land(context.for_chunk(chunk := context.ledger.chunk(chunk_id)), chunk)
                landed |= {row_ids[i] for i in at}
                states |= _states(context, chunk_id)
    for chunk_id in recovery.claims:
        if (chunk := context.ledger.chunk(chunk_id)).state != ChunkState.LANDED:
            context.ledger.give_up(context.lease, chunk_id, _spent(context, chunk))
    _balance(context, list(recovery.claims))
    return len(landed)


def _spent(context: RunContext, chunk: Chunk) -> int | None:
    """Return what the answers of a chunk cost that was never settled; None where nobody can tell, or it was."""
    rates = _restored(context.held, chunk).taken.rates
    if chunk.state != ChunkState.SUBMITTED or chunk.batch_id is None or rates is None:
        return None
    here = context.for_chunk(chunk)
    paths = downloaded(here, chunk, look_once(here, chunk.batch_id))
    answers = list(chain.from_iterable(here.provider.answers(path) for path in paths))
    if not paths or not all(answer.readable for answer in answers):
        return None
    costs = dict[str, int]()
    for answer in answers:  # a line may come twice
        costs[answer.custom_id] = max(rates.cost(answer.usage), costs.get(answer.custom_id, 0))
    return sum(costs.values())


def _balance(context: RunContext, chunk_ids: list[str]) -> None:
    """Let the money add up again: what the rows do not hold, and nothing superseded, was paid for no row.

    Where only some files were lost, the rows that are left hold some of what the recovered chunks cost.
    """
    assert context.table is not None  # noqa: S101 - a run that plans has one
    costs = (
        batch.column("_cost_usd").drop_null()
        for _, batch in context.table.dataset.rows(["_cost_usd"])
    )
    rows = sum(int(cost * PICO) for column in costs for cost in column.to_pylist())
    if chunk_ids:
        context.ledger.balance(context.lease, chunk_ids[-1], rows)


def _states(context: RunContext, chunk_id: str) -> dict[str, dict[str, Any]]:
    """Return what a recovered part says of its rows, for a later attempt at the same rows."""
    assert context.table is not None  # noqa: S101 - a run that plans has one
    part = part_of_chunk(chunk_id)
    found = dict[str, dict[str, Any]]()
    for batch in context.table.dataset.part_rows(part, ["_custom_id", *_PRIORS.values()]):
        for state in batch.to_pylist():
            found[str(state["_custom_id"]).removeprefix(f"{chunk_id}-")] = state | {
                "_replaces": part
            }
    return found


def _priors(state: dict[str, Any] | None) -> dict[str, Any]:
    if state is None:
        return {}
    cost = state["_cost_usd"]
    priors = {prior: state[column] for prior, column in _PRIORS.items()}
    return priors | {
        "_replaces": state["_replaces"],
        "_prior_cost": None if cost is None else int(cost * PICO),
    }


def _with_priors(rows: pa.Table, states: dict[str, dict[str, Any]]) -> pa.Table:
    """Return manifest rows that know what earlier attempts at them used."""
    systems = [
        system | _priors(states.get(system["_row_id"]))
        for system in rows.select(SYSTEM_FIELDS.names).to_pylist()
    ]
    arrays = [
        pa.array([system[name] for system in systems], type=SYSTEM_FIELDS.field(name).type)
        if name in SYSTEM_FIELDS.names
        else rows.column(name).combine_chunks()
        for name in rows.schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=rows.schema)
