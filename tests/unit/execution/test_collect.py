"""A chunk's rows and money do not depend on which answers are read by columns."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.manifest import SYSTEM_FIELDS
from batchata_tasks.execution import collect
from batchata_tasks.execution.collect import Collector, Report
from batchata_tasks.execution.plain_rows import PlainRows
from batchata_tasks.ledger import Chunk
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.pricing.rates import PriceList, Rate, Rates
from batchata_tasks.providers.result_lines import never_ran
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import Outcome
from tests.support.by_day import examples

QUICK = settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
TOKEN = "a" * 20
ROWS = 6
IDS = [letter * 24 for letter in "bcdefg"]
NAMES = [f"{TOKEN}-{name}" for name in IDS]
SOURCE = pa.schema([pa.field("id", pa.string()), pa.field("note", pa.string())])
TIERED = PriceList(
    input=Rate(7, ((50, 11),)),
    output=Rate(13),
    cache_read=Rate(2),
    cache_write=Rate(9, ((60, 3),)),
    cache_write_1h=Rate(17),
    search=10**6,
)
PRICES = {
    "input": Rate(5),
    "output": Rate(25, ((90, 5),)),
    "cache_read": Rate(1),
    "cache_write": Rate(6),
    "cache_write_1h": Rate(8),
    "search": 10,
}
RATES = [
    None,
    Rates(**PRICES, listed=TIERED, source="test"),
    published_rates("anthropic", "claude-haiku-5-5"),
]
MODEL = ResponseSchema.from_json_schema(
    {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "response"
)
SCHEMAS = [AnswerSchemas(), AnswerSchemas(MODEL), AnswerSchemas(None, {"d": MODEL})]
TOKENS = st.integers(0, 120)
CACHED = st.sampled_from([0, 0, 0, 1, 30])
USAGES = st.tuples(TOKENS, TOKENS, CACHED, CACHED, CACHED).map(lambda counts: Usage(*counts))
TEXTS = st.sampled_from(
    ['{"n": 1}', '{"n": 2}', '{"n": "2"}', '{"n": 3, "m": 4}', '{"n": 2.5}', "said"]
)
USUAL = st.builds(
    Answer,
    st.sampled_from(NAMES),
    st.just(Outcome.SUCCEEDED),
    text=TEXTS,
    error=st.none(),
    usage=USAGES,
    model=st.sampled_from([None, "m-1"]),
    readable=st.just(True),
    citations=st.just(()),
    last=st.none(),
)
ODD: list[dict[str, Any]] = [
    {"custom_id": "nobody"},
    {"outcome": Outcome.TRUNCATED, "error": "truncated: x"},
    {"outcome": Outcome.ERRORED, "error": "account: x", "text": None},
    {"outcome": Outcome.ERRORED, "error": "provider: x", "text": None, "usage": Usage()},
    {"outcome": Outcome.EXPIRED, "error": "never_ran: x", "text": None, "usage": Usage()},
    *({"text": text} for text in (None, "", " \u200b")),
    *(
        {"usage": usage}
        for usage in (Usage(), Usage(5, 5, 9), Usage(2**24 + 1, 1), Usage(1, 2**25))
    ),
    {"usage": Usage(9, 9, web_searches=2)},
    {"usage": Usage(9, 9, us_only=True)},
    {"usage": Usage(9, 9, iterations=(Usage(60, 3), Usage(2, 1)))},
    {"readable": False},
    {"citations": ({"cited_text": "x"},)},
    {"last": '{"n": 5}'},
    {"error": "provider: it says so"},
]
ANSWERS = USUAL | st.builds(lambda one, odd: one._replace(**odd), USUAL, st.sampled_from(ODD))
MANIFESTS = st.fixed_dictionaries(
    {
        "_bound": st.lists(
            st.sampled_from([50, 2000, 10**12, 10**12]), min_size=ROWS, max_size=ROWS
        ),
        "_prior_cost": st.lists(st.sampled_from([0, 0, 0, 7, None]), min_size=ROWS, max_size=ROWS),
        "_prior_attempts": st.lists(st.integers(0, 2), min_size=ROWS, max_size=ROWS),
        "_prior_input_tokens": st.lists(st.integers(0, 9), min_size=ROWS, max_size=ROWS),
        "_changed": st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    }
)


def manifest_of(changes: dict[str, list[Any]], schema: str | None) -> pa.Table:
    zeros = [f"_prior_{name}_tokens" for name in ("output", "cache_read")]
    fields: dict[str, list[Any]] = {field.name: [None] * ROWS for field in SYSTEM_FIELDS}
    fields |= {name: [0] * ROWS for name in zeros}
    fields |= {"id": list("bcdefg"), "note": ["x", None, "y", "z", "", "é"], "_row_id": IDS}
    fields |= {"_fingerprint": [f"f{name}" for name in IDS], "_schema": [schema] * ROWS, **changes}
    whole = pa.table(fields, schema=pa.schema([*SOURCE, *SYSTEM_FIELDS]))
    return pa.concat_tables([whole.slice(0, 2), whole.slice(2)])


def collected(
    answers: list[Answer],
    manifest: pa.Table,
    schemas: AnswerSchemas,
    rates: Rates | None,
    batch_id: str | None = "batch",
) -> tuple[list[dict[str, Any]], Report]:
    bound = None if rates is None else 10**13
    chunk = Chunk(
        TOKEN, "run", "set", 1, "batch", "p", "m", "chat", 0, ROWS, 1, bound, "sent", batch_id
    )
    added = pa.field("added", pa.int64())  # a column that the dataset got since
    columns = dataset_schema(pa.schema([*SOURCE, added]), schemas.common)

    def said(position: int) -> dict[str, Any]:
        return {"_response": f"before {position}"}

    collector = Collector(chunk, manifest, columns, schemas, rates, 99, said)
    otherwise = never_ran("", Outcome.EXPIRED, "the batch expired first")
    with patch.object(collect, "_BLOCK", 2):
        batches = list(collector.rows(answers, {}, otherwise))
    table = pa.Table.from_batches(batches, columns)
    table.validate(full=True)
    return sorted(table.to_pylist(), key=lambda row: row["id"]), collector.report


@QUICK
@given(
    st.lists(ANSWERS, min_size=3, max_size=10),
    MANIFESTS,
    st.sampled_from(SCHEMAS),
    st.sampled_from(RATES),
    st.sampled_from(["batch", None]),
)
def test_rows_and_money_are_the_same_by_columns(
    answers: list[Answer],
    changes: dict[str, list[Any]],
    schemas: AnswerSchemas,
    rates: Rates | None,
    batch_id: str | None,
) -> None:
    """Each row, to its last field, and each total, to the picodollar."""
    manifest = manifest_of(changes, "d" if schemas.own else None)
    by_columns = collected(answers, manifest, schemas, rates, batch_id)
    with patch.object(PlainRows, "add", lambda *_: False):
        one_by_one = collected(answers, manifest, schemas, rates, batch_id)
    assert by_columns == one_by_one
    assert [row["id"] for row in by_columns[0]] == list("bcdefg")


@pytest.mark.parametrize("schemas", SCHEMAS)
def test_usual_answers_are_read_by_columns(schemas: AnswerSchemas) -> None:
    """None of them is read one by one, or nothing would be gained; also if they came shuffled."""
    usage = Usage(9, 9, 1)
    answers = [Answer(name, Outcome.SUCCEEDED, '{"n": 1}', usage=usage) for name in NAMES]
    changes = {name: [0] * ROWS for name in ("_prior_cost", "_prior_attempts")}
    changes |= {"_prior_input_tokens": [0] * ROWS, "_bound": [10**12] * ROWS}
    manifest = manifest_of(changes, "d" if schemas.own else None)
    with patch.object(Collector, "_record_batch", lambda *_: pytest.fail("one by one")):
        rows, report = collected([*answers[3:], *answers[:3]], manifest, schemas, RATES[2])
    assert [row["_custom_id"] for row in rows] == NAMES
    assert [row["note"] for row in rows] == ["x", None, "y", "z", "", "é"]
    assert report.tallies[Outcome.SUCCEEDED].rows == ROWS
