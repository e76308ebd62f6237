"""Kept answers under today's response model: each row's `_response` is read anew, free of charge.

What a mended model takes by now is not asked for, and not paid for, again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchata_tasks.common.collector import collector_paused
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.dataset.part_files import chunks_in, part_of_chunk
from batchata_tasks.dataset.row_hashes import row_hashes
from batchata_tasks.execution.changes import Changes, note_changes
from batchata_tasks.execution.checked import grade_lowered, note_checked
from batchata_tasks.execution.reread import (
    DECIDING,
    NAMED,
    READABLE,
    Reading,
    note_marked,
    note_reading,
)
from batchata_tasks.planning.fingerprint import schema_part, schema_part_of
from batchata_tasks.planning.settle import settle
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    import pyarrow as pa

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.reread import Reread
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.schema.answers import AnswerSchemas


_STAYS = (
    "which landed under the same schema: they stay valid in the dataset, with their values, and no "
    "run sends them again, but one with `--refresh`, which sends all; `--mark-invalid` makes them "
    "invalid, so that they alone are sent again"
)
_MARKED = (
    "invalid from now on, without values (`_response` keeps the answer): the next run sends them "
    "if they have attempts left, else one with `--retry-failed`"
)
_STILL = (
    "unchanged; the next run sends those of another response model, and those with attempts left"
)


@dataclass
class Revalidated:
    """How many rows' kept answers today's response model takes, and how many it does not.

    `became_valid` were invalid. `kept` are of another response model, so that a run would have sent
    them again. `filled` have another value in a column, such as one that a model between lacked.
    `no_longer_valid` succeeded when they landed; `example` says what is wrong with one of them.
    Those of another response model are sent by the next run (`no_longer_valid_to_send`). The others
    landed under the same schema (a validator became stricter): they stay valid, and are not sent,
    unless they are `marked`, which makes them invalid.
    `still_invalid` are as they were. Rows without an answer are not counted.
    """

    became_valid: int = 0
    kept: int = 0
    filled: int = 0
    no_longer_valid: int = 0
    no_longer_valid_to_send: int = 0
    marked: int = 0
    still_invalid: int = 0
    example: str | None = None

    @property
    def gained(self) -> int:
        """How many rows a run needs no longer send."""
        return self.became_valid + self.kept

    @property
    def _staying(self) -> int:
        return self.no_longer_valid - self.no_longer_valid_to_send - self.marked

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        counts = [
            ("Became valid", self.became_valid, "invalid until now"),
            ("Kept", self.kept, "of another response model, valid under this one"),
            ("Filled", self.filled, "with other values than the columns had"),
            (
                "No longer valid",
                self.no_longer_valid_to_send,
                "of another response model: unchanged, and sent again by the next run",
            ),
            ("No longer valid", self._staying, _STAYS),
            ("Marked", self.marked, _MARKED),
            ("Still invalid", self.still_invalid, _STILL),
        ]
        lines = [
            (label, f"{pluralize(count, 'row')}, {what}") for label, count, what in counts if count
        ]
        if self.example is not None:
            lines.append(("For example", self.example))
        return lines or [("Answers", "each one is as today's response model reads it")]


def read_again(held: HeldDataset, table: PreparedTable) -> None:
    """Read kept answers by today's response model, if they were once, or need less evidence now.

    They were if the ledger says so, and the dataset's folder does not know of it: it comes from an
    older copy, or the command died.
    """
    if not is_to_be_read(table, held.folder, held.ledger, held.lease.dataset_id):
        return
    lowered = grade_lowered(held.folder, table.answers)
    unlanded = [chunk.id for chunk in held.ledger.unfinished_chunks(held.lease.dataset_id, "")]
    settled = settle(table, held.folder, unlanded)
    unfinished = set(map(part_of_chunk, unlanded))
    answers = KeptAnswers(table.dataset, table.answers)
    report, parts = answers.look()
    if report.gained:
        rows = pluralize(report.gained, "row")
        held.progress.note(
            f"{rows} became valid, since `min_grade` is lower by now; nothing is sent for them."
            if lowered
            else f"{rows} had been read by today's response model before the dataset's folder was "
            "set back, or files of it: they are again, and nothing is sent for them."
        )
    held.ledger.check_lease(held.lease)  # right before files change
    settled.declared.write(held.folder)  # before any part is rewritten
    table.dataset.conform(unfinished)
    answers.write([part for part in parts if part not in unfinished], held)
    if lowered:
        note_checked(held, table.answers, all_rows=True)


def is_to_be_read(
    table: PreparedTable, folder: DatasetFolder, ledger: Ledger, dataset_id: str
) -> bool:
    """Whether the ledger, but not the folder, knows that today's model read the kept answers.

    Or they were checked by a higher `min_grade`.
    """
    if isinstance(table.spec, JobsSpec) and not table.spec.uniform:  # each may have its own model
        return False
    if grade_lowered(folder, table.answers):
        return True
    part, known = schema_part_of(table.answers.common), Changes.read(folder).rereads
    return part not in known and part in ledger.rereads(dataset_id)


class KeptAnswers:
    """The answers in a dataset, read by the common response model of `answers`.

    With `mark_invalid` the rows that landed under its schema, and that it does not take, become
    invalid. The types of the dataset's columns must be settled (see `settle`).
    """

    def __init__(
        self, dataset: Dataset, answers: AnswerSchemas, *, mark_invalid: bool = False
    ) -> None:
        self.model, self._marks, self._dataset = answers, mark_invalid, dataset
        self._marked = defaultdict[str, list[str]](list)  # custom_ids by chunk
        part, names = schema_part_of(answers.common), dataset.answers
        self._reading = Reading(answers, part, dataset.schema, names)
        self._answers = [dataset.schema.field(name) for name in names]

    def look(self) -> tuple[Revalidated, list[str]]:
        """Return what today's model takes, and the parts that have rows to be changed."""
        report, parts = Revalidated(), dict[str, None]()
        for part, batch in self._dataset.rows(self._dataset.schema.names):
            with collector_paused():
                before = self._dataset.conformed(batch)
                after, values = self._read(before)
                self._count(before, after, values, report)
                if not after.equals(before):
                    parts[part] = None
        return report, list(parts)

    def write(self, parts: list[str], held: HeldDataset) -> None:
        """Write the rows of some parts as today's model reads them.

        The commits of their chunks say so first: what is lost then comes back as it is now.
        """
        files = self._dataset.parts()
        chunks = {chunk for part in parts for chunk in chunks_in(files[part])}
        note_reading(held, sorted(chunks), self._reading)
        note_marked(held, {chunk: self._marked[chunk] for chunk in chunks & self._marked.keys()})
        self._dataset.change(parts, lambda batch: self._read(batch).rows)
        note_changes(held, self._reading.part)

    def _read(self, rows: pa.RecordBatch) -> Reread:
        """Return rows as they are from now on."""
        read = self._reading.read(rows)
        return read._replace(rows=self._reading.marked(rows, read)) if self._marks else read

    def _count(
        self,
        before: pa.RecordBatch,
        after: pa.RecordBatch,
        values: list[tuple[Any, ...] | None],
        report: Revalidated,
    ) -> None:
        changed = row_hashes(before, self._answers) != row_hashes(after, self._answers)
        columns = [before.column(name).to_pylist() for name in (*DECIDING, "_custom_id")]
        for place, (status, fingerprint, text, name) in enumerate(zip(*columns, strict=True)):
            if text is None or status not in READABLE:
                continue
            succeeded = status == Outcome.SUCCEEDED
            of_another = schema_part(fingerprint) != self._reading.part
            if values[place] is None:
                report.no_longer_valid += succeeded
                report.no_longer_valid_to_send += succeeded and of_another
                report.still_invalid += not succeeded
                if self._marks and self._reading.is_refused(status, fingerprint, text):
                    report.marked += 1
                    self._note_marked(name)
                if succeeded and report.example is None:
                    report.example = self._why_not(before, place)
            elif not succeeded:
                report.became_valid += 1
            elif of_another:
                report.kept += 1
            else:
                report.filled += bool(changed[place])

    def _note_marked(self, name: str) -> None:
        names = self._marked[name.partition("-")[0]]
        if len(names) <= NAMED:  # of more, a commit names none
            names.append(name)

    def _why_not(self, rows: pa.RecordBatch, place: int) -> str:
        """Return what is wrong with an answer, and whose it is."""
        problem = self._reading.problem(rows, place)
        key = ", ".join(
            f"{name}={rows.column(name)[place].as_py()!r:.60}" for name in self._dataset.key
        )
        return printable(f"{key}: {problem}")


class ByNow(NamedTuple):
    """How many rows' kept answers today's response model takes, though not before, and the reverse.

    `refused` is None if the dataset was not read.
    """

    taken: int = 0
    refused: int | None = None


def by_now(table: PreparedTable, summary: PlanSummary) -> ByNow:
    """Return of how many rows a mended response model takes the answers, and no longer takes them.

    The dataset is only read if rows of a plan are to be sent again for their answers alone, or were
    given up. No more rows than these are taken: others are sent whatever becomes of their answers.
    Beyond `limit` nobody looked why a row is to be sent, so that all of these may count.
    """
    asked_for = summary.exhausted
    asked_for += sum(summary.reasons.get(reason, 0) for reason in ("schema", "failed"))
    if not asked_for or table.answers.own:
        return ByNow()
    report, _ = KeptAnswers(table.dataset, table.answers).look()
    return ByNow(min(report.gained, asked_for + summary.over_limit), report.no_longer_valid)
