"""Batches that an earlier run gave up waiting for: looked at once, and landed if they ended.

A look is quick: what cannot be looked at now (the provider does not answer, the key is another
account's) is told, and the run goes on without it.
"""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError
from batchata_tasks.common.files import write_json
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import plan_columns, read_chunk_manifest, write_manifest
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.download import NoResultsError, cost_of_answers, downloaded
from batchata_tasks.execution.land import collect_and_land
from batchata_tasks.execution.look import listed, look_once
from batchata_tasks.execution.misnamed import NotShownError
from batchata_tasks.execution.overdue import (
    given_up_record,
    held_rows,
    lacks_results,
    note_why,
    remedy,
)
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.ledger import ChunkKind, ChunkState, RunPhase
from batchata_tasks.pipeline.start import rows_in_flight

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.providers import BatchLook

_ASKED = 2  # batches of a provider that answers with errors: one may trouble it alone
_NOT_NOW = (TransientError, TerminalError, CredentialsError)


def find_lost_rows(held: HeldDataset) -> None:
    """Hand overdue chunks that ended, and whose manifests are lost, to the recovery of files."""
    for chunk, _, _ in _ended(held, with_rows=False):
        held.ledger.set_submitted(held.lease, chunk.id)


def land_overdue(held: HeldDataset) -> None:
    """Look once at each overdue batch of the dataset; land those that have ended."""
    for chunk, context, look in _ended(held, with_rows=True):
        try:
            _land(held, context, chunk, look)
        except _NOT_NOW as error:
            if isinstance(error, NoResultsError):
                note_why(held.folder, chunk, str(error), lacks_results=True)
            rows = held_rows(chunk)
            held.progress.note(f"{error} {rows[0].upper()}{rows[1:]} {remedy(chunk)}.")


def _ended(held: HeldDataset, *, with_rows: bool) -> list[tuple[Chunk, BatchContext, BatchLook]]:
    """Return the overdue chunks whose batches have ended; tell of the others.

    Of a provider that does not answer, or with errors again, nothing more is asked.
    """
    ended = list[tuple["Chunk", "BatchContext", "BatchLook"]]()
    errors = Counter[str]()  # in a row, by provider
    for chunk in held.ledger.dataset_chunks(held.lease.dataset_id, (ChunkState.OVERDUE,)):
        is_silent = errors[chunk.provider] >= _ASKED
        if is_kept(held.folder.manifest(chunk.id)) is not with_rows or is_silent:
            continue
        try:
            run = restored_context(held, held.ledger.run(chunk.run_id))
            context = run.for_chunk(chunk)
            look = _look(context, chunk)
            chunk = held.ledger.chunk(chunk.id)  # noqa: PLW2901 - the look may tell another id
        except (NotShownError, TerminalError) as error:  # of this batch alone
            held.progress.note(
                f"{error} Batch {chunk.batch_id}: {held_rows(chunk)} {remedy(chunk)}."
            )
            continue
        except _NOT_NOW as error:
            held.progress.note(f"{error} Batch {chunk.batch_id}: {held_rows(chunk)}")
            answered = isinstance(error, TransientError) and error.status is not None
            errors[chunk.provider] += 1 if answered else _ASKED
            continue
        errors[chunk.provider] = 0
        if look.ended:
            ended.append((chunk, context, look))
        else:
            held.progress.note(
                f"batch {chunk.batch_id} of an earlier run has not ended yet ({look.status!r:.60})"
                f": {held_rows(chunk)} {remedy(chunk)}."
            )
    return ended


