"""Answers that cost more than their proven bound, in real runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.money import usd
from batchata_tasks.ledger import Ledger
from tests.support.books import all_chunks, check_money, opened, run_with, stopping_at
from tests.support.table import APIS, MODELS, Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

WARNING = "1 answer above the upper bound"
LIMITS: list[dict[str, Any]] = [{"cost_limit_usd": 1}, {"budget": {"name": "b", "limit_usd": 1}}]


pytestmark = pytest.mark.in_turn


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of twelve rows, for each provider.

    The first answer of one of them is dear.
    """
    emulator.control.faults(kind="request_dear", contains="row 2", times=1)
    return Table(tmp_path, emulator, request.param, rows=12)


def factor(table: Table) -> float:
    with opened() as ledger:
        return ledger.bounds_factor(table.provider, MODELS[table.provider]) / 10**6


def per_row(upper_bound: str | None, rows: int) -> Decimal:
    return Decimal(upper_bound or "") / rows


@pytest.mark.parametrize("limit", LIMITS, ids=["own limit", "budget"])
def test_under_a_limit_nothing_more_is_sent(table: Table, limit: dict[str, Any]) -> None:
    """The run ends with its limit reached, and says why.

    Bounds grow, and the next run uses the new ones.
    """
    first = table.run(items_per_batch=4, max_parallel_batches=1, **limit)
    assert (first.result, first.exit_code, first.unsent_rows) == ("cost_limit_reached", 4, 8)
    assert any(text.startswith(WARNING) for text in first.warnings)
    assert table.ledger()["requests_accepted"] == len(table.rows()) == 4
    grown = factor(table)
    assert grown > 1.1
    second = table.run(items_per_batch=4, max_parallel_batches=1, **limit)
    assert (second.exit_code, second.warnings) == (0, [])
    # rows are not all of one length
    ratio = per_row(second.upper_bound_usd, 8) / per_row(first.upper_bound_usd, 12)
    assert ratio == pytest.approx(Decimal(grown), rel=Decimal("0.05"))
    assert table.ledger()["requests_accepted"] == 12
    assert factor(table) == grown
    check_money(table)


def test_what_is_under_way_lands(table: Table) -> None:
    """Batches at the provider when the answer comes are landed and paid.

    Chunks that wait are not sent.
    """
    with ThreadPoolExecutor(1) as pool:
        with open_batches(table.emulator):
            run = pool.submit(
                table.run, items_per_batch=4, max_parallel_batches=2, cost_limit_usd=1
            )
            until(lambda: table.ledger()["requests_accepted"] == 8)
        receipt = run.result(PATIENCE)
    assert receipt.exit_code == 4
    assert table.ledger()["requests_accepted"] == len(table.rows()) == 8 + 4 * (receipt.batches - 2)
    assert receipt.unsent_rows == 12 - len(table.rows())
    assert check_money(table).reserved == 0


def test_without_a_limit_it_is_a_warning(table: Table) -> None:
    """Without a limit the run continues and warns; bounds grow all the same."""
    receipt = table.run(items_per_batch=4, max_parallel_batches=1)
    assert (receipt.exit_code, receipt.unsent_rows) == (0, 0)
    assert any(text.startswith(WARNING) for text in receipt.warnings)
    assert factor(table) > 1.1
    check_money(table)


def test_the_same_answer_counts_once(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that notes the answer, dies and lands it again raises the bounds no further.

    The stop stays.
    """
    factors: list[float] = []
    noted = Ledger.correct_bounds

    def dying(self: Ledger, *facts: Any, **more: Any) -> int:
        noted(self, *facts, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as dead:
        dead.setattr(Ledger, "correct_bounds", dying)
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=4, max_parallel_batches=1, cost_limit_usd=1)
    factors.append(factor(table))
    receipt = table.run(items_per_batch=4, max_parallel_batches=1, cost_limit_usd=1)
    assert (receipt.continued, receipt.exit_code) == (True, 4)
    assert factor(table) == factors[0] > 1.1


def test_a_run_that_dies_stopped_stays_stopped(table: Table) -> None:
    """The ledger has the reason for the stop: the process that carries the run on sends nothing."""
    steps = stopping_at("collect", lambda chunk: chunk.start == 0, KeyboardInterrupt(), after=True)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, steps, items_per_batch=4, max_parallel_batches=1, cost_limit_usd=1)
    receipt = table.run(items_per_batch=4, max_parallel_batches=1, cost_limit_usd=1)
    assert (receipt.continued, receipt.exit_code, receipt.unsent_rows) == (True, 4, 8)
    assert table.ledger()["requests_accepted"] == 4
    assert [chunk.rows for chunk in all_chunks() if chunk.batch_id] == [4]


def test_dear_answers_of_one_plan_do_not_multiply(table: Table) -> None:
    """Chunks planned with the same bounds raise them to the dearest answer and a tenth.

    They do not multiply each other's corrections.
    """
    table.emulator.control.faults(kind="request_dear", contains="row 3", times=1)
    receipt = table.run(items_per_batch=1)
    assert any(text.startswith("2 answers above") for text in receipt.warnings)
    bounds = {chunk.id: usd(chunk.bound or 0) for chunk in all_chunks()}
    dearest = max(
        row["_cost_usd"] / bounds[row["_custom_id"].partition("-")[0]] for row in table.rows()
    )
    assert factor(table) == pytest.approx(float(dearest) * 1.1, rel=1e-5)


@pytest.mark.parametrize("limit", LIMITS, ids=["own limit", "budget"])
def test_a_run_heeds_what_another_found(
    table: Table, tmp_path: Path, limit: dict[str, Any]
) -> None:
    """A dead run whose bounds another run has since found too low sends nothing when carried on.

    It says why.
    """
    (tmp_path / "other").mkdir()
    other = Table(tmp_path / "other", table.emulator, table.provider, rows=12)
    with pytest.raises(KeyboardInterrupt):
        run_with(
            other,
            stopping_at("submit", lambda _: True, KeyboardInterrupt()),
            name="other",
            items_per_batch=4,
            max_parallel_batches=1,
            **limit,
        )
    table.run(items_per_batch=4, max_parallel_batches=1, **limit)
    sent = table.ledger()["requests_accepted"]
    receipt = other.run(name="other", items_per_batch=4, max_parallel_batches=1, **limit)
    assert (receipt.continued, receipt.exit_code, receipt.unsent_rows) == (True, 4, 12)
    assert receipt.warnings == [
        (
            "another run had answers above the upper bounds that this one planned with; "
            "the next run plans with larger ones"
        )
    ]
    assert table.ledger()["requests_accepted"] == sent
    assert other.run(name="other", items_per_batch=4, **limit).exit_code == 0


def test_a_run_at_work_heeds_what_another_finds(table: Table) -> None:
    """Bounds that grow while a run's first batch is at the provider stop it before its second.

    Without a limit it continues.
    """
    for limit, code, sent in (({"cost_limit_usd": 1}, 4, 4), ({}, 0, 12)):
        with ThreadPoolExecutor(1) as pool:
            with open_batches(table.emulator):
                run = pool.submit(table.run, items_per_batch=4, max_parallel_batches=1, **limit)
                until(lambda: table.ledger()["requests_accepted"] == 4)
                with opened() as ledger:
                    ledger.correct_bounds(
                        table.provider, MODELS[table.provider], 10**6, 5 * 10**6, "another"
                    )
            assert run.result(PATIENCE).exit_code == code
        assert table.ledger()["requests_accepted"] == sent
