"""Recovering: a dataset whose files are gone, while the ledger knows what was paid for.

The providers keep results for a month. So batches whose rows are neither in the dataset nor can be
landed from its folder are fetched again, and nothing is sent for what they answered: the custom_ids
of the answers tell, row by row, which request of today's plan was theirs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.files import write_json
from batchata_tasks.common.money import PICO
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.manifest import (
    SYSTEM_FIELDS,
    read_plan,
    write_manifest,
)
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.download import NoResultsError, cost_of_answers, downloaded
from batchata_tasks.execution.intent_files import withdraw
from batchata_tasks.execution.land import collect_and_land, commit_of
from batchata_tasks.execution.look import look_once
from batchata_tasks.execution.lost_files import note_money
from batchata_tasks.execution.overdue import set_aside
from batchata_tasks.execution.poll import poll
from batchata_tasks.execution.reread import noting
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.execution.unclear import adopt, hold
from batchata_tasks.ledger import Chunk, ChunkState, RunPhase
from batchata_tasks.pipeline.land_again import land_lost_parts
from batchata_tasks.pipeline.lost import LostChunks, lost_chunks, parts_of, sent_chunks
from batchata_tasks.pipeline.planning_run import Recovery
from batchata_tasks.planning.fingerprint import is_rehearsed, schema_part_of
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.types.outcome import is_attempt

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import BatchContext, RunContext
    from batchata_tasks.pipeline.planning_run import PlanningRun
    from batchata_tasks.planning.table import PreparedTable

CLAIMED = "claimed"  # name of the plan of the rows that lost chunks have answers for
_PRIORS = {
    "_prior_attempts": "_attempts",
    "_prior_input_tokens": "_input_tokens",
    "_prior_output_tokens": "_output_tokens",
    "_prior_cache_read_tokens": "_cache_read_tokens",
    "_prior_cost": "_cost_usd",
}


def recover(held: HeldDataset, table: PreparedTable) -> Recovery | None:
    """Fetch what the providers still have of chunks whose files are gone, for a run of a table.

    Those of rehearsals count only for a rehearsal.

    Batches that have not ended are awaited first. Returns None if no chunk is to be planned anew.

    Raises:
        BatchataError: something stopped it; nothing was sent, and the next run goes on with it.
    """
    for chunk in _begun_before(held):
        _finish(held, chunk)
    lost = _lost(held, rehearsal=table.rehearsal)
    if number := len(lost.parts) + len(lost.landed) + len(lost.unfinished):
        held.progress.note(
            "files of the dataset are gone: the results of "
            f"{pluralize(number, 'batch')} are looked up again, nothing is sent for them."
        )
    for chunk in (*lost.parts, *lost.landed, *lost.unfinished):
        held.packing.unpack(held.folder.files_of(chunk.id))
    not_landed = land_lost_parts(held, lost.parts)
    to_plan = [*not_landed, *lost.landed, *lost.unfinished]
    if not to_plan:
        return None
    ledger = held.ledger
    ledger.reopen_landed(held.lease, [chunk.id for chunk in (*not_landed, *lost.landed)])
    order = ledger.order_of(held.lease.dataset_id)
    places = {chunk_id: place for place, chunk_id in enumerate(order)}
    claims = dict[str, set[str]]()
    for chunk in sorted(to_plan, key=lambda chunk: places[chunk.id]):
        answered = set[str]() if chunk in not_landed else _answered(held, chunk)
        if answered is not None:
            claims[chunk.id] = answered
    newest = _newest(held, places)
    return Recovery(
        {
            chunk_id: {name for name in names if newest.get(name, -1) < places[chunk_id]}
            for chunk_id, names in claims.items()
        },
        _reread(held, table, to_plan),
    )


def _reread(held: HeldDataset, table: PreparedTable, chunks: list[Chunk]) -> tuple[str, ...]:
    """Return the other response models, by their parts of fingerprints, of chunks' requests.

    None unless the dataset's answers were read by today's: else they are to be sent again.
    """
    known = held.ledger.rereads(held.lease.dataset_id)
    if table.answers.own or (today := schema_part_of(table.answers.common)) not in known:
        return ()
    specs = {run_id: held.ledger.run(run_id).spec for run_id in {c.run_id for c in chunks}}
    models = [AnswerSchemas.from_json(json.loads(text)).common for text in specs.values()]
    return tuple(sorted({*known, *map(schema_part_of, models)} - {today}))


def _has_manifest(held: HeldDataset, chunk: Chunk) -> bool:
    return is_kept(held.folder.manifest(chunk.id))


def _begun_before(held: HeldDataset) -> list[Chunk]:
    """Return the chunks that an earlier recovery began with, and died, whose files are there.

    It had written their manifests anew, or could not get their results, or the folder that it
    missed is back.
    """
    states = (ChunkState.SUBMITTED, ChunkState.COLLECTED)
    return [
        chunk
        for chunk in sent_chunks(held.ledger, held.lease.dataset_id)
        if chunk.state in states
        and _has_manifest(held, chunk)
        and (
            held.ledger.run(chunk.run_id).state == RunPhase.CLOSED
            or commit_of(held.folder, chunk.id).get("state") == "closed"
        )
    ]


def _finish(held: HeldDataset, chunk: Chunk) -> None:
    """Land a chunk with which an earlier recovery began."""
    commit = commit_of(held.folder, chunk.id)
    if chunk.state == ChunkState.COLLECTED and commit.get("state") == "closed":
        emptied = commit.get("emptied", part_of_chunk(chunk.id) not in parts_of(held.folder))
        superseded = commit.get("superseded_picodollars", 0)
        held.ledger.land(held.lease, chunk.id, superseded, emptied=bool(emptied))
        return
    context = _restored(held, chunk)
    if chunk.batch_id is not None and poll(context, chunk) is None:
        return  # overdue: a later run lands it
    collect_and_land(context, held.ledger.chunk(chunk.id))


def _restored(held: HeldDataset, chunk: Chunk) -> BatchContext:
    return restored_context(held, held.ledger.run(chunk.run_id)).for_chunk(chunk)


def _lost(held: HeldDataset, *, rehearsal: bool) -> LostChunks:
    """Return the lost chunks.

    If manifests are lost, the chunks that were superseded since count too: they tell what earlier
    attempts at a row used.
    """
    dataset_id = held.lease.dataset_id
    lost = lost_chunks(held.ledger, held.folder, dataset_id)
    if not lost.landed and not lost.unfinished:
        return lost
    others = set[str]() if rehearsal else held.ledger.rehearsals(dataset_id)
    emptied = [c for c in held.ledger.emptied_chunks(dataset_id) if c.run_id not in others]
    landed = [*lost.landed, *(chunk for chunk in emptied if not _has_manifest(held, chunk))]
    return replace(lost, landed=landed)


def _newest(held: HeldDataset, places: dict[str, int]) -> dict[str, int]:
    """Return, by row of the dataset, the place of the chunk that sent its request last."""
    newest = dict[str, int]()
    for _, batch in Dataset(held.folder.data, pa.schema([]), [], []).rows(["_custom_id"]):
        for name in batch.column("_custom_id").drop_null().to_pylist():
            chunk_id, _, row_id = name.partition("-")
            newest[row_id] = max(places.get(chunk_id, -1), newest.get(row_id, -1))
    return newest


def _answered(held: HeldDataset, chunk: Chunk) -> set[str] | None:
    """Return the rows that a chunk's results answer.

    None if it was never accepted, or its rows are held.
    """
    context = _restored(held, chunk)
    if chunk.state == ChunkState.UNCLEAR:
        try:
            batch_id = adopt(context, chunk)
        except HeldError as error:
            hold(held.ledger, held.lease, held.folder, chunk.id)
            context.log(str(error))
            return None
        if batch_id is None:
            withdraw(held.folder, held.ledger, held.lease, chunk.id, absent=True)
            return None
    chunk = held.ledger.chunk(chunk.id)
    if chunk.batch_id is None:  # rows that cannot be sent at all
        return set()
    if (look := poll(context, chunk)) is None:
        return None
    try:
        _, paths = downloaded(context, chunk, look)
    except NoResultsError as error:
        set_aside(context, chunk, str(error), lacks_results=True)
        return None
    answers = chain.from_iterable(context.provider.answers(path) for path in paths)
    ran = (a.custom_id for a in answers if is_attempt(a.outcome, a.error))
    return {name.removeprefix(f"{chunk.id}-") for name in ran if name.startswith(f"{chunk.id}-")}


def land_recovered(run: PlanningRun, recovery: Recovery) -> None:
    """Land the recovered chunks with the rows of today's plan that they have answers for."""
    if recovery.row_ids:
        rows = read_plan(run.folder.run_folder(run.run_id), CLAIMED)
        row_ids: list[str] = rows["_row_id"].to_pylist()
        states = dict[str, dict[str, Any]]()
        for chunk_id, claimed in recovery.claims.items():
            if at := [i for i, row_id in enumerate(row_ids) if row_id in claimed]:
                _reopen_commit(run, chunk_id)
                if recovery.reread:
                    _note_reread(run, chunk_id)
                picked = rows.take(pa.array(at, pa.int64())).combine_chunks()
                write_manifest(run.folder.manifest(chunk_id), _with_priors(picked, states))
                chunk = run.ledger.chunk(chunk_id)
                collect_and_land(run.for_chunk(chunk), chunk)
                states |= _states(run, chunk_id)
    parts = parts_of(run.folder)  # rows may be there, although their other files were lost
    for chunk_id in recovery.claims:
        chunk = run.ledger.chunk(chunk_id)
        if chunk.state != ChunkState.LANDED:
            emptied = part_of_chunk(chunk_id) not in parts
            run.ledger.give_up(run.lease, chunk_id, _spent(run, chunk), emptied=emptied)
    _balance(run.held, run.table, recovery.claims)


