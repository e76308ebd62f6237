"""What earlier batches answered to the requests of a chunk whose part is written anew.

A row whose new attempt brought no answer kept the one that it had. If its part was lost, no part
has that answer any more, but the results of the batch do that gave it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from batchata_tasks.dataset.manifest import manifest_batches
from batchata_tasks.dataset.packs import is_kept, kept_json
from batchata_tasks.execution.download import downloaded
from batchata_tasks.execution.judged import judge, lacks_evidence, with_answer
from batchata_tasks.execution.look import look_once
from batchata_tasks.execution.quoted import QuotedFields
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.ledger import ChunkState
from batchata_tasks.types.ids import custom_id
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.types.answer import Answer


class EarlierResults:
    """Reads them when the first one is asked for: of each request the last usable answer.

    Raises:
        TransientError: a provider does not give results that it has; a later run tries again.
    """

    def __init__(self, context: BatchContext, chunk: Chunk, manifest: pa.Table) -> None:
        self._context, self._chunk = context, chunk
        rows = manifest.select(["_row_id", "_fingerprint", "_schema", "_prior_attempts"])
        self._rows = rows.to_pylist()
        # of these requests nothing is known yet: their positions
        self._open = {row["_row_id"]: i for i, row in enumerate(self._rows) if _was_sent(row)}
        self._said: dict[int, dict[str, Any]] | None = None

    def __call__(self, position: int) -> dict[str, Any]:
        """Return the columns of an earlier answer to the row at a position, as EarlierAnswers."""
        if self._said is None:
            self._said = dict(self._read())
        return self._said.get(position, {})

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (position, columns) of the requests that had an answer, newer answers first."""
        ledger = self._context.ledger
        order = ledger.order_of(self._chunk.dataset_id)
        before = order[: order.index(self._chunk.id)]
        for chunk in ledger.existing_chunks(reversed(before)):
            has_results = chunk.state == ChunkState.LANDED and chunk.batch_id is not None
            if self._open and has_results:
                yield from self._of(chunk)

    def _of(self, chunk: Chunk) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield those of one chunk's results."""
        folder, run = self._context.folder, self._context.run
        names = {custom_id(chunk.id, row_id): row_id for row_id in self._asked_by(chunk)}
        if not names or chunk.batch_id is None:
            return
        context = restored_context(run.held, run.ledger.run(chunk.run_id)).for_chunk(chunk)
        _, paths = downloaded(context, chunk, look_once(context, chunk.batch_id))
        landed_at = (kept_json(folder.commit(chunk.id)) or {}).get("enriched_at_us", 0)
        passages = QuotedFields(context, chunk)
        for answer in chain.from_iterable(map(context.provider.answers, paths)):
            position = self._open.get(names.get(answer.custom_id, ""))
            said = (
                None if position is None else self._usable(self._rows[position], answer, passages)
            )
            if position is not None and said is not None:
                del self._open[names[answer.custom_id]]
                yield position, {**said, "_enriched_at": landed_at}

    def _asked_by(self, chunk: Chunk) -> list[str]:
        """Return the open requests that a chunk may have; without its manifest, all of them."""
        path = self._context.folder.manifest(chunk.id)
        if not is_kept(path):  # the names in the results tell
            return list(self._open)
        batches = manifest_batches(path)
        ids = chain.from_iterable(batch.column("_row_id").to_pylist() for batch in batches)
        return [row_id for row_id in ids if row_id in self._open]

    def _usable(
        self, row: dict[str, Any], answer: Answer, passages: QuotedFields
    ) -> dict[str, Any] | None:
        """Return what an answer said; None if it is of no use to its row."""
        model = self._context.run.answers.of(row["_schema"])
        read = None if model is None else model.parse
        answer = with_answer(answer, read)
        outcome, _, _ = judge(answer, read)
        if outcome is not Outcome.SUCCEEDED:
            return None
        citations = list(answer.citations)
        if model is not None and model.quoted and answer.text is not None:
            citations = passages(answer.custom_id, model, answer.text)
            if lacks_evidence(model, answer.text, citations):
                return None
        return {
            "_status": outcome.value,
            "_fingerprint": row["_fingerprint"],
            "_response": answer.text,
            "_citations": citations or None,
        }


def _was_sent(row: dict[str, Any]) -> bool:
    """Whether the same request was sent before, as far as is known."""
    return row["_prior_attempts"] != 0
