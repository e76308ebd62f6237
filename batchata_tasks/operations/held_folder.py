"""Holding a dataset for a command that changes it, and sends nothing.

Its folder tells all that is needed: which columns are its key, and which types they have. So it
does not matter what fills it: a spec, a Batch, or frames.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.dataset.columns import META_FIELDS, MISSING_SINCE, dataset_schema
from batchata_tasks.dataset.declared import FILLED_BY, Column, Role, require_declared
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.execution.changes import agree_on_changes
from batchata_tasks.execution.held_dataset import find_dataset, hold_dataset, owned_dataset
from batchata_tasks.execution.land import emptying
from batchata_tasks.execution.missing import finish_deletion
from batchata_tasks.execution.renaming import finish_renaming
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.pipeline.lost import lost_chunks

if TYPE_CHECKING:
    from collections.abc import Container, Generator

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.declared import DeclaredSchema
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.schema.answers import AnswerSchemas


@dataclass(frozen=True)
class HeldFolder:
    """A dataset that no run can change meanwhile.

    `declared` is what it declares from now on, with the columns of the response model that its
    answers are to be read by. `unfinished` are the parts that a landing which died writes again:
    they are not to be changed.
    """

    dataset: Dataset
    held: HeldDataset
    declared: DeclaredSchema
    unfinished: frozenset[str]

    # for people: who does what a command waits for, how else an unfinished run is ended, what
    # brings a row back
    runner: ClassVar[str] = f"another run of {FILLED_BY}"
    ending: ClassVar[str] = ""
    returning: ClassVar[str] = (
        "the row is sent again if the frame, or the source of the spec, still has it: take it out "
        "there"
    )

    @property
    def word(self) -> str:
        """How commands that people are told name the dataset."""
        return self.held.folder.word

    def begin(self) -> None:
        """Prepare the dataset for being changed; no row changes by that.

        Raises:
            LeaseError: another process took the dataset over.
        """
        self.held.ledger.check_lease(self.held.lease)  # right before files change
        self.dataset.tidy()
        finish_deletion(self.held, self.dataset)
        agree_on_changes(self.held, self.dataset)

    def adopt_columns(self) -> None:
        """Give all rows the columns of the response model of today, as a run does."""
        self.declared.write(self.held.folder)  # before any part is rewritten
        self.dataset.conform(self.unfinished)

    def end_stopped_run(self) -> None:
        """End a run that stopped until somebody looks at it, so that the next one plans anew."""
        held = self.held
        run = held.ledger.open_run(held.lease.dataset_id)
        if run is not None:
            held.ledger.close_run(held.lease, run.id, run.result or "abandoned")
            held.folder.drop_run_folder(run.id)

    def require_no_unfinished_run(
        self, why: str, but: Container[str | None] = (), fetched_by: str | None = None
    ) -> None:
        """Refuse a dataset of which a run is unfinished, or files are gone that a run would fetch.

        Raises:
            SpecError: with the ways out; `why` says what is in the way, and `fetched_by` who
                fetches the files, if not any run. Not for a run that stopped with one of the
                results in `but`.
        """
        held = self.held
        dataset_id = held.lease.dataset_id
        lost = lost_chunks(held.ledger, held.folder, dataset_id)
        run = held.ledger.open_run(dataset_id)
        if run is not None and run.result not in but:
            message = f"an unfinished run {why}; let {self.runner} finish it{self.ending} first."
            raise SpecError(message)
        if lost.parts or lost.landed or lost.unfinished:
            message = (
                f"files of the dataset are gone, and the run that fetches them again {why}; let "
                f"{fetched_by or self.runner} do so first."
            )
            raise SpecError(message)


@contextmanager
def held_folder(
    output: str,
    settings: Settings,
    progress: Progress | None,
    doing: str,
    answers: AnswerSchemas | None = None,
) -> Generator[HeldFolder, None, None]:
    """Hold the dataset in a folder; `doing` tells others why.

    Its answers have the columns of the response model of `answers`; by default, those that they
    have.

    Raises:
        SpecError: there is no dataset, or the model does not fit it.
        WrongLedgerError: the ledger is another one than the dataset's, or older.
        AlreadyRunningError: a run holds the dataset.
    """
    folder = DatasetFolder(output)
    require_dataset(folder, settings, "run what is to fill it first")
    with (
        hold_dataset(output, settings, progress, f"{doing} {folder.root.name}") as held,
        held.landing_alone(),
    ):
        finish_renaming(held)
        if answers is not None:
            _require_one_model(held)
        declared = require_declared(folder)
        dataset, declared = _dataset(folder, declared, answers)
        dataset.gate, dataset.emptied = held.require_lease, emptying(held)
        yield HeldFolder(dataset, held, declared, unfinished_parts(held))


def require_dataset(folder: DatasetFolder, settings: Settings, remedy: str) -> str:
    """Return the id of the dataset in a folder.

    Raises:
        SpecError: there is none.
        WrongLedgerError: the ledger is another one than the dataset's.
    """
    with opened_ledger(settings.ledger_url) as ledger:
        if find_dataset(folder, ledger) is None:
            message = f"output: there is no dataset in {folder.root} yet; {remedy}."
            raise SpecError(message)
        return owned_dataset(folder, ledger)


def unfinished_parts(held: HeldDataset) -> frozenset[str]:
    """Return the parts of chunks whose rows have not landed, or not wholly."""
    chunks = held.ledger.unfinished_chunks(held.lease.dataset_id, "")
    return frozenset(part_of_chunk(chunk.id) for chunk in chunks)


def _dataset(
    folder: DatasetFolder, declared: DeclaredSchema, answers: AnswerSchemas | None
) -> tuple[Dataset, DeclaredSchema]:
    """Return the dataset of a folder, and what it declares with today's response model."""
    carried, retired = declared.of((Role.KEY, Role.CARRIED)), declared.of((Role.RETIRED,))
    if answers is None:
        marks = [MISSING_SINCE] if declared.marks else []
        fields = [*carried, *retired, *declared.of((Role.ANSWER,)), *META_FIELDS, *marks]
        schema = pa.schema(fields)
    else:
        schema = dataset_schema(carried, answers.common, retired, marks=declared.marks)
    dataset = Dataset(folder.data, schema, declared.of((Role.KEY,)).names, carried.names)
    dataset.retired = retired.names
    others = [column for column in declared.columns if column.role is not Role.ANSWER]
    of_answers = [Column(n, Role.ANSWER, schema.field(n).type) for n in dataset.answers]
    return dataset, replace(declared, columns=(*others, *of_answers))


def _require_one_model(held: HeldDataset) -> None:
    """Refuse the dataset of a Batch whose jobs have response models of their own."""
    newest = next(iter(held.ledger.runs_of(held.lease.dataset_id, 1)), None)
    stored: dict[str, Any] = {} if newest is None else as_dict(json.loads(newest.spec).get("spec"))
    if stored.get("kind") == "jobs" and not stored.get("uniform", True):
        message = (
            "response_model: the jobs of this Batch have several response models, or only some "
            "have one; their answers are kept as text, and none can be read by one model alone."
        )
        raise SpecError(message)
