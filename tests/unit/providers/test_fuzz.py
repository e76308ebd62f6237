"""No line of results, however odd, raises, loses its row, or makes its answer too cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.execution.collect import Collector, Report
from batchata_tasks.execution.judged import judge
from batchata_tasks.ledger import Chunk
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers.anthropic import results as anthropic_lines
from batchata_tasks.providers.openai import results as openai_lines
from batchata_tasks.providers.result_lines import never_ran, read_line
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.outcome import Outcome
from tests.support.by_day import examples
from tests.support.odd_lines import NAME, OddLine, files, odd_lines
from tests.support.result_lines import LINES
from tests.support.table import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.types.answer import Answer

READERS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "anthropic": anthropic_lines.answer_of,
    "openai": openai_lines.answer_of,
    "responses": openai_lines.answer_of,
}
USAGES = {
    "anthropic": anthropic_lines.usage_of,
    "openai": openai_lines.usage_of,
    "responses": openai_lines.usage_of,
}
RATES = {
    "anthropic": published_rates("anthropic", "claude-haiku-5-5"),
    "openai": published_rates("openai", "gpt-6-luna"),
    "responses": published_rates("openai", "gpt-6-luna"),
}
BOUND = 10**9
ROWS = 4
QUICK = settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(QUICK, max_examples=examples(100))
NIGHT = settings(QUICK, max_examples=20_000)
SHORT_NIGHT = settings(QUICK, max_examples=5_000)
TOKEN = "a" * 20
NAMES = [f"{TOKEN}-{letter * 24}" for letter in "bcde"]
PLAIN = AnswerSchemas()
MODEL = AnswerSchemas(ResponseSchema.from_json_schema(SCHEMA, "response_schema"))
SOURCE = pa.schema([pa.field("id", pa.string())])


def collected(
    dialect: str, answers: list[Answer], schemas: AnswerSchemas
) -> tuple[list[dict[str, Any]], Report]:
    """Return the rows that a chunk of four requests lands as, and the report of its money."""
    fields: dict[str, list[Any]] = {field.name: [None] * ROWS for field in SYSTEM_FIELDS}
    fields |= {
        "id": list("bcde"),
        "_row_id": [name.partition("-")[2] for name in NAMES],
        "_bound": [BOUND] * ROWS,
        "_changed": [False] * ROWS,
        **{f"_prior_{name}": [0] * ROWS for name in ("attempts", "cost")},
        **{f"_prior_{name}_tokens": [0] * ROWS for name in ("input", "output", "cache_read")},
    }
    manifest = pa.table(fields, schema=pa.schema([*SOURCE, *SYSTEM_FIELDS]))
    provider = "anthropic" if dialect == "anthropic" else "openai"
    chunk = Chunk(
        TOKEN, "run", "set", 1, "batch", provider, "m", dialect, 0, ROWS, 1, 4 * BOUND, "sent", "b"
    )
    columns = dataset_schema(SOURCE, schemas.common)
    collector = Collector(chunk, manifest, columns, schemas, RATES[dialect], 0, lambda _: {})
    otherwise = never_ran("", Outcome.EXPIRED, "the batch expired first")
    batches = list(collector.rows(answers, {}, otherwise))
    table = pa.Table.from_batches(batches, columns)
    table.validate(full=True)
    return table.to_pylist(), collector.report


def check_line(dialect: str, odd: OddLine) -> None:
    """Check all that must hold of one line."""
    answer = read_line(odd.line, READERS[dialect])
    if odd.named:
        assert answer.custom_id == NAME
        assert "a broken result line" not in (answer.error or "")
    outcome, error, _ = judge(answer, None)
    if outcome is Outcome.SUCCEEDED:
        assert (answer.text or "").strip()
    else:
        assert error
        assert len(error) <= 2000
        assert error.isprintable()
    rates = RATES[dialect]
    assert rates is not None
    if odd.usage is not None and odd.named:
        assert rates.cost(answer.usage) >= rates.cost(USAGES[dialect](odd.usage))
    if answer.text is not None:
        answer.text.encode()


def check_file(dialect: str, lines: list[tuple[str, OddLine]], schemas: AnswerSchemas) -> None:
    """Check all that must hold of a whole results file."""
    encoded = [odd.line.replace(NAME.encode(), name.encode()) for name, odd in lines]
    answers = [read_line(line, READERS[dialect]) for line in encoded if line.strip()]
    assert len(answers) == sum(bool(line.strip()) for line in encoded)
    rows, report = collected(dialect, answers, schemas)
    assert sorted(row["id"] for row in rows) == list("bcde")
    assert sum(tally.rows for tally in report.tallies.values()) == ROWS
    # a line is of a row, of nobody, or one too many for its row
    answered = len({answer.custom_id for answer in answers} & set(NAMES))
    assert len(answers) == report.unknown_lines + report.doubled_lines + answered
    settled = sum(tally.cost or 0 for tally in report.tallies.values()) + report.overhead
    in_rows = sum(int((row["_cost_usd"] or 0) * 10**12) for row in rows)
    assert settled == in_rows + report.overhead
    assert settled < 2**62
    for row in rows:
        if row["_status"] == "succeeded":
            assert (row["_response"] or "").strip()
        else:
            assert row["_error"]
    rates = RATES[dialect]
    assert rates is not None
    least = dict[str, int]()  # of lines that come twice, the dearest
    for name, odd in lines:
        if odd.usage is not None and odd.named:
            cost = rates.cost(USAGES[dialect](odd.usage))
            least[name] = max(cost, least.get(name, 0))
    assert settled >= sum(least.values())


@pytest.mark.sampled
@pytest.mark.parametrize("dialect", LINES)
def test_an_odd_line_costs_its_own_field_at_most(dialect: str) -> None:
    """It is one answer under its custom_id, never succeeds without a text, is never too cheap."""

    @QUICK
    @given(odd_lines(dialect))
    def check(odd: OddLine) -> None:
        check_line(dialect, odd)

    check()


@pytest.mark.sampled
@pytest.mark.parametrize("dialect", LINES)
def test_odd_lines_lose_no_row(dialect: str) -> None:
    """Whatever lines a file holds, each request is one row, and rows and money add up."""

    @FEW
    @given(files(dialect, NAMES), st.sampled_from([PLAIN, MODEL]))
    def check(lines: list[tuple[str, OddLine]], schemas: AnswerSchemas) -> None:
        check_file(dialect, lines, schemas)

    check()


@pytest.mark.slow
@pytest.mark.nights
@pytest.mark.parametrize("dialect", LINES)
def test_odd_lines_through_a_night(dialect: str) -> None:
    """The same holds of 20,000 lines and of 5,000 files."""

    @NIGHT
    @given(odd_lines(dialect))
    def check_one(odd: OddLine) -> None:
        check_line(dialect, odd)

    @SHORT_NIGHT
    @given(files(dialect, NAMES), st.sampled_from([PLAIN, MODEL]))
    def check_many(lines: list[tuple[str, OddLine]], schemas: AnswerSchemas) -> None:
        check_file(dialect, lines, schemas)

    check_one()
    check_many()
