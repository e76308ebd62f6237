"""Forgetting rows: they, and all texts of them, leave a dataset's folder. The money stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.key_words import key_values, typed_key
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.changes import note_changes
from batchata_tasks.execution.forget import chunks_with, drop_texts, is_planned, take_out
from batchata_tasks.operations.held_by_spec import held_by_spec
from batchata_tasks.operations.held_folder import held_folder
from batchata_tasks.planning.job_store import drop_jobs
from batchata_tasks.spec.jobs import JOB_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.key_words import KeyWords
    from batchata_tasks.operations.held_folder import HeldFolder
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec


_COPIES = (
    "a folder that was copied with its `_batchata` is the same dataset: the next run or command "
    "that changes it takes the row out of it, too"
)
_JOB_RETURNS = "the job is sent again if a program adds it again: leave it out there"


@dataclass(frozen=True)
class Forgotten:
    """What was taken out: rows of the dataset, and files that were written anew without the key.

    `returning` says what would bring the row back.
    """

    key: str
    rows: int
    files: int
    returning: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"key": self.key, "rows": self.rows, "files": self.files}

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        elsewhere = (
            "the provider keeps requests and results for about a month, unless they were deleted "
            f"there (`delete_results`); {self.returning}"
        )
        return [
            ("Forgotten", f"{self.key}: {pluralize(self.rows, 'row')} of the dataset"),
            ("Texts", f"out of {pluralize(self.files, 'file')} of requests, answers and keys"),
            ("Kept", "what it cost, in ledger and costs"),
            ("Elsewhere", elsewhere),
            ("Copies", _COPIES),
        ]


def forget(
    spec: EnrichmentSpec,
    words: Sequence[str],
    settings: Settings,
    progress: Progress | None = None,
) -> Forgotten:
    """Take the row of a key and its texts out of a spec's dataset; it may be given again.

    `words` are the value of the key column, or `column=value` of each.

    Raises:
        SpecError: no row has the key, or a batch or an unfinished run still has it.
        BatchataError: see `held_by_spec`.
    """
    with held_by_spec(spec, settings, progress, "forgetting a row of") as dataset:
        return _forgotten(dataset, words)


def forget_in(
    output: str,
    words_of: Callable[[list[str]], KeyWords],
    settings: Settings,
    progress: Progress | None = None,
) -> Forgotten:
    """Take the row of a key and its texts out of the dataset in a folder, whatever fills it.

    `words_of` returns what is written of the key, given the names of its columns.

    Raises:
        SpecError: as `forget`.
        BatchataError: see `held_folder`.
    """
    with held_folder(output, settings, progress, "forgetting a row of") as dataset:
        return _forgotten(dataset, words_of(dataset.dataset.key))


def _forgotten(dataset: HeldFolder, words: KeyWords) -> Forgotten:
    table, held = dataset.dataset, dataset.held
    key = typed_key(table.key, words, table.schema)
    values = key_values(key)
    named = ", ".join(f"{name}={value!r}" for name, value in values.items())
    digest = key_digest(keys_of(key, table.key)[0])
    chunks = list(chunks_with(held, table.key, digest))
    _require_free(dataset, named, [chunk_id for chunk_id, _ in chunks])
    dataset.begin()
    was_known = bool(chunks) or is_planned(held, table.key, digest)
    # a command that died may be finished by that: of this row, or of others in the same manifests
    chunks = list(chunks_with(held, table.key, digest))
    rows = take_out(held, table, {digest}, list(table.parts()))
    # a job that was never sent is in no row
    files = drop_jobs(held.folder, values[JOB_ID]) if table.key == [JOB_ID] else 0
    if not rows and not was_known and not files:  # nothing was changed
        show = f"`batchata show {dataset.word}`"
        message = f"--key: the dataset has no row with {named}; {show} prints rows that there are."
        raise SpecError(message)
    files += sum(drop_texts(held, chunk_id, places) for chunk_id, places in chunks)
    note_changes(held)
    # what dead runs left, and the last error, may quote the row
    held.folder.drop_unfinished()
    held.folder.last_error.unlink(missing_ok=True)
    of_jobs = table.key == [JOB_ID]
    return Forgotten(named, rows, files, _JOB_RETURNS if of_jobs else dataset.returning)


def _require_free(dataset: HeldFolder, named: str, chunks: list[str]) -> None:
    """Refuse a row that is on its way, or may be in the plan of a run that stopped for good.

    The plan of any other run is dropped: what it has not sent is planned anew.
    """
    dataset.require_no_unfinished_run(f"may still have {named}", but=(None,))
    if any(part_of_chunk(chunk_id) in dataset.unfinished for chunk_id in chunks):
        message = (
            f"--key: {named} is in a batch that has not landed; let {dataset.runner} land it "
            "first, or decide on it as `batchata reconcile` says."
        )
        raise SpecError(message)
