"""What was accepted and billed, to compare a client's ledger with.

Nothing here identifies a caller: there are no keys, headers or texts, only hashes of request
bodies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from batchata_tasks.emulator.core.state import Direct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.state import Shared, StoredFile

_EXAMPLES = 10


def ledger(
    shared: Shared, batches: dict[str, list[Batch]], files: list[StoredFile], *, detail: bool
) -> JSON:
    """Return each provider's sums and batches, and every create call that arrived."""
    books: JSON = {name: _book(stored, detail=detail) for name, stored in batches.items()}
    for name, book in books.items():
        book["direct"] = asdict(shared.direct.get(name, Direct()))
    books["openai"]["files"] = [_file_line(file) for file in files if not file.foreign]
    return {**books, "creates": [asdict(seen) for seen in shared.creates]}


def _book(stored: list[Batch], *, detail: bool) -> JSON:
    batches = [batch for batch in stored if not batch.foreign]
    accepted = [batch for batch in batches if batch.accepted]
    book: JSON = {
        "batches_accepted": len(accepted),
        "batches_refused": len(batches) - len(accepted),
        "requests_accepted": sum(batch.size for batch in accepted),
        "requests_billed": sum(batch.billed for batch in accepted),
        "input_tokens_billed": sum(sum(batch.billed_input) for batch in accepted),
        "output_tokens_billed": sum(sum(batch.billed_output) for batch in accepted),
        **_cached(accepted),
        "accepted_twice": _more_than_once(_times_accepted(accepted)),
        "billed_twice": _more_than_once(_times_billed(accepted)),
        "batches": [_batch_line(batch) for batch in batches],
        "foreign": [_batch_line(batch) for batch in stored if batch.foreign],
    }
    if detail:
        book["contents"] = _contents(accepted)
    return book


def _cached(batches: Iterable[Batch]) -> JSON:
    """Add up the billed input that went through a cache; `input_tokens_billed` includes it."""
    used = [cached for batch in batches for cached in batch.billed_cache.values()]
    return {
        "cache_read_tokens_billed": sum(cached.read for cached in used),
        "cache_write_5m_tokens_billed": sum(cached.written_5m for cached in used),
        "cache_write_1h_tokens_billed": sum(cached.written_1h for cached in used),
    }


def _more_than_once(times: Counter[bytes]) -> JSON:
    twice = [content.hex() for content, number in times.items() if number > 1]
    return {"number": len(twice), "examples": twice[:_EXAMPLES]}


def _times_accepted(batches: Iterable[Batch]) -> Counter[bytes]:
    """Count in how many batches each content was accepted."""
    times: Counter[bytes] = Counter()
    for batch in batches:
        times.update(set(batch.requests.hashes))
    return times


def _times_billed(batches: Iterable[Batch]) -> Counter[bytes]:
    """Count how often each content was billed, including repeats in one batch."""
    times: Counter[bytes] = Counter()
    for batch in batches:
        billed = zip(batch.requests.hashes, batch.billed_output, strict=True)
        times.update(content for content, tokens in billed if tokens)
    return times


def _file_line(file: StoredFile) -> JSON:
    return {
        "id": file.id,
        "account": file.account,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": len(file.content),
    }


def _batch_line(batch: Batch) -> JSON:
    return {
        "id": batch.id,
        "account": batch.account,
        "status": batch.status,
        "accepted": batch.accepted,
        "requests": batch.size,
        "billed": batch.billed,
        "created_at": batch.created_at,
        "ended_at": batch.ended_at,
        "ending": batch.ending,
        "deleted": batch.deleted,
    }


def _contents(batches: Iterable[Batch]) -> JSON:
    contents: dict[str, JSON] = {}
    for batch in batches:
        for index, content in enumerate(batch.requests.hashes):
            entry = contents.setdefault(
                content.hex(),
                {
                    "custom_ids": [],
                    "batches": [],
                    "accepted": 0,
                    "billed": 0,
                    "input_tokens": 0,
                    "output_tokens": 0,
                    "usage": [],
                },
            )
            entry["custom_ids"].append(batch.requests.custom_ids[index])
            entry["batches"].append(batch.id)
            entry["accepted"] += 1
            entry["billed"] += batch.billed_output[index] > 0
            entry["input_tokens"] += batch.billed_input[index]
            entry["output_tokens"] += batch.billed_output[index]
            entry["usage"].append((batch.billed_input[index], batch.billed_output[index]))
    return contents
