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
from batchata_tasks.common.text import counted
from batchata_tasks.dataset.columns import part_of_chunk, replaced_keys
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS, read_chunk_manifest, read_plan, write_manifest
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.download import downloaded
from batchata_tasks.execution.land import collect_and_land, land_again
from batchata_tasks.execution.poll import look_once, poll
from batchata_tasks.execution.recovery import Recovery
from batchata_tasks.execution.unclear import adopt, hold
from batchata_tasks.ledger import COLLECTED, LANDED, SUBMITTED, UNCLEAR, UNFINISHED, Chunk
from batchata_tasks.pipeline.start import restored

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import Site
    from batchata_tasks.execution.run_context import ChunkSession, Session

CLAIMED = "claimed"  # the name of the plan of rows that lost chunks have answers for
_PRIORS = {
    "_prior_attempts": "_attempts", "_prior_input_tokens": "_input_tokens", "_prior_output_tokens": "_output_tokens",
    "_prior_cache_read_tokens": "_cache_read_tokens", "_prior_cost": "_cost_usd",
}


def recover(site: Site) -> Recovery | None:
    """Fetch what the providers still have of chunks whose files are gone; None where no chunk is to be planned anew.

    Batches that have not ended are awaited first.

    Raises:
        BatchataError: something stopped it; nothing was sent, and the next run goes on with it.
    """
    for chunk in _begun(site):
        _take_up(site, chunk)
    parts_alone, landed, unfinished = _lost(site)
    if number := len(parts_alone) + len(landed) + len(unfinished):
        text = f"files of the dataset are gone: the results of {counted(number, 'batch')} are looked up again, nothing is sent for them."
        site.progress.note(text)
    gone = _landed_again(site, parts_alone)
    if not gone and not landed and not unfinished:
        return None
    site.ledger.begin_again(site.lease, [chunk.id for chunk in (*gone, *landed)])
    places = {chunk_id: place for place, chunk_id in enumerate(site.ledger.order_of(site.lease.dataset_id))}
    claims = dict[str, set[str]]()
    for chunk in sorted((*gone, *landed, *unfinished), key=lambda chunk: places[chunk.id]):
        answered = set[str]() if chunk in gone else _answered(site, chunk)
        if answered is not None:
            claims[chunk.id] = answered
    newest = _newest(site, places)
    return Recovery({chunk_id: {name for name in names if newest.get(name, -1) < places[chunk_id]} for chunk_id, names in claims.items()})


def _has_manifest(site: Site, chunk: Chunk) -> bool:
    return (site.folder.intents / f"{chunk.id}.arrow").exists()


def _sent(site: Site) -> list[Chunk]:
    return [chunk for chunk in site.ledger.unfinished_chunks(site.lease.dataset_id, "") if chunk.state in UNFINISHED]


def _begun(site: Site) -> list[Chunk]:
    """Return the chunks that an earlier recovery began with, and died, whose files are there.

    It had written their manifests anew, or could not get their results, or the folder that it missed is back.
    """
    begun = [chunk for chunk in _sent(site) if chunk.state in (SUBMITTED, COLLECTED) and _has_manifest(site, chunk)]
    return [chunk for chunk in begun if site.ledger.run(chunk.run_id).state == "closed" or _commit(site, chunk).get("state") == "closed"]


def _commit(site: Site, chunk: Chunk) -> dict[str, Any]:
    return read_json(site.folder.commits / f"{chunk.id}.json") or {}


def _take_up(site: Site, chunk: Chunk) -> None:
    commit = _commit(site, chunk)
    if chunk.state == COLLECTED and commit.get("state") == "closed":
        emptied = commit.get("emptied", part_of_chunk(chunk.id) not in _parts(site))
        site.ledger.land(site.lease, chunk.id, commit.get("superseded_picodollars", 0), emptied=bool(emptied))
        return
    session = _restored(site, chunk)
    if chunk.batch_id is not None:
        poll(session, chunk.batch_id)
    collect_and_land(session, chunk)


def _restored(site: Site, chunk: Chunk) -> ChunkSession:
    return restored(site, site.ledger.run(chunk.run_id)).at(chunk)


def _parts(site: Site) -> set[str]:
    return set(Dataset(site.folder.data, pa.schema([]), [], []).parts())


def _lost(site: Site) -> tuple[list[Chunk], list[Chunk], list[Chunk]]:
    """Return the chunks of which (the part alone; part and manifest; what is to be landed) is lost.

    Where manifests are lost, the chunks that were superseded since count too: they tell what earlier
    attempts at a row used. And so do chunks that an earlier recovery began with, and died: their runs
    are closed, so nobody else would land them.
    """
    ledger, dataset_id, parts = site.ledger, site.lease.dataset_id, _parts(site)
    gone = [chunk for chunk in ledger.landed_chunks(dataset_id) if part_of_chunk(chunk.id) not in parts]
    landed = [chunk for chunk in gone if not _has_manifest(site, chunk)]
    unfinished = [chunk for chunk in _sent(site) if not _has_manifest(site, chunk) or ledger.run(chunk.run_id).state == "closed"]
    if landed or unfinished:
        landed += [chunk for chunk in ledger.emptied_chunks(dataset_id) if not _has_manifest(site, chunk)]
    return [chunk for chunk in gone if _has_manifest(site, chunk)], landed, unfinished


