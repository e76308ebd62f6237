"""Creates that got no clear answer: what is kept of it, and what a person is told to do.

The answer stands in the file of the intent, so that it is told in later runs, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize, sentence
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.execution.overdue import note_intent
from batchata_tasks.providers.keys import masked

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.ledger import Chunk

ANSWER = "unclear_answer"
_CHARS = 300


def note_create_error(folder: DatasetFolder, chunk_id: str, error: str) -> None:
    """Keep what a create was answered, or why no answer came."""
    note_intent(folder, chunk_id, **{ANSWER: masked(error)[:_CHARS]})


def create_error(folder: DatasetFolder, chunk_id: str) -> str | None:
    """Return what a create in doubt was answered; None if its process ended before it noted it."""
    answer = (kept_json(folder.intent(chunk_id)) or {}).get(ANSWER)
    return answer if isinstance(answer, str) else None


def answered(error: str | None) -> str:
    """Say what a create in doubt was answered, as a sentence."""
    if error is None:
        return "The process that sent it ended before an answer came."
    return f"Its create ended so: {sentence(error)}"


def decide(chunk_id: str) -> str:
    """Say how a person decides what became of a held chunk."""
    return (
        "look for it in the provider's console, then "
        f"`batchata reconcile --adopt {chunk_id}=BATCH` if it is there, or "
        f"`batchata reconcile --resend {chunk_id}` if it is not"
    )


def held_chunk(folder: DatasetFolder, chunk: Chunk) -> str:
    """Say that the rows of a chunk are held, why, and what to do."""
    rows = pluralize(chunk.rows, "row is", "rows are")
    return (
        f"{rows} held (chunk {chunk.id}, {chunk.provider}), since nobody can tell whether their "
        f"batch was accepted. {answered(create_error(folder, chunk.id))} To decide, "
        f"{decide(chunk.id)}"
    )
