"""Kept answers (`_response`) read by another response model than the one that they landed under.

The commits of the chunks name the models by which rows were read anew. So a part that is lost, and
written anew from the provider's results, comes back as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.files import write_json
from batchata_tasks.dataset.columns import conformed
from batchata_tasks.execution.judged import lacks_evidence
from batchata_tasks.execution.lost_files import commit_of_landed
from batchata_tasks.planning.fingerprint import schema_part, schema_part_of, with_schema
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.schema.response import ResponseSchema

REREAD = "reread"  # of a commit: the models, the last one last
INVALID, NAMED = "invalid", 1000  # of a commit: the custom_ids, if they are not too many
READABLE = frozenset({Outcome.SUCCEEDED.value, Outcome.INVALID.value})
DECIDING = ("_status", "_fingerprint", "_response")
EVIDENCE = "_citations"


class Reread(NamedTuple):
    """Rows as a response model reads them; the answers' values of each, None if it stays."""

    rows: pa.RecordBatch
    values: list[tuple[Any, ...] | None]


@dataclass(frozen=True)
class Reading:
    """A response model by which kept answers are read.

    `part` is its part of fingerprints, `schema` the dataset's columns under it, of which `answers`
    hold answers.
    """

    model: AnswerSchemas
    part: str
    schema: pa.Schema
    answers: list[str]

    def read(self, rows: pa.RecordBatch) -> Reread:
        """Return rows in its columns, with the answers that it takes read anew."""
        rows = conformed(rows, self.schema, self.answers)
        statuses, prints, texts = (rows.column(name).to_pylist() for name in DECIDING)
        columns_of = self.model.column_reader(None)
        values = [
            columns_of(text) if _is_readable(status, fingerprint, text) else None
            for status, fingerprint, text in zip(statuses, prints, texts, strict=True)
        ]
        for place, citations in enumerate(self._evidence(rows)):
            if values[place] is not None and self._lacks(texts[place], citations):
                values[place] = None
        is_valid = pa.array([value is not None for value in values], pa.bool_())
        under_it = [with_schema(text, self.part) for text in prints]
        arrays = {
            "_status": pa.scalar(Outcome.SUCCEEDED.value),
            "_error": pa.scalar(None, pa.string()),
            "_fingerprint": pa.array(under_it, pa.string()),
        }
        for place, name in enumerate(self.answers):
            column = [None if value is None else value[place] for value in values]
            arrays[name] = pa.array(column, self.schema.field(name).type)
        columns = [
            pc.if_else(is_valid, arrays[name], rows.column(name))
            if name in arrays
            else rows.column(name)
            for name in self.schema.names
        ]
        return Reread(pa.RecordBatch.from_arrays(columns, schema=self.schema), values)

    def marked(self, rows: pa.RecordBatch, read: Reread) -> pa.RecordBatch:
        """Return what `read` made of rows, with those invalid that landed under it as valid.

        They are now as if they had landed so: with the reason, and without values.
        """
        refused = [
            describe(ErrorCode.RESPONSE, self.problem(rows, place))
            if value is None and self.is_refused(status, fingerprint, text)
            else None
            for place, (value, status, fingerprint, text) in enumerate(
                zip(read.values, *(rows.column(n).to_pylist() for n in DECIDING), strict=True)
            )
        ]
        if not any(refused):
            return read.rows
        is_refused = pa.array([error is not None for error in refused], pa.bool_())
        arrays = {
            "_status": pa.scalar(Outcome.INVALID.value),
            "_error": pa.array(refused, pa.string()),
            **{name: pa.scalar(None, self.schema.field(name).type) for name in self.answers},
        }
        columns = [
            pc.if_else(is_refused, arrays[name], read.rows.column(name))
            if name in arrays
            else read.rows.column(name)
            for name in self.schema.names
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def is_refused(self, status: str, fingerprint: str, text: str | None) -> bool:
        """Whether a row that the model does not take landed under its schema, as valid."""
        readable = status == Outcome.SUCCEEDED and _is_readable(status, fingerprint, text)
        return readable and schema_part(fingerprint) == self.part

    def problem(self, rows: pa.RecordBatch, place: int) -> str:
        """Return what is wrong with the answer of a row that the model does not take."""
        common, text = self.model.common, rows.column("_response")[place].as_py()
        if common is None or text is None:
            return ""
        citations = rows.column(EVIDENCE)[place].as_py()
        return common.parse(text)[1] or self._lacks(text, citations) or ""

    def _evidence(self, rows: pa.RecordBatch) -> list[list[dict[str, Any]] | None]:
        """Return the citations of rows; none if no answer needs any."""
        common = self.model.common
        is_graded = common is not None and common.min_grade is not None
        return rows.column(EVIDENCE).to_pylist() if is_graded else []

    def _lacks(self, text: str, citations: list[dict[str, Any]] | None) -> str | None:
        return lacks_evidence(self.model.common, text, citations or [])


def invalid_in(rows: pa.RecordBatch) -> list[str]:
    """Return the custom_ids of rows whose answers were refused."""
    is_invalid = pc.equal(rows.column("_status"), Outcome.INVALID.value)
    return rows.column("_custom_id").filter(is_invalid).drop_null().to_pylist()


def by_schema(model: AnswerSchemas, schema: pa.Schema) -> Reading:
    """Return how a model's JSON Schema alone reads answers, without the validators of a class.

    Nor does it look at evidence.
    """
    common = model.common
    names = ["response"] if common is None else common.arrow.names
    without_class = AnswerSchemas.from_json({"schema": None if common is None else common.form})
    return Reading(without_class, schema_part_of(common), schema, names)


def as_landed(rows: pa.RecordBatch, reading: Reading, invalid: pa.Array) -> pa.RecordBatch:
    """Return rows of which none is invalid that was not when it landed.

    A class may have become stricter since. What it refuses by now is as its schema alone has it,
    which is what `reading` reads; `invalid` has the custom_ids of the rows that were refused then.
    """
    names = rows.column("_custom_id")
    known = pc.or_(pc.is_in(names, invalid), pc.is_null(names))
    # what was asked for under another model is for today's to judge
    is_of_model = pc.ends_with(rows.column("_fingerprint"), f".{reading.part}")
    is_invalid = pc.equal(rows.column("_status"), Outcome.INVALID.value)
    refused = pc.and_not(pc.and_(is_invalid, is_of_model), known)
    if not pc.any(refused).as_py():
        return rows
    read = reading.read(rows).rows
    columns = [pc.if_else(refused, read.column(n), rows.column(n)) for n in rows.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _is_readable(status: str, fingerprint: str, text: str | None) -> bool:
    if text is None or not text.strip() or status not in READABLE:
        return False
    return schema_part(fingerprint) is not None


def note_reading(held: HeldDataset, chunk_ids: Collection[str], reading: Reading) -> None:
    """Note, in ledger and commits, that rows of chunks are read by a model; before they are."""
    held.ledger.note_reread(held.lease, reading.part)
    held.unpack_commits(chunk_ids)
    for chunk_id in chunk_ids:
        if (commit := commit_of_landed(held, chunk_id)) is not None:
            held.require_lease()
            write_json(held.folder.commit(chunk_id), noting(commit, reading.model, reading.part))


def note_marked(held: HeldDataset, marked: Mapping[str, Iterable[str]]) -> None:
    """Let commits say which of their rows are invalid from now on (custom_ids), before they are.

    Of too many, a commit names none: then the class decides, if they are landed again.
    """
    held.unpack_commits(marked)
    for chunk_id, names in marked.items():
        commit = commit_of_landed(held, chunk_id)
        if commit is not None and INVALID in commit:
            held.require_lease()
            invalid = sorted({*commit.pop(INVALID), *names})
            more = {INVALID: invalid} if len(invalid) <= NAMED else {}
            write_json(held.folder.commit(chunk_id), {**commit, **more})


def noting(commit: Mapping[str, Any], model: AnswerSchemas, part: str) -> dict[str, Any]:
    """Return a commit that names a model as the last one by which its rows are read."""
    facts = {"part": part, **model.to_json()}
    others = [one for one in commit.get(REREAD, ()) if one != facts]
    return {**commit, REREAD: [*others, facts]}


def reread_parts(commit: Mapping[str, Any]) -> list[str]:
    """Return the parts of fingerprints of the models by which a chunk's rows were read anew."""
    return [one["part"] for one in commit.get(REREAD, ())]


def readings_of(
    commit: Mapping[str, Any],
    columns: Callable[[ResponseSchema | None], pa.Schema],
    live: AnswerSchemas | None,
) -> list[Reading]:
    """Return how the rows of a chunk were read since they landed, the last one last.

    `columns` returns the dataset's columns under a response model; `live` are the models of which
    this process has the classes.
    """
    readings = list[Reading]()
    for stored in commit.get(REREAD, ()):
        model = AnswerSchemas.from_json(stored)
        if live is not None:
            model = model.with_classes_of(live)
        answers = ["response"] if model.common is None else model.common.arrow.names
        readings.append(Reading(model, stored["part"], columns(model.common), answers))
    return readings
