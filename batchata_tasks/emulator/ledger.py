"""What was accepted and billed, to check a client's books against.

Nothing here identifies a caller: no keys, no headers, no texts, only hashes of request bodies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from batchata_tasks.emulator.state import Direct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.batches import Batch
    from batchata_tasks.emulator.schemas import JSON
    from batchata_tasks.emulator.state import Shared

_EXAMPLES = 10


def ledger(shared: Shared, batches: dict[str, list[Batch]], *, detail: bool) -> JSON:
    """Return the books of each provider and every create call that was seen."""
    books: JSON = {name: _book(found, detail=detail) for name, found in batches.items()}
    for name, book in books.items():
        book["direct"] = asdict(shared.direct.get(name, Direct()))
    return {**books, "creates": [asdict(seen) for seen in shared.creates]}


def _book(batches: list[Batch], *, detail: bool) -> JSON:
    accepted = [batch for batch in batches if batch.accepted]
    times = _times_accepted(accepted)
    twice = [content.hex() for content, number in times.items() if number > 1]
    book: JSON = {
        "batches_accepted": len(accepted),
        "batches_refused": len(batches) - len(accepted),
        "requests_accepted": sum(batch.size for batch in accepted),
        "requests_billed": sum(batch.billed for batch in accepted),
        "input_tokens_billed": sum(sum(batch.billed_input) for batch in accepted),
        "output_tokens_billed": sum(sum(batch.billed_output) for batch in accepted),
        "accepted_twice": {"number": len(twice), "examples": twice[:_EXAMPLES]},
        "batches": [_batch_line(batch) for batch in batches],
    }
    if detail:
        book["contents"] = _contents(accepted)
    return book


def _times_accepted(batches: Iterable[Batch]) -> Counter[bytes]:
    """Count in how many batches each content was accepted."""
    times: Counter[bytes] = Counter()
    for batch in batches:
        times.update(set(batch.requests.hashes))
    return times


def _batch_line(batch: Batch) -> JSON:
    return {
        "id": batch.id,
        "accepted": batch.accepted,
        "requests": batch.size,
        "billed": batch.billed,
        "created_at": batch.created_at,
        "ended_at": batch.ended_at,
        "ending": batch.ending,
        "deleted": batch.deleted,
    }


def _contents(batches: Iterable[Batch]) -> JSON:
    found: dict[str, JSON] = {}
    for batch in batches:
        for index, content in enumerate(batch.requests.hashes):
            entry = found.setdefault(
                content.hex(),
                {
                    "custom_ids": [],
                    "batches": [],
                    "accepted": 0,
                    "billed": 0,
                    "input_tokens": 0,
                    "output_tokens": 0,
                },
            )
            entry["custom_ids"].append(batch.requests.custom_ids[index])
            entry["batches"].append(batch.id)
            entry["accepted"] += 1
            entry["billed"] += batch.billed_output[index] > 0
            entry["input_tokens"] += batch.billed_input[index]
            entry["output_tokens"] += batch.billed_output[index]
    return found