def _landed_again(site: Site, chunks: list[Chunk]) -> list[Chunk]:
    """Write the parts of landed chunks anew, without rows that were superseded since; return those that cannot be."""
    gone, replaced = list[Chunk](), _replaced(site) if chunks else {}
    for chunk in chunks:
        session = _restored(site, chunk)
        if not land_again(session, chunk, replaced.get(part_of_chunk(chunk.id), set())):
            gone.append(chunk)
    return gone


def _replaced(site: Site) -> dict[str, set[bytes]]:
    """Return the keys (digests) that landed chunks took out of older parts, by part."""
    found, dataset_id = defaultdict[str, set[bytes]](set), site.lease.dataset_id
    for chunk in (*site.ledger.landed_chunks(dataset_id), *site.ledger.emptied_chunks(dataset_id)):
        if _has_manifest(site, chunk):
            key = restored(site, site.ledger.run(chunk.run_id)).spec.key
            manifest = read_chunk_manifest(site.folder.intents / f"{chunk.id}.arrow")
            for part, keys in replaced_keys(manifest, key).items():
                found[part] |= keys
    return found


def _newest(site: Site, places: dict[str, int]) -> dict[str, int]:
    """Return, of the requests whose rows are in the dataset, the place of the chunk that sent each last."""
    newest = dict[str, int]()
    for _, batch in Dataset(site.folder.data, pa.schema([]), [], []).rows(["_custom_id"]):
        for name in batch.column("_custom_id").drop_null().to_pylist():
            chunk_id, _, row_id = name.partition("-")
            newest[row_id] = max(places.get(chunk_id, -1), newest.get(row_id, -1))
    return newest


def _answered(site: Site, chunk: Chunk) -> set[str] | None:
    """Return the rows that a chunk's results have answers for; None for a chunk that was never accepted, or is held."""
    session = _restored(site, chunk)
    if chunk.state == UNCLEAR:
        try:
            found = adopt(session, chunk)
        except HeldError as error:
            hold(site.ledger, site.lease, site.folder, chunk.id)
            session.say(str(error))
            return None
        if found is None:
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
    landed = set[str]()
    if recovery.row_ids:
        rows = read_plan(session.folder.run_folder(session.run_id), CLAIMED)
        row_ids: list[str] = rows["_row_id"].to_pylist()
        states = dict[str, dict[str, Any]]()
        for chunk_id, claimed in recovery.claims.items():
            if at := [i for i, row_id in enumerate(row_ids) if row_id in claimed]:
                picked = rows.take(pa.array(at, pa.int64())).combine_chunks()
                write_manifest(session.folder.intents / f"{chunk_id}.arrow", _with_priors(picked, states))
                collect_and_land(session.at(chunk := session.ledger.chunk(chunk_id)), chunk)
                landed |= {row_ids[i] for i in at}
                states |= _states(session, chunk_id)
    for chunk_id in recovery.claims:
        if (chunk := session.ledger.chunk(chunk_id)).state != LANDED:
            session.ledger.give_up(session.lease, chunk_id, _spent(session, chunk))
    _balance(session, list(recovery.claims))
    return len(landed)


def _spent(session: Session, chunk: Chunk) -> int | None:
    """Return what the answers of a chunk cost that was never settled; None where nobody can tell, or it was."""
    rates = _restored(session.site, chunk).taken.rates
    if chunk.state != SUBMITTED or chunk.batch_id is None or rates is None:
        return None
    here = session.at(chunk)
    paths = downloaded(here, chunk, look_once(here, chunk.batch_id))
    answers = list(chain.from_iterable(here.provider.answers(path) for path in paths))
    if not paths or not all(answer.readable for answer in answers):
        return None
    costs = dict[str, int]()
    for answer in answers:  # a line may come twice
        costs[answer.custom_id] = max(rates.cost(answer.usage), costs.get(answer.custom_id, 0))
    return sum(costs.values())


def _balance(session: Session, chunk_ids: list[str]) -> None:
    """Let the money add up again: what the rows do not hold, and nothing superseded, was paid for no row.

    Where only some files were lost, the rows that are left hold some of what the recovered chunks cost.
    """
    assert session.table is not None  # noqa: S101 - a run that plans has one
    costs = (batch.column("_cost_usd").drop_null() for _, batch in session.table.dataset.rows(["_cost_usd"]))
    rows = sum(int(cost * PICO) for column in costs for cost in column.to_pylist())
    if chunk_ids:
        session.ledger.balance(session.lease, chunk_ids[-1], rows)


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
