"""Expected costs: first a guess, then the usage of finished batches of the spec and model."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.money import dollars, exact, usd
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.summary import Options
from batchata_tasks.spec.loading import load_spec
from tests.support.books import all_chunks, money, opened
from tests.support.operations import preview
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.ledger import UsageHistory

pytestmark = pytest.mark.in_turn

ROWS = 40


def usual_of(table: Table) -> UsageHistory:
    with opened() as ledger:
        history = ledger.usage_history(table.provider, MODELS[table.provider], "table")
    assert history is not None
    return history


def within(expected: int | None, actual: int, share: float) -> bool:
    assert expected is not None
    return abs(expected - actual) <= share * actual


def test_before_the_first_batch_it_is_a_guess_and_says_so(table: Table) -> None:
    """The guess is at most the bound, and dearer at list price than in a batch.

    Text and JSON both call it a guess.
    """
    found = preview(table.spec())
    plan, told = found.to_json(), dict(found.lines())
    assert plan["calibrated_by"] == 0
    assert "a guess: no batch of this spec has finished yet" in told["Expected"]
    assert 0 < Decimal(plan["expected_usd"]) <= Decimal(plan["upper_bound_usd"])
    assert Decimal(plan["expected_list_price_usd"]) > Decimal(plan["expected_usd"])
    assert 0 < plan["output_tokens"] <= 40 * 200 / 4


def test_a_finished_batch_calibrates_the_next_plan(table: Table) -> None:
    """The estimate for rows like those that ran is what they then cost, within 15 %.

    Chunks carry it, too.
    """
    table.run(limit=20)
    plan = preview(table.spec())
    assert "(from the last batch)" in dict(plan.lines())["Expected"]
    before = money(table).settled
    receipt = table.run(items_per_batch=10)
    actual = money(table).settled - before
    assert within(plan.summary.expected, actual, 0.15)
    assert receipt.expected_usd == exact(plan.summary.expected)
    chunks = all_chunks()[-2:]
    assert [chunk.rows for chunk in chunks] == [10, 10]
    assert within(sum(chunk.expected or 0 for chunk in chunks), actual, 0.15)


def test_the_receipt_expects_what_the_plan_said(table: Table) -> None:
    """Also if further rounds are expected, and if a limit stops the run before its last row."""
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 1")
    table.run(limit=15, max_attempts=2)
    little = float(usd((preview(table.spec(limit=1)).summary.bound or 0) * 6 // 5))
    for change in ({"limit": 10}, {"cost_limit_usd": little}):
        plan = preview(table.spec(**change)).summary
        receipt = table.run(**change)
        assert receipt.expected_usd == exact(plan.expected)
        told = f"{dollars(plan.expected)} for all rows" if receipt.unsent_rows else None
        assert dict(receipt.lines())["Expected"] == (told or dollars(plan.expected))
    assert receipt.unsent_rows


def test_other_specs_and_models_do_not_calibrate(table: Table) -> None:
    """Another name or another model begins with a guess."""
    table.run(limit=5)
    assert preview(table.spec()).summary.calibrated_by == 1
    assert preview(table.spec(name="other"), Options(take_over=True)).summary.calibrated_by == 0
    other = {"anthropic": "claude-sonnet-4-5", "openai": "gpt-4.1"}[table.provider]
    assert preview(table.spec(model=other)).summary.calibrated_by == 0


def test_requests_that_never_ran_do_not_calibrate(table: Table) -> None:
    """A batch of which half expired counts for the half that ran.

    Tokens per request stay the same.
    """
    table.run(limit=20)
    whole = usual_of(table)
    table.emulator.control.faults(kind="batch_expires", count=1, share=0.5)
    table.run(max_attempts=1, rerun_on=["new"])
    both = usual_of(table)
    assert (both.batches, both.requests) == (2, 30)
    assert both.output_tokens / both.requests == pytest.approx(
        whole.output_tokens / whole.requests, rel=0.2
    )
    assert both.input_tokens / both.bytes == pytest.approx(
        whole.input_tokens / whole.bytes, rel=0.1
    )


def test_further_rounds_are_expected_where_there_were_some(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every answer was truncated and sent again, the next plan expects to pay for that, too."""
    # in a table of a single kind of rows, such a first round would be the last
    monkeypatch.setattr("batchata_tasks.pipeline.trouble.MANY", 10**6)
    changes: dict[str, Any] = {
        "response_schema": None,
        "prompt": "{{ text }} " + "and a word more " * 9,
        "max_tokens": 4,
    }
    table.run(limit=20, **changes)
    usual = usual_of(table)
    assert usual.requests == 20
    assert usual.again_input_tokens >= usual.input_tokens
    before, found = money(table).settled, preview(table.spec(**changes))
    table.run(**changes)
    assert within(found.summary.expected, money(table).settled - before, 0.15)


def test_a_cut_chunk_shares_what_is_expected_of_it(table: Table) -> None:
    """The parts of a split chunk share its estimate, to the picodollar."""
    bound = preview(table.spec()).summary.bound
    assert bound is not None
    table.run(cost_limit_usd=bound * 2 / 3 / 1e12)
    chunks = [chunk for chunk in all_chunks() if chunk.round == 1]
    plan = preview(table.spec(output=str(table.folder / "new"), name="new")).summary
    assert len(chunks) > 1
    assert sum(chunk.expected or 0 for chunk in chunks) == plan.expected


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "gpt-6-luna"])
def test_the_plain_case_is_expected_within_15_percent(
    emulator: Emulator, tmp_path: Path, model: str
) -> None:
    """After one batch of 100 rows of data/packages.csv, the estimate of the other 300 is right.

    It is within 15 % of their cost.
    """
    changes = [f"output={tmp_path / 'out'}", f"model={model}"]
    path = "deployments/specs/package-topics.yaml"
    first = enrich(load_spec(path, [*changes, "limit=100"]))
    found, rest = preview(load_spec(path, changes)), enrich(load_spec(path, changes))
    assert (first.outcomes, rest.outcomes) == ({"succeeded": 100}, {"succeeded": 300})
    assert rest.cost_usd is not None
    assert within(found.summary.expected, int(Decimal(rest.cost_usd) * 10**12), 0.15)


def test_a_tokenizer_counts_a_sample_of_the_plan(emulator: Emulator, tmp_path: Path) -> None:
    """Before an OpenAI model's first batch, the tokens of some rows are counted.

    Digits make more than one token in four bytes.
    """
    table = Table(tmp_path, emulator, "openai", rows=500)
    for value in table.values:
        value["text"] = "1 2 3 4 5 6 7 8 9 " * 40
    table.write()
    plan = preview(table.spec()).summary
    assert 500 * 600 < plan.input_tokens < 500 * 900
    assert "bpe_openai" not in sys.modules  # it takes 70 MB more than its tables
