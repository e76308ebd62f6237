"""Rows of plain answers, built by columns.

Most answers succeed, have one text, state plain counts and cost no more than their bound. Their
values go straight into columns, block by block, and no object stays for a row. All other answers
are left to `Collector`, row by row; what is built here would come out alike there, to the last
field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.dataset.columns import COST, META_FIELDS, cost_column
from batchata_tasks.execution.priced import MOST_TOKENS
from batchata_tasks.schema.answers import ColumnReader
from batchata_tasks.types.answer import Usage
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.sent_rows import SentRows
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.schema.answers import AnswerSchemas
    from batchata_tasks.types.answer import Answer

_ONE = pa.scalar(1, pa.int32())


@dataclass(slots=True)
class PlainBlock:
    """Plain answers, by columns; `values` are those of the dataset's answer columns."""

    positions: list[int] = field(default_factory=list[int])
    texts: list[str] = field(default_factory=list[str])
    models: list[str] = field(default_factory=list[str])
    values: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    input_tokens: list[int] = field(default_factory=list[int])
    output_tokens: list[int] = field(default_factory=list[int])
    cache_read_tokens: list[int] = field(default_factory=list[int])
    cache_write_tokens: list[int] = field(default_factory=list[int])
    cache_write_1h_tokens: list[int] = field(default_factory=list[int])
    costs: list[int] = field(default_factory=list[int])  # picodollars; 0 without prices

    def add(
        self, position: int, answer: Answer, model: str, values: tuple[Any, ...], cost: int
    ) -> None:
        """Add an answer."""
        usage = answer.usage
        self.positions.append(position)
        self.texts.append(answer.text or "")
        self.models.append(model)
        self.values.append(values)
        self.input_tokens.append(usage.input_tokens)
        self.output_tokens.append(usage.output_tokens)
        self.cache_read_tokens.append(usage.cache_read_tokens)
        self.cache_write_tokens.append(usage.cache_write_tokens)
        self.cache_write_1h_tokens.append(usage.cache_write_1h_tokens)
        self.costs.append(cost)

    def usage(self) -> Usage:
        """Return the tokens of all answers together."""
        return Usage(
            sum(self.input_tokens),
            sum(self.output_tokens),
            sum(self.cache_read_tokens),
            sum(self.cache_write_tokens),
            sum(self.cache_write_1h_tokens),
        )


class PlainRows:
    """Builds the rows of a chunk's plain answers."""

    def __init__(
        self,
        chunk: Chunk,
        sent: SentRows,
        columns: pa.Schema,
        answers: AnswerSchemas,
        rates: Rates | None,
        enriched_at: int,
    ) -> None:
        self._chunk = chunk
        self._sent = sent
        self._columns = columns
        self._schemas = answers
        self._readers = dict[str | None, ColumnReader]()
        self._read = self._reader(None) if sent.schemas is None else None
        self._priced, self._cost, self._most_input = rates is not None, _no_cost, MOST_TOKENS
        if rates is not None:
            self._cost = rates.flat_cost()
            self._most_input = min(MOST_TOKENS, rates.flat_input, rates.listed.flat_input)
        self._constants = {
            "_status": Outcome.SUCCEEDED.value,
            "_error": None,
            "_provider": chunk.provider,
            "_batch_id": chunk.batch_id,
            "_citations": None,
            "_run_id": chunk.run_id,
            "_enriched_at": enriched_at,
        }
        self.block = PlainBlock()

    def add(self, position: int, answer: Answer) -> bool:
        """Add an answer to the block; return False if it is not a plain one."""
        usage = answer.usage
        if (
            answer.outcome is not Outcome.SUCCEEDED
            or answer.text is None
            or answer.error is not None
            or answer.last is not None
            or answer.citations
            or not answer.readable
            or not self._is_flat(usage)
        ):
            return False
        cost = self._cost(usage)
        # what costs more than its bound is told; nothing is known of rows whose earlier cost is not
        if cost > (self._sent.bounds[position] or 0) or position in self._sent.unknown_costs:
            return False
        read = self._read or self._reader((self._sent.schemas or [])[position])
        values = None if answer.blank else read(answer.text)
        if values is None:
            return False
        self.block.add(position, answer, answer.model or self._chunk.model, values, cost)
        return True

    def _is_flat(self, usage: Usage) -> bool:
        """Whether a usage can be, and `Rates.flat_cost` tells what it costs."""
        sent, received, read, written, written_1h, *others = usage
        return (
            read + written + written_1h <= sent <= self._most_input
            and sent > 0
            and received <= MOST_TOKENS
            and not any(others)
        )

    def _reader(self, schema: str | None) -> ColumnReader:
        if schema not in self._readers:
            response = self._schemas.of(schema)
            is_quoted = response is not None and response.quoted  # its passages are to be found
            read = self._schemas.column_reader(schema)
            self._readers[schema] = (lambda _text: None) if is_quoted else read
        return self._readers[schema]

    def batch(self, block: PlainBlock) -> pa.RecordBatch:
        """Return the rows of a block."""
        rows = self._sent.at(block.positions)
        arrays = self._sent.carried(rows, block.positions) | self._metadata(rows, block)
        common = self._schemas.common
        names = ["response"] if common is None else common.arrow.names
        for name, values in zip(names, zip(*block.values, strict=True), strict=True):
            arrays[name] = pa.array(values, self._columns.field(name).type)
        for column in self._columns:  # one that was added since they were sent
            if column.name not in arrays:
                arrays[column.name] = pa.nulls(rows.num_rows, column.type)
        ordered = [arrays[name] for name in self._columns.names]
        return pa.RecordBatch.from_arrays(ordered, schema=self._columns)

    def _metadata(self, rows: pa.RecordBatch, block: PlainBlock) -> dict[str, pa.Array]:
        count = rows.num_rows
        arrays = {
            name: pa.repeat(pa.scalar(value, META_FIELDS.field(name).type), count)
            for name, value in self._constants.items()
        }
        sent = self._chunk.batch_id is not None
        arrays["_custom_id"] = self._sent.custom_ids(rows) if sent else pa.nulls(count, pa.string())
        arrays["_fingerprint"] = rows.column("_fingerprint")
        arrays["_attempts"] = pc.add_checked(rows.column("_prior_attempts"), _ONE)
        arrays["_model"] = pa.array(block.models, pa.string())
        arrays["_response"] = pa.array(block.texts, pa.string())
        tokens = {
            "input": block.input_tokens,
            "output": block.output_tokens,
            "cache_read": block.cache_read_tokens,
        }
        for name, used in tokens.items():
            before = rows.column(f"_prior_{name}_tokens")
            arrays[f"_{name}_tokens"] = pc.add_checked(pa.array(used, pa.int64()), before)
        arrays["_cost_usd"] = pa.nulls(count, COST)
        if self._priced:
            costs = pa.array(block.costs, pa.int64())
            arrays["_cost_usd"] = cost_column(pc.add_checked(costs, rows.column("_prior_cost")))
        return arrays


def _no_cost(usage: Usage) -> int:
    del usage
    return 0