def _look(context: BatchContext, chunk: Chunk) -> BatchLook:
    """Return the status of a batch, with the patience of one call, by itself or in a list.

    What was set aside may have been paid for: one that is gone stays set aside.

    Raises:
        TransientError, TerminalError: the provider does not tell, or has it no more.
        CredentialsError: it does not know the batch under the present key and settings.
    """
    batch_id, patience = chunk.batch_id or "", context.settings.patience
    try:
        look = look_once(context, batch_id, patience)
    except TransientError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        # what a list shows, or leaves open, is not waited for
        look = listed(context, batch_id, error)
    if look is None or look.gone:
        message = f"batch {batch_id} is not at the provider any more."
        raise NotShownError(message)
    context.ledger.record_look(look.batch_id, look.status, look.done, ended=look.ended)
    return look


def _land(held: HeldDataset, context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Land the rows of an overdue chunk for which there is no newer answer.

    Newer ones can only be there if the batch was abandoned meanwhile, and taken back. What the
    other rows cost is overhead then, like any line of results that no row takes.
    """
    key, path = context.run.spec.key, held.folder.manifest(chunk.id)
    rows = read_chunk_manifest(path)
    digests = [key_digest(row_key) for row_key in keys_of(rows, key)]
    if set(digests) & _planned(held, chunk, key):
        held.progress.note(
            f"batch {chunk.batch_id} has ended; rows of it are sent again by the run that goes on "
            "now: the run after it lands the others."
        )
        return
    newer = set(digests) & _answered_since(held, chunk, key)
    kept = [at for at, digest in enumerate(digests) if digest not in newer]
    held.progress.note(
        f"batch {chunk.batch_id} of an earlier run has ended: {_landing(held, chunk)}."
    )
    if not kept:
        _settle(held, context, chunk, look)
        return
    if newer:
        write_manifest(path, rows.take(pa.array(kept, pa.int64())).combine_chunks())
    collect_and_land(context, chunk)


def _landing(held: HeldDataset, chunk: Chunk) -> str:
    """Say what is done about a batch that has ended: nobody knows yet whether it has results."""
    return (
        "looking for its results once more" if lacks_results(held.folder, chunk) else "landing it"
    )


def _planned(held: HeldDataset, chunk: Chunk, key: list[str]) -> set[bytes]:
    """Return the keys (digests) that a run which is carried on has still to send."""
    run = held.ledger.open_run(held.lease.dataset_id)
    if run is None or run.state != RunPhase.OPEN or run.id == chunk.run_id:
        return set()
    folder, planned = held.folder.run_folder(run.id), set[bytes]()
    for other in held.ledger.chunks(run.id, (ChunkState.PLANNED,)):
        if other.kind == ChunkKind.BATCH:
            for block in plan_columns(folder, other, key):
                values = zip(*(block[name] for name in key), strict=True)
                planned |= {key_digest(canonical(list(one))) for one in values}
    return planned


def _answered_since(held: HeldDataset, chunk: Chunk, key: list[str]) -> set[bytes]:
    """Return the keys (digests) of rows that later runs landed, or sent and did not land yet."""
    later = held.ledger.later_runs(chunk.run_id)
    dataset_id = held.lease.dataset_id
    sent = rows_in_flight(held.folder, held.ledger, dataset_id, chunk.run_id, key)
    newer = {row.key for row in sent}
    dataset = Dataset(held.folder.data, pa.schema([]), [], [])
    for _, batch in dataset.rows([*key, "_run_id"]):
        pairs = zip(keys_of(batch, key), batch.column("_run_id").to_pylist(), strict=True)
        newer |= {key_digest(row_key) for row_key, run_id in pairs if run_id in later}
    return newer


def _settle(held: HeldDataset, context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Settle a chunk of which no row is wanted any more: what it cost was paid for no row."""
    rates = context.route.rates
    _, paths = downloaded(context, chunk, look)
    cost = None if rates is None else cost_of_answers(context, chunk, paths, rates)
    spent = chunk.bound if cost is None else cost
    record = given_up_record(context.ledger.id, context.lease.fence, chunk, spent or 0)
    write_json(held.folder.commit(chunk.id), {**record, "state": "closed"})
    held.ledger.give_up(held.lease, chunk.id, spent or 0)
