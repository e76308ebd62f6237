"""The answers to the rows of a frame, read from the dataset after a run, in the frame's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from batchata_tasks.api.results import undisturbed
from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.conversion import converted
from batchata_tasks.dataset.columns import META_FIELDS, conformed, dataset_schema, keys_of
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.fingerprint import changed, fingerprint, is_rehearsed
from batchata_tasks.planning.key_arrays import Keys
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_FINGERPRINT, _LANDED_AT = "_fingerprint", "_enriched_at"
_OLDER = "; the dataset has an answer to an earlier question of this row"


def answer_fields(ready: PreparedRun) -> pa.Schema:
    """Return the columns that hold the answers, then those that tell of them."""
    answers = dataset_schema(pa.schema([]), ready.table.answers.common)
    return pa.schema([field for field in answers if field.name not in META_FIELDS.names])


class FrameAnswers:
    """The dataset's rows of a frame's keys, once its run has ended."""

    def __init__(self, ready: PreparedRun, receipt: Receipt) -> None:
        self._table, self._receipt = ready.table, receipt
        self._spec = cast("EnrichmentSpec", ready.spec)
        self._answers = answer_fields(ready)
        folder = DatasetFolder(self._spec.output)
        declared = DeclaredSchema.read(folder)
        self._types = declared.types() if declared is not None else {}

    def table(self, metadata: list[str]) -> pa.Table:
        """Return the answers and these columns of metadata, one row for each row of the frame.

        A row without an answer has nulls; the columns `_status` and `_error` say why.
        """
        landed, keys, order = undisturbed(self._landed)
        at = keys.find(self._keys())
        rows = np.where(at >= 0, order[at] if len(order) else 0, -1)
        if not self._table.rehearsal:  # what an emulator made up is no answer
            made_up = np.array([is_rehearsed(text) for text in landed[_FINGERPRINT].to_pylist()])
            rows[rows >= 0] = np.where(made_up[rows[rows >= 0]], -1, rows[rows >= 0])
        reasons = self._reasons(rows, landed)
        for row in reasons:
            rows[row] = -1
        places = pa.array(rows, pa.int64(), mask=rows < 0)
        wanted = [*self._answers.names, *metadata]
        taken = landed.select(wanted).take(places)
        if "_error" in metadata and reasons:
            errors = taken["_error"].to_pylist()
            for row, reason in reasons.items():
                errors[row] = reason
            at_error = wanted.index("_error")
            taken = taken.set_column(at_error, pa.field("_error", pa.string()), pa.array(errors))
        return taken

    def _landed(self) -> tuple[pa.Table, Keys, NDArray[np.int64]]:
        """Return the dataset's rows, their keys in order, and the row that each of these has."""
        fields = pa.schema([*self._key_fields(), *self._answers, *META_FIELDS])
        batches, digests = list[pa.RecordBatch](), list[bytes]()
        for _, batch in self._table.dataset.rows(fields.names):
            rows = conformed(batch, fields, self._answers.names)
            batches.append(rows)
            digests += key_digests(keys_of(rows, self._spec.key))
        landed = pa.Table.from_batches(batches, fields)
        keys = Keys.of(digests)
        moments = landed[_LANDED_AT].cast(pa.int64()).to_numpy()
        # while a run lands, a key may be there twice: the newest row comes first
        order = np.lexsort((-moments, keys.low, keys.high))
        return landed, Keys(keys.high[order], keys.low[order]), order

    def _key_fields(self) -> list[pa.Field]:
        types = self._table.source.schema(self._spec.key)
        return [pa.field(f.name, self._types.get(f.name, f.type)) for f in types]

    def _keys(self) -> Keys:
        """Return the keys of the frame's rows."""
        digests = list[bytes]()
        for block in self._table.source.batches(self._spec.key):
            arrays = [
                converted(block.rows.column(field.name), field.type) for field in self._key_fields()
            ]
            rows = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(self._key_fields()))
            digests += key_digests(keys_of(rows, self._spec.key))
        return Keys.of(digests)

    def _reasons(self, rows: NDArray[np.int64], landed: pa.Table) -> dict[int, str]:
        """Return why rows of the frame have no answer to their question, by their places."""
        plan = self._receipt.plan
        waiting = self._receipt.unsent_rows or self._receipt.held_rows
        failed = any(name != Outcome.SUCCEEDED for name in self._receipt.outcomes)
        may_be_old = bool(waiting or plan["over_limit"] or plan["in_flight"] or failed)
        if not may_be_old and (rows >= 0).all():
            return {}
        prints: list[Any] = landed[_FINGERPRINT].to_pylist() if may_be_old else []
        found, reason = dict[int, str](), self._why_unsent()
        for first, block in self._blocks():
            kept, nulls = set(self._table.builder.kept(block)), self._nulls(block)
            now, unread = self._fingerprints(block) if prints else ([], ())
            for place in range(len(block)):
                row = int(rows[first + place])
                if row < 0:
                    left_out = "left out by `where`" if place not in kept else ""
                    left_out = left_out or ("left out for a null" if place in nulls else "")
                    found[first + place] = left_out or reason
                elif prints and place in kept:
                    parts = changed(prints[row], now[place])
                    if self._asks_again(parts, is_read=place not in unread):
                        found[first + place] = reason + _OLDER
        return found

    def _asks_again(self, changed_parts: list[str], *, is_read: bool) -> bool:
        """Whether a row is sent for one of these parts; an input that is not read is unchanged."""
        asks = self._spec.rerun_on
        return any(part in asks and (is_read or part != "input") for part in changed_parts)

    def _blocks(self) -> Iterator[tuple[int, RowBlock]]:
        """Yield the frame's rows with all columns that the spec uses, and each block's place."""
        first = 0
        for block in self._table.source.batches(self._table.columns.names):
            count = block.rows.num_rows
            yield first, RowBlock(block.rows, range(first + 1, first + count + 1), self._spec.key)
            first += count

    def _nulls(self, block: RowBlock) -> set[int]:
        return set(self._table.builder.nulls(block)) if self._spec.on_null == "skip" else set()

    def _fingerprints(self, block: RowBlock) -> tuple[list[str], Sequence[int]]:
        """Return the fingerprints of rows, and the places of those whose input cannot be read."""
        inputs, others, unread = self._table.builder.fingerprints(block)
        prints = [
            fingerprint(one.hex(), others[place if len(others) > 1 else 0])
            for place, one in enumerate(inputs)
        ]
        return prints, unread

    def _why_unsent(self) -> str:
        """Return why a row that the spec does not leave out has no answer."""
        receipt, plan = self._receipt, self._receipt.plan
        if receipt.unsent_rows:
            return f"not sent: {receipt.reason or receipt.result_in_words}"
        if receipt.held_rows or plan["in_flight"]:
            word = DatasetFolder(self._spec.output).word
            return f"no answer yet: its batch is open or held, see `batchata status {word}`"
        if plan["over_limit"]:
            return "not sent: beyond `limit`"
        if any(name != Outcome.SUCCEEDED for name in receipt.outcomes):
            return "not answered: its request did not run"
        return "not sent: for none of the reasons in `rerun_on`"