def _reopen_commit(run: PlanningRun, chunk_id: str) -> None:
    """Let nobody take a chunk of which no row was left for landed before its rows are back."""
    commit = commit_of(run.folder, chunk_id)
    if commit.get("emptied"):
        write_json(run.folder.commit(chunk_id), {**commit, "state": "open"})


def _note_reread(run: PlanningRun, chunk_id: str) -> None:
    """Let the rows of a chunk be read by today's response model when they land."""
    landing = {"chunk": chunk_id, "run_id": run.ledger.chunk(chunk_id).run_id, "state": "open"}
    commit = commit_of(run.folder, chunk_id) or landing
    part = schema_part_of(run.table.answers.common)
    write_json(run.folder.commit(chunk_id), noting(commit, run.answers, part))


def _spent(run: RunContext, chunk: Chunk) -> int | None:
    """Return what a chunk's unsettled answers cost; None if unknown, or if they were settled."""
    rates = _restored(run.held, chunk).route.rates
    if chunk.state != ChunkState.SUBMITTED or chunk.batch_id is None or rates is None:
        return None
    context = run.for_chunk(chunk)
    _, paths = downloaded(context, chunk, look_once(context, chunk.batch_id))
    return cost_of_answers(context, chunk, paths, rates)


def _balance(held: HeldDataset, table: PreparedTable, chunks: Collection[str]) -> None:
    """Make the money add up again: what no row holds, and nothing superseded, was paid for no row.

    If only some files were lost, the remaining rows hold part of the recovered chunks' cost.
    """
    if not chunks:
        return
    rows = 0
    for _, batch in table.dataset.rows(["_cost_usd", "_fingerprint"]):
        costs = (batch.column(name).to_pylist() for name in ("_cost_usd", "_fingerprint"))
        rows += sum(
            int(cost * PICO)
            for cost, text in zip(*costs, strict=True)
            if cost is not None and is_rehearsed(text or "") == table.rehearsal
        )
    held.ledger.balance(held.lease, list(chunks)[-1], rows)
    for chunk_id in chunks:
        note_money(held.folder, held.ledger, held.lease, held.ledger.chunk(chunk_id))


def _states(run: PlanningRun, chunk_id: str) -> dict[str, dict[str, Any]]:
    """Return the states of a recovered part's rows, for a later attempt at the same rows."""
    part = part_of_chunk(chunk_id)
    states = dict[str, dict[str, Any]]()
    for batch in run.table.dataset.part_rows(part, ["_custom_id", *_PRIORS.values()]):
        for state in batch.to_pylist():
            row_id = str(state["_custom_id"]).removeprefix(f"{chunk_id}-")
            states[row_id] = state | {"_replaces": part}
    return states


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
    """Return manifest rows with what earlier attempts at them used."""
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
