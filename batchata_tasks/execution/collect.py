"""Collecting: every request of a chunk gets exactly one outcome, whatever the provider returned.

Results are read once, as a stream, in the provider's order, and joined to the chunk's rows by
custom_id. Lines that are doubled count once (an answer before an error, since it is paid), at the
cost of the dearest; lines that nobody sent are reported, and a request without a line ends as
missing, or as what the batch says about it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.execution.earlier import SAID
from batchata_tasks.execution.judged import judge, lacks_evidence, with_answer
from batchata_tasks.execution.plain_rows import PlainBlock, PlainRows
from batchata_tasks.execution.priced import Priced
from batchata_tasks.execution.sent_rows import SENT_FIELDS, SentRows
from batchata_tasks.ledger import OutcomeTotals
from batchata_tasks.planning.fingerprint import changed, schema_part, with_schema
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import (
    ErrorCode,
    Outcome,
    describe,
    error_code,
    is_attempt,
    outcome_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from batchata_tasks.execution.earlier import RetiredValues
    from batchata_tasks.execution.quoted import QuotedFields
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.schema.answers import AnswerSchemas
    from batchata_tasks.schema.response import ResponseSchema

_BLOCK = 4096
_NOTHING = Usage()
_MILLION = 10**6
_WITHOUT_ANSWER = (Outcome.ERRORED, Outcome.EXPIRED, Outcome.CANCELED, Outcome.MISSING)


@dataclass
class Report:
    """Totals of one chunk's results; money in picodollars."""

    tallies: dict[str, OutcomeTotals] = field(default_factory=lambda: defaultdict(OutcomeTotals))
    overhead: int = 0  # paid for no row: unknown lines, requests whose cost cannot be read
    unreadable: int = 0  # requests that may have run, but no line says what they cost
    unknown_lines: int = 0
    doubled_lines: int = 0
    over_bound: int = 0  # answers that cost more than their proven bound
    unbelieved: int = 0  # answers that state a usage that cannot be
    # how the new attempt ended of rows that keep an earlier answer, by custom_id: outcome, error
    kept: dict[str, tuple[Outcome, str | None]] = field(
        default_factory=dict[str, tuple[Outcome, str | None]]
    )
    account: int = 0  # requests that the account lacked something for
    superseded: int = 0  # known costs of attempts at rows whose whole cost is unknown
    cache_saved: int = 0  # by the cache, against the same answers without one
    excess: int = 0  # the largest cost of an answer, in millionths of its bound
    answered: int = 0  # requests that ran, or may have, whatever came of it
    account_error: str | None = None  # what the provider said then
    read_lines: int = 0  # with an answer, or with an error in the provider's own words
    broken_lines: int = 0  # with neither


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
        earlier: Callable[[int], dict[str, Any]],
        retired: RetiredValues | None = None,
        reread: Iterable[str] = (),
        *,
        quoted: QuotedFields | None = None,
        leaves: bool = False,
    ) -> None:
        self._chunk = chunk
        self._quoted = quoted  # what finds the passages that fields rest on
        self._reread = set(reread)  # parts of models that read these rows' answers anew
        self._earlier = earlier  # what the row at a position had answered before
        self._leaves = leaves  # whether rows stay as they were if what they ask did not run
        self._columns = columns
        self._answers = answers
        self._rates = rates
        self._enriched_at = enriched_at
        self._sent = SentRows(manifest, chunk.id, columns, retired)
        self._plain = PlainRows(chunk, self._sent, columns, answers, rates, enriched_at)
        self._bounds = self._sent.bounds
        self._paid = array("q", bytes(8 * len(self._sent)))  # picodollars, by position
        self._doubled = dict[int, int]()  # the most that further lines of a row state, likewise
        self.report = Report()
        self.left = dict[int, str]()  # those rows, by position: outcome and error

    def rows(
        self, answers: Iterable[Answer], absent: Mapping[int, Answer], otherwise: Answer
    ) -> Iterator[pa.RecordBatch]:
        """Yield the chunk's rows, one per request, but for those that stay in an older part.

        A request without an answer takes `absent` of its position, or `otherwise`.
        """
        others = list[tuple[int, Answer]]()
        for position, answer in self._one_each(answers, absent, otherwise):
            if self._plain.add(position, answer):
                if len(self._plain.block.positions) == _BLOCK:
                    yield self._plain_batch()
            else:
                others.append((position, answer))
                if len(others) == _BLOCK:
                    yield self._record_batch(others)
                    others = []
        if self._plain.block.positions:
            yield self._plain_batch()
        if others:
            yield self._record_batch(others)
        # a line that came twice was billed once or twice: a dearer one counts, beside its row
        dearer = (cost - self._paid[position] for position, cost in self._doubled.items())
        self.report.overhead += sum(more for more in dearer if more > 0)

    def _one_each(
        self, answers: Iterable[Answer], absent: Mapping[int, Answer], otherwise: Answer
    ) -> Iterator[tuple[int, Answer]]:
        """Yield each request's position once, with its answer; count surplus lines."""
        report, positions, seen = self.report, self._sent.positions, bytearray(len(self._sent))
        # a line without an answer waits, since one with an answer may follow
        unpaid: dict[int, Answer] = {}
        for answer in answers:
            self._count_line(answer)
            position = positions.get(answer.custom_id)
            if position is None:
                report.unknown_lines += 1
                priced = Priced.of(answer.usage, self._rates, max(self._bounds, default=0))
                report.overhead += priced.cost or 0
                continue
            report.doubled_lines += bool(seen[position] or position in unpaid)
            if seen[position]:
                self._note_doubled(position, answer)
            elif answer.outcome is not Outcome.SUCCEEDED and _is_unpaid(answer):
                unpaid.setdefault(position, answer)
            else:
                seen[position] = 1
                yield position, answer
        for position in (i for i, done in enumerate(seen) if not done):
            yield position, unpaid.get(position) or absent.get(position, otherwise)

    def _note_doubled(self, position: int, answer: Answer) -> None:
        """Keep the most that a further line of an answered row states to have cost."""
        cost = Priced.of(answer.usage, self._rates, self._bounds[position]).cost or 0
        self._doubled[position] = max(cost, self._doubled.get(position, 0))

    def _plain_batch(self) -> pa.RecordBatch:
        """Return the rows of a block of plain answers, counted."""
        block, self._plain.block = self._plain.block, PlainBlock()
        self._count_plain(block)
        return self._plain.batch(block)

    def _count_plain(self, block: PlainBlock) -> None:
        """Add plain answers to the report, as `_count` does one by one."""
        report, count, usage = self.report, len(block.positions), block.usage()
        cost, list_cost = None, None
        if self._chunk.batch_id is not None:
            report.answered += count
        if self._rates is None:
            report.overhead += sum(self._bounds[position] or 0 for position in block.positions)
            report.superseded += self._sent.prior_costs(block.positions)
        else:
            for position, paid in zip(block.positions, block.costs, strict=True):
                self._paid[position] = paid
            # at one rate for all of them, the cost of their sum is the sum of their costs
            cost, list_cost = sum(block.costs), self._rates.list_cost(usage, count)
            report.cache_saved += self._rates.cost(usage.uncached(), count) - cost
        report.tallies[Outcome.SUCCEEDED] += OutcomeTotals(
            rows=count,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cost=cost,
            cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
            list_cost=list_cost,
        )

    def _record_batch(self, block: list[tuple[int, Answer]]) -> pa.RecordBatch:
        """Return rows of any answers, made one by one; there may be fewer rows than answers."""
        sent = self._sent.at([position for position, _ in block])
        as_sent = sent.select(SENT_FIELDS).to_pylist()
        names: list[str] = self._sent.custom_ids(sent).to_pylist()
        rows, positions, at = list[dict[str, Any]](), list[int](), list[int]()
        for i, (position, answer) in enumerate(block):
            row = self._row(position, answer, {**as_sent[i], "_custom_id": names[i]})
            if row is not None:
                rows.append(row)
                positions.append(position)
                at.append(i)
        kept = sent.take(pa.array(at, pa.int64())) if len(at) < len(block) else sent
        arrays = self._sent.carried(kept, positions)
        for column in self._columns:
            if column.name not in arrays:
                values = [row.get(column.name) for row in rows]
                arrays[column.name] = pa.array(values, type=column.type)
        ordered = [arrays[name] for name in self._columns.names]
        return pa.RecordBatch.from_arrays(ordered, schema=self._columns)

    def _row(self, position: int, answer: Answer, sent: dict[str, Any]) -> dict[str, Any] | None:
        """Return a row's answer and metadata; None if it stays as it was.

        `sent` is what its manifest says of it.
        """
        response = self._answers.of(sent["_schema"])
        answer = with_answer(answer, None if response is None else response.parse)
        self._count_trouble(answer)
        outcome, error, fields = self._judged(answer, sent)
        citations = list(answer.citations)
        if outcome is Outcome.SUCCEEDED and response is not None and response.quoted:
            citations = self._passages(sent["_custom_id"], response, answer)
            if problem := lacks_evidence(response, answer.text or "", citations):
                outcome, error, fields = (
                    Outcome.INVALID,
                    describe(ErrorCode.RESPONSE, problem),
                    dict[str, Any](),
                )
        cost, usage = self._count(position, answer, outcome)
        attempts, attempted = sent["_prior_attempts"], is_attempt(answer.outcome, answer.error)
        before, landed_at = dict[str, Any](), self._enriched_at
        if outcome is not Outcome.SUCCEEDED and (attempts or (self._leaves and not attempted)):
            before = self._earlier(position)
        is_free = cost == 0 or (cost is None and usage == _NOTHING and answer.readable)
        if not is_attempt(outcome, error) and is_free and self._stays(before, sent):
            self.left[position] = f"{outcome.value} {error or ''}"
            return None
        said = {"_citations": citations or None, "_response": answer.text}
        if before and attempts:
            if (kept := self._kept(before, sent)) is not None:
                self.report.kept[sent["_custom_id"]] = outcome, error
                outcome, error, fields = Outcome.SUCCEEDED, None, kept
                if not attempted:  # a refresh that goes on is to send it
                    landed_at = before["_enriched_at"]
            if kept is not None or answer.text is None:
                said |= {name: before[name] for name in SAID if name in before}
        return {
            **fields,
            "_status": outcome.value,
            "_error": error,
            "_attempts": attempts + attempted,
            "_provider": self._chunk.provider,
            "_model": answer.model or self._chunk.model,
            "_batch_id": self._chunk.batch_id,
            "_custom_id": None if self._chunk.batch_id is None else sent["_custom_id"],
            "_fingerprint": sent["_fingerprint"],
            **self._spent(sent, cost, usage),
            **said,
            "_run_id": self._chunk.run_id,
            "_enriched_at": landed_at,
        }

    def _passages(
        self, name: str, response: ResponseSchema, answer: Answer
    ) -> list[dict[str, Any]]:
        """Return the passages that the fields of an answer rest on."""
        if self._quoted is None or answer.text is None:
            return []
        return self._quoted(name, response, answer.text)

    def _spent(self, sent: dict[str, Any], cost: int | None, usage: Usage) -> dict[str, Any]:
        """Return what all attempts at a row used and cost, the last one included."""
        prior_cost, total = sent["_prior_cost"], None
        if cost is None or prior_cost is None:
            # an unknown part makes the sum unknown: no row holds the known one
            self.report.superseded += (cost or 0) + (prior_cost or 0)
        else:
            total = Decimal(cost + prior_cost).scaleb(-12)
        return {
            "_input_tokens": usage.input_tokens + sent["_prior_input_tokens"],
            "_output_tokens": usage.output_tokens + sent["_prior_output_tokens"],
            "_cache_read_tokens": usage.cache_read_tokens + sent["_prior_cache_read_tokens"],
            "_cost_usd": total,
        }

    def _stays(self, before: dict[str, Any], sent: dict[str, Any]) -> bool:
        """Whether a row stays as it was, since what it asks by now did not run.

        It does if it had a usable answer to something else: another prompt, model or response
        model, or other values. The next run that may sends it.
        """
        if sent["_batchata_left"] is not None:  # it landed before
            return True
        if not self._leaves or before.get("_status") != Outcome.SUCCEEDED:
            return False
        return before["_fingerprint"] != sent["_fingerprint"]

    def _kept(self, before: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer columns of a row that stays as it was, or None.

        It had a usable answer to the same request, and was sent all the same (by `--refresh`). That
        the new attempt brought none, since it was cancelled, say, takes nothing from it.
        """
        if before.get("_status") != Outcome.SUCCEEDED:
            return None
        fingerprint = before["_fingerprint"]
        if schema_part(fingerprint) in self._reread:  # it was asked for under the other one
            fingerprint = with_schema(fingerprint, schema_part(sent["_fingerprint"]) or "")
        if changed(fingerprint, sent["_fingerprint"]):
            return None
        earlier = Answer(sent["_custom_id"], Outcome.SUCCEEDED, before["_response"])
        outcome, _, fields = self._judged(earlier, sent)
        return fields if outcome is Outcome.SUCCEEDED else None

    def _count(self, position: int, answer: Answer, outcome: Outcome) -> tuple[int | None, Usage]:
        """Add an answer to the report; return its cost in picodollars, and what it used.

        The cost is None without a price, and if the line does not state all that it used. Then the
        most that it can have cost counts against a limit. A usage that cannot be is not believed:
        its answer costs its bound.
        """
        report, bound = self.report, self._bounds[position]
        priced = Priced.of(answer.usage, self._rates, bound)
        usage, cost, known = priced.usage, priced.cost, answer.readable
        self._paid[position] = (cost or 0) if known else max(bound, cost or 0)
        if not known and cost is not None:
            # no row holds it, so it is no outcome's cost, either
            report.overhead += max(bound, cost)
            cost = 0
        elif not known or (cost is None and usage != _NOTHING):
            report.overhead += bound
        report.unreadable += not known
        report.unbelieved += not priced.believed
        report.account += error_code(answer.error) is ErrorCode.ACCOUNT
        report.cache_saved += priced.cache_saved
        report.tallies[outcome] += OutcomeTotals(
            rows=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cost=cost,
            cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
            list_cost=priced.list_cost if known else cost,
        )
        if cost is not None and self._chunk.bound is not None and cost > bound:
            report.over_bound += 1
            report.excess = max(report.excess, -(-cost * _MILLION // max(bound, 1)))
        return (cost if known else None), usage

    def _count_line(self, answer: Answer) -> None:
        """Count a line as read or broken. One without a stated usage may be read all the same."""
        broken = (
            answer.text is None
            and not answer.readable
            and answer.outcome in (Outcome.ERRORED, Outcome.INVALID)
        )
        self.report.broken_lines += broken
        self.report.read_lines += not broken

    def _count_trouble(self, answer: Answer) -> None:
        """Count a row that was answered; keep what was said of the account."""
        report = self.report
        if self._chunk.batch_id is not None:
            report.answered += is_attempt(answer.outcome, answer.error)
        if error_code(answer.error) is ErrorCode.ACCOUNT:
            report.account_error = report.account_error or answer.error

    def _judged(
        self, answer: Answer, sent: dict[str, Any]
    ) -> tuple[Outcome, str | None, dict[str, Any]]:
        """Return outcome, error and answer columns of a row.

        If the provider refuses what a retry changed (a cap beyond the model's own, say), the row
        stays what it was: its own request was not wrong. It also does if a changed request brought
        no answer: the base request had one, and would be paid for again. Trouble of the account is
        told: the changed request goes out again once that is mended.
        """
        without = answer.outcome in _WITHOUT_ANSWER
        is_of_account = error_code(answer.error) is ErrorCode.ACCOUNT
        if sent["_changed"] and without and not is_of_account:
            before = sent["_prior_error"]
            return outcome_of(before), before, {}
        response = self._answers.of(sent["_schema"])
        outcome, error, fields = judge(answer, None if response is None else response.parse)
        if outcome is not Outcome.SUCCEEDED:
            return outcome, error, {}
        if response is None or self._answers.common is None:
            return outcome, error, {"response": answer.text}
        return outcome, error, fields or {}


def _is_unpaid(answer: Answer) -> bool:
    """Whether a line brings no answer and states no usage."""
    return answer.usage == _NOTHING and answer.outcome in _WITHOUT_ANSWER


def not_sent(error: str) -> Answer:
    """Return the answer of a row that was never sent, since it cannot be."""
    return Answer("", Outcome.ERRORED, error=error)
