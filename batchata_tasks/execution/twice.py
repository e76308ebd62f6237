"""Creates that were accepted twice: noticed in lists of batches, told, and counted as spent.

A proxy or gateway may repeat a POST by itself. Then the provider has two batches of one chunk and
bills both, while this side was told of one. A list shows the second one where batches carry names:
by the chunk's token, or by the file that was uploaded for that chunk alone. Each stands in a file
of the dataset's folder first and then in the ledger, so that a rebuilt ledger counts it, too.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import InputError, TerminalError, TransientError
from batchata_tasks.common.files import make_folder, read_json, write_json
from batchata_tasks.execution.candidates import oldest
from batchata_tasks.ledger import ChunkState, SecondBatch, name_of_second
from batchata_tasks.providers.pace import within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk, Lease, Ledger
    from batchata_tasks.providers import Adapter, BatchLook

_MOST_LISTED = 1000  # batches since a run's first one
_LONGEST = 20.0  # seconds for that list
# what servers answer that have no list
_NO_LIST = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


def notice(context: SubmitContext, looks: Sequence[BatchLook], run_id: str) -> None:
    """Count and tell the second batches of the dataset's chunks among some that are listed.

    One that was made by repeating a request lets its chunk's run send nothing more: what repeats
    one, repeats all. `run_id` is the run that looks.

    Raises:
        TerminalError: one is of a chunk that a person freed, and that was not sent again yet.
    """
    ledger = context.ledger
    named = [look for look in looks if look.token or look.input_file_id]
    known = ledger.known_batches(look.batch_id for look in named)
    strays = [look for look in named if look.batch_id not in known and not ran_nothing(look)]
    if not strays:
        return
    files = {look.input_file_id for look in strays if look.token is None and look.input_file_id}
    by_file = ledger.chunks_of_files(files) if files else {}
    names = [look.token or by_file.get(look.input_file_id or "", "") for look in strays]
    chunks = {chunk.id: chunk for chunk in ledger.existing_chunks(set(filter(None, names)))}
    listed = {look.batch_id for look in looks}
    for look, name in zip(strays, names, strict=True):
        chunk = chunks.get(name)
        if chunk is None or chunk.dataset_id != context.lease.dataset_id:
            continue  # another dataset's are its own runs' to notice
        if chunk.state == ChunkState.DROPPED and ledger.freed(chunk.id) is not None:
            raise _freed_too_early(chunk, look)
        if look.token is None and look.requests not in (None, chunk.rows):
            continue
        # each further list shows it, too
        is_told = _path(context.folder, chunk, look).exists()
        if is_beside(look, chunk, listed) and not is_told:
            facts = count(ledger, context.lease, context.folder, chunk, look, noticed_by=run_id)
            if facts is not None:
                stops = facts["repeated"] and chunk.run_id == run_id
                context.log(f"{_sentence(facts)}.{' Nothing more is sent.' if stops else ''}")


def _freed_too_early(chunk: Chunk, look: BatchLook) -> TerminalError:
    return TerminalError(
        f"batch {look.batch_id} is of chunk {chunk.id}, which was freed (by --resend): it was "
        f"accepted after all, so nothing is sent. Run `batchata reconcile --adopt {chunk.id}="
        f"{look.batch_id}`, then the same command."
    )


def ran_nothing(look: BatchLook) -> bool:
    """Whether a batch cost nothing: it was refused as a whole, or ended before anything ran."""
    return look.refused or look.no_room or (look.ended and look.done == 0)


def is_beside(look: BatchLook, chunk: Chunk, listed: Collection[str]) -> bool:
    """Whether a batch that carries a chunk's name is another one than the chunk's own.

    A gateway may list that one alone, under another id than the create was told: a list shows two
    batches only if it shows both.
    """
    return chunk.batch_id != look.batch_id and chunk.batch_id in listed


def count(
    ledger: Ledger,
    lease: Lease,
    folder: DatasetFolder,
    chunk: Chunk,
    look: BatchLook,
    *,
    noticed_by: str | None = None,
) -> dict[str, Any] | None:
    """Count a second batch as spent; return the facts, None if it was counted before."""
    path = _path(folder, chunk, look)
    if (facts := read_json(path)) is None:
        facts = {
            "format": 1,
            **asdict(ledger.second_batch(chunk, look.batch_id)),
            "beside": chunk.batch_id,
            "repeated": _is_repeated(ledger, chunk, look),
            "noticed_by": noticed_by,
        }
        make_folder(folder.twice)
        write_json(path, facts)
    is_new = ledger.count_second(lease, _second_of(facts), stops=bool(facts["repeated"]))
    return facts if is_new else None


def recount(ledger: Ledger, lease: Lease, folder: DatasetFolder) -> None:
    """Count what stands in the folder: a process may have died, or the ledger be an older one."""
    for facts in _facts(folder):
        ledger.count_second(lease, _second_of(facts))


def told(folder: DatasetFolder, run_id: str) -> list[str]:
    """Return a sentence for each second batch that a run sent, or noticed."""
    return [
        _sentence(facts)
        for facts in _facts(folder)
        if run_id in (facts["run_id"], facts["noticed_by"])
    ]


def look_back(run: RunContext) -> None:
    """List the batches since a run's first one, once: those of its last creates are not seen yet.

    Nothing depends on it: that a list cannot be had is told.
    """
    first = dict[str, Any]()  # by provider: the oldest batch comes first
    for batch in run.ledger.batches_of(run.run_id):
        first.setdefault(batch.provider, batch)
    for batch in first.values():
        chunk = run.ledger.chunk(batch.chunk_id)
        since = oldest(run.ledger.intent(chunk.id))
        try:
            context = run.for_chunk(chunk)
            looks = _listed(context.provider, since, min(run.settings.patience, _LONGEST))
        except (TransientError, TerminalError, InputError) as error:
            if getattr(error, "status", None) not in _NO_LIST:
                run.log(
                    f"{error} So nobody looked whether the provider accepted a batch twice; "
                    "`batchata reconcile` does."
                )
            continue
        notice(context, looks, run.run_id)


def _path(folder: DatasetFolder, chunk: Chunk, look: BatchLook) -> Path:
    return folder.twice / f"{name_of_second(chunk.id, look.batch_id)}.json"


def _listed(provider: Adapter, since: float, longest: float) -> list[BatchLook]:
    looks, until = list["BatchLook"](), time.monotonic() + longest
    if not provider.lists_tokens:
        return looks
    with within(longest):
        for look in provider.recent(since):
            looks.append(look)
            if len(looks) >= _MOST_LISTED or time.monotonic() > until:
                break
    return looks


def _is_repeated(ledger: Ledger, chunk: Chunk, look: BatchLook) -> bool:
    """Whether the create of a chunk's own batch made another one, and not one that was lost before.

    Some chunks are sent again, since a list did not show their first batch, or a person said so.
    """
    if chunk.resends or chunk.batch_id is None:
        return False
    mark = ledger.intent(chunk.id).mark
    return mark is None or look.created_at is None or look.created_at * 1e6 >= mark


def _sentence(facts: dict[str, Any]) -> str:
    batch, beside, chunk = (facts[name] for name in ("batch_id", "beside", "chunk_id"))
    if facts["repeated"]:
        problem = (
            f"batch {batch:.100} holds the requests of chunk {chunk} once more, beside batch "
            f"{beside:.100}: something between here and the provider (a proxy, a gateway) repeats "
            "requests"
        )
    else:
        again = "" if beside is None else f" and sent again, as batch {beside:.100}"
        problem = (
            f"batch {batch:.100} was accepted after all, of chunk {chunk}, which was taken for "
            f"never accepted{again}"
        )
    return (
        f"{problem}. Both are billed, and the most that it can cost counts as spent; "
        f"`batchata reconcile --cancel {batch:.100}` stops it if it has not ended"
    )


def _facts(folder: DatasetFolder) -> Iterable[dict[str, Any]]:
    records = map(read_json, sorted(folder.twice.glob("*.json")))
    return [record for record in records if record is not None]


def _second_of(facts: dict[str, Any]) -> SecondBatch:
    return SecondBatch(**{name: facts[name] for name in SecondBatch.__slots__})
