"""Collecting: every request of a chunk gets exactly one outcome, whatever the provider returned.

Results are read once, as a stream, in the provider's order, and joined to the chunk's rows by
custom_id. Lines that are doubled count once (an answer before an error, since it is paid), lines
that nobody sent are reported, requests without a line end as missing (or as what a failed validation says of them).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.ledger import OutcomeTotals
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.ids import custom_id
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.schema.answers import AnswerSchemas

_BLOCK = 4096
_NOTHING = Usage()
_WITHOUT_ANSWER = (Outcome.ERRORED, Outcome.EXPIRED, Outcome.CANCELED, Outcome.MISSING)
_PRIORS = (
    "_prior_attempts",
    "_prior_input_tokens",
    "_prior_output_tokens",
    "_prior_cache_read_tokens",
    "_prior_cost",
    "_fingerprint",
)


@dataclass
class Report:
    """What collecting a chunk found."""

    tallies: dict[str, OutcomeTotals] = field(default_factory=lambda: defaultdict(OutcomeTotals))
    overhead: int = (
        0  # picodollars that belong to no row: unknown lines, requests of unreadable cost
    )
    unreadable: int = 0  # requests that may have run, but no line says what they cost
    unknown_lines: int = 0
    doubled_lines: int = 0
    over_bound: int = 0  # answers that cost more than their proven bound
    cache_saved: int = 0  # picodollars less than the same answers cost without a cache
    excess: int = 0  # the largest cost of one of them, in millionths of its bound


class Collector:
    """Turns one chunk's answers into rows of the dataset."""

    def __init__(
        self,
        chunk: Chunk,
        manifest: pa.Table,
        columns: pa.Schema,
        answers: AnswerSchemas,
        rates: Rates | None,
        enriched_at: int,
    ) -> None:
        self._chunk, self._manifest, self._columns = chunk, manifest, columns
        self._answers, self._rates, self._enriched_at = answers, rates, enriched_at
        row_ids = manifest["_row_id"].to_pylist()
        self._names = [custom_id(chunk.id, row_id) for row_id in row_ids]
        self._position = {name: i for i, name in enumerate(self._names)}
        self._changed, self._prior_errors = (
            manifest["_changed"].to_pylist(),
            manifest["_prior_error"].to_pylist(),
        )
        self._priors = {name: manifest[name].to_pylist() for name in _PRIORS}
        self._bounds, self._schemas = (
            manifest["_bound"].to_pylist(),
            manifest["_schema"].to_pylist(),
        )
        system = set(SYSTEM_FIELDS.names)
        self._source = [name for name in manifest.schema.names if name not in system]
        self.report = Report()

    def rows(
        self, answers: Iterable[Answer], absent: Mapping[int, Answer], otherwise: Answer
    ) -> Iterator[pa.RecordBatch]:
        """Yield the chunk's rows, one per request.

        A request without an answer takes `absent` of its position, or `otherwise`.
        """
        seen = bytearray(len(self._names))
        unpaid: dict[
            int, Answer
        ] = {}  # lines without an answer wait: one with an answer may follow
        block: list[tuple[int, Answer]] = []
        for answer in answers:
            position = self._position.get(answer.custom_id)
            if position is None:
                self.report.unknown_lines += 1
                self.report.overhead += self._rates.cost(answer.usage) if self._rates else 0
            elif seen[position]:
                self.report.doubled_lines += 1
            elif answer.usage == _NOTHING and answer.outcome in _WITHOUT_ANSWER:
                self.report.doubled_lines += position in unpaid
                unpaid.setdefault(position, answer)
            else:
                self.report.doubled_lines += position in unpaid
                seen[position] = 1
                block.append((position, answer))
            if len(block) == _BLOCK:
                yield self._record_batch(block)
                block = []
        for position in (i for i, done in enumerate(seen) if not done):
            block.append((position, unpaid.get(position) or absent.get(position, otherwise)))
            if len(block) == _BLOCK:
                yield self._record_batch(block)
                block = []
        if block:
            yield self._record_batch(block)

    def _record_batch(self, block: list[tuple[int, Answer]]) -> pa.RecordBatch:
        rows = [self._row(position, answer) for position, answer in block]
        taken = (
            self._manifest.select(self._source)
            .take(pa.array([p for p, _ in block], pa.int64()))
            .combine_chunks()
        )
        arrays: list[pa.Array] = []
        for column in self._columns:
            if column.name in self._source:
                found = taken.column(column.name)
                arrays.append(
                    found.chunk(0) if found.num_chunks == 1 else pa.concat_arrays(found.chunks)
                )
            else:
                arrays.append(pa.array([row.get(column.name) for row in rows], type=column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._columns)

    def _row(self, position: int, answer: Answer) -> dict[str, Any]:
        outcome, error, fields = self._judged(position, answer)
        usage = answer.usage
        cost, listed = (
            (None, None)
            if self._rates is None
            else (self._rates.cost(usage), self._rates.list_cost(usage))
        )
        written = usage.cache_write_tokens + usage.cache_write_1h_tokens
        attempt = 0 if answer.outcome.never_ran else 1
        self.report.tallies[outcome] += OutcomeTotals(
            1,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            cost,
            cache_write_tokens=written,
            list_cost=listed,
        )
        if self._rates is not None and cost is not None and (written or usage.cache_read_tokens):
            plain = replace(
                usage, cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0
            )
            self.report.cache_saved += self._rates.cost(plain) - cost
        if cost is not None and self._chunk.bound is not None and cost > self._bounds[position]:
            self.report.over_bound += 1
            self.report.excess = max(
                self.report.excess, -(-cost * 10**6 // max(self._bounds[position], 1))
            )
        if not answer.readable:
            self.report.unreadable += 1
        if not answer.readable or (cost is None and usage != _NOTHING):
            # it was billed, or may have been: with a limit to keep, the most that it can have cost counts
            self.report.overhead += self._bounds[position]
        prior = {name: values[position] for name, values in self._priors.items()}
        total = (
            None if cost is None or prior["_prior_cost"] is None else cost + prior["_prior_cost"]
        )
        sent = self._chunk.batch_id is not None
        return {
            **fields,
            "_status": outcome.value,
            "_error": error,
            "_attempts": prior["_prior_attempts"] + attempt,
            "_provider": self._chunk.provider,
            "_model": answer.model or self._chunk.model,
            "_batch_id": self._chunk.batch_id,
            "_custom_id": self._names[position] if sent else None,
            "_fingerprint": prior["_fingerprint"],
            "_input_tokens": usage.input_tokens + prior["_prior_input_tokens"],
            "_output_tokens": usage.output_tokens + prior["_prior_output_tokens"],
            "_cache_read_tokens": usage.cache_read_tokens + prior["_prior_cache_read_tokens"],
            "_cost_usd": None if total is None else Decimal(total).scaleb(-12),
            "_citations": list(answer.citations) or None,
            "_response": answer.text,
            "_run_id": self._chunk.run_id,
            "_enriched_at": self._enriched_at,
        }

    def _judged(self, position: int, answer: Answer) -> tuple[Outcome, str | None, dict[str, Any]]:
        """Check a finished answer against the response model.

        Where the provider refuses what a retry changed (a cap beyond the model's own, say), the row
        stays what it was: its own request was not wrong. So it does where a changed request brought no
        answer: the base request had one, and would be paid for again.
        """
        if self._changed[position] and answer.outcome in _WITHOUT_ANSWER:
            before = self._prior_errors[position]
            return outcome_of(before), before, {}
        if answer.outcome is not Outcome.SUCCEEDED:
            return answer.outcome, answer.error, {}
        if answer.text is None:
            return Outcome.INVALID, describe(ErrorCode.RESPONSE, "the answer has no text"), {}
        response = self._answers.of(self._schemas[position])
        if response is None:
            return Outcome.SUCCEEDED, None, {"response": answer.text}
        fields, wrong = response.parse(answer.text)
        if fields is None:
            return Outcome.INVALID, describe(ErrorCode.RESPONSE, wrong), {}
        return (
            Outcome.SUCCEEDED,
            None,
            fields if self._answers.common is not None else {"response": answer.text},
        )


def not_sent(error: str) -> Answer:
    """Return the answer of a row that was never sent, since it cannot be."""
    return Answer("", Outcome.ERRORED, error=error)
