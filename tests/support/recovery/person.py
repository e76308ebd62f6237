"""A person who decides what became of held chunks, by the provider's own books."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.launcher import Run
    from tests.support.recovery.place import Place


def held_rows(run: Run) -> int:
    """Return how many rows a run that has ended says are held."""
    try:
        receipt: dict[str, Any] = json.loads(run.text().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return 0
    return int(receipt.get("held_rows") or 0)


def decide(place: Place) -> list[str]:
    """Adopt the batches of held chunks, and free the chunks that have none.

    Returns what was decided. The books tell of which chunk a batch is: its token is in the
    custom_ids.
    """
    contents = place.book()["contents"].values()
    batches = {
        custom_id.partition("-")[0]: batch_id
        for content in contents
        for custom_id, batch_id in zip(content["custom_ids"], content["batches"], strict=True)
    }
    done: list[str] = []
    assert place.batchata("reconcile").wait() == 0  # which may find what became of them
    while held := place.ask_ledger(
        "SELECT c.id FROM chunks c WHERE c.state = 'held' AND c.run_id IN {runs} LIMIT 1"
    ):
        ((chunk,),) = held
        batch_id = batches.get(chunk)
        words = ("--adopt", f"{chunk}={batch_id}") if batch_id else ("--resend", str(chunk))
        run = place.batchata("reconcile", *words)
        assert run.wait() == 0, run.text()
        done.append(words[0])
    return done
