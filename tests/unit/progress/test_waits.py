"""What a log says while batches are waited for: a line now and then, not one per look."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.display import LiveProgress
from batchata_tasks.progress.listener import LineProgress, waiting_words
from batchata_tasks.progress.snapshot import BatchView

if TYPE_CHECKING:
    from tests.support.table import Table

NOW = 1_700_000_000.0


def view(
    batch_id: str, minutes: float, status: str | None = None, done: int | None = 0
) -> BatchView:
    """Return a batch of 1,000 requests that was sent so many minutes ago."""
    sent_at = NOW - 60 * minutes
    return BatchView("c", 1, batch_id, "openai", "m", 1000, "submitted", status, done, sent_at)


@pytest.mark.in_turn
def test_a_log_says_what_is_waited_for(table: Table) -> None:
    """It names how many batches, the oldest, its age, and what the provider says of it."""
    table.emulator.control.progress("seconds", 0.8)
    notes, quiet = list[str](), list[str]()
    receipt = enrich(
        table.spec(items_per_batch=10), progress=LineProgress(notes.append, waits_every=0.0)
    )
    lines = [note for note in notes if note.startswith("waiting for 2 batches; the oldest, ")]
    batch_ids = {row["_batch_id"] for row in table.rows()}
    assert any(batch in lines[-1] for batch in batch_ids)
    said = "in_progress|(finalizing|ended), 10 of 10 done|in_progress, [0-9]+ of 10 done"
    assert re.search(f", has been at the provider for 0 min: ({said})$", lines[-1])
    assert receipt.exit_code == 0
    table.values[0]["text"] = "another text"
    table.write()
    table.emulator.control.progress("seconds", 0.4)
    enrich(table.spec(), progress=LineProgress(quiet.append))
    assert not any(note.startswith("waiting for") for note in quiet)


def test_the_words_of_a_wait() -> None:
    """What the provider does not tell is left out, and nothing of it moves the cursor."""
    many = [view("batch_2", 5), view("batch_1", 130, "in_progress", 300)]
    assert waiting_words(many, NOW) == (
        "waiting for 2 batches; the oldest, batch_1, has been at the provider for 2 h 10 min: "
        "in_progress, 300 of 1,000 done"
    )
    assert waiting_words([view("batch_1", 9, None, None)], NOW) == (
        "waiting for batch batch_1, which has been at the provider for 9 min"
    )
    lines = list[str]()
    LineProgress(lines.append, waits_every=0.0).waiting(lambda: [view("\x1b[2J", 1)])
    assert "\x1b" not in lines[0]
    LineProgress(lines.append, waits_every=0.0).waiting(list)
    assert len(lines) == 1


def test_a_display_is_not_disturbed() -> None:
    """What is drawn shows open batches anyway: no line is written above it."""
    stream = StringIO()
    with LiveProgress(Console(file=stream, force_terminal=True)) as display:
        display.waiting(lambda: [view("batch_1", 9)])
    assert "waiting" not in stream.getvalue()
