"""A plan says what a run then does: the effects of limits, what it recovers and what it refuses."""

from __future__ import annotations

import shutil
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import dollars, exact, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.ledger import MoneyInFlight
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.pipeline.forecast import simulate
from batchata_tasks.planning.packing import PlannedChunk
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import opened, run_with, stopping_at
from tests.support.operations import preview, runs_overview
from tests.support.table import MODELS, Table, open_batches

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.in_turn

ROWS = 40


def limits(table: Table, **changes: Any) -> dict[str, Any]:
    plan = preview(table.spec(**changes)).to_json()["limits"]
    assert isinstance(plan, dict)
    return plan


@pytest.mark.parametrize("share", ["0.8", "0.3", "0.0001"], ids=["waits", "waits often", "stops"])
def test_what_a_limit_does_is_told_before(table: Table, share: str) -> None:
    """Calibrated by one batch, the plan says if the limit stops the run, and near which row."""
    table.run(limit=10)
    bound = preview(table.spec()).summary.bound
    assert bound is not None
    limit = {"cost_limit_usd": float(usd(int(bound * Decimal(share))))}
    told = limits(table, **limit)
    receipt = table.run(**limit)
    sent = 30 - receipt.unsent_rows
    assert told["rows"] + told["unsent"] == 30
    assert told["stops"] == (receipt.result == "cost_limit_reached")
    assert abs(told["rows"] - sent) <= 3
    assert abs(told["batches"] - receipt.batches) <= 2


def test_what_never_ran_is_not_recovered_from_lost_files(table: Table) -> None:
    """There are no results of it, so a plan says that it is sent, and what that may cost."""
    table.emulator.control.faults(kind="request_expired")
    table.run(limit=10)
    table.emulator.control.clear_faults()
    shutil.rmtree(table.output / "data")
    told = preview(table.spec(limit=10)).summary
    assert told.requests == table.run(limit=10).plan["requests"] == 10


def test_where_a_limit_cuts_batches_their_number_is_no_promise(table: Table) -> None:
    """A plan gives the least number of batches.

    Under a limit, it gives about how many they become.
    """
    bound = preview(table.spec()).summary.bound or 0
    limit = {"cost_limit_usd": float(usd(bound * 2 // 5))}
    told = dict(preview(table.spec(**limit)).lines())
    assert told["To send"].startswith("40 requests in at least 1 batch to ")
    assert " expected to be enough, with about " in told["Limits"]
    assert table.run(**limit).batches > 1
    assert dict(preview(table.spec(output=str(table.folder / "other"), cost_limit_usd=10)).lines())[
        "To send"
    ].startswith("40 requests in 1 batch to ")


def test_without_a_limit_nothing_is_said_of_limits(table: Table) -> None:
    """Without a limit nothing is said of limits; if all fits a limit, the plan says so."""
    assert preview(table.spec()).to_json()["limits"] is None
    plan = preview(table.spec(cost_limit_usd=10))
    assert (
        dict(plan.lines())["Limits"]
        == "$10.00 a run: enough for the most that one attempt at each row may cost"
    )


@pytest.mark.parametrize("share", ["0.95", "0.8"])
def test_a_cap_that_lets_all_fit_is_told(table: Table, share: str) -> None:
    """Where a limit would cut batches, the plan names the largest `max_tokens` that it need not.

    With that one all fits, with a slightly larger one it does not.
    """
    bound = preview(table.spec()).summary.bound or 0
    limit = {"cost_limit_usd": float(usd(int(bound * Decimal(share))))}
    plan = preview(table.spec(**limit))
    assert plan.limits is not None
    cap = plan.to_json()["limits"]["max_tokens_that_fits"]
    assert 50 <= cap < 200
    assert f"; with `max_tokens: {cap}` all of it would fit at once" in plan.limits.text()
    assert preview(table.spec(**limit, max_tokens=cap)).limits.fits
    assert not preview(table.spec(**limit, max_tokens=cap + 2)).limits.fits
    assert table.run(**limit, max_tokens=cap).batches == 1


def test_a_cap_that_answers_would_not_keep_to_is_not_told(table: Table) -> None:
    """No `max_tokens` is named if all fits anyway, or only one that would cut answers off."""
    bound = preview(table.spec()).summary.bound or 0
    for share in (2, Decimal("0.01")):
        limit = {"cost_limit_usd": float(usd(int(bound * share)))}
        told = limits(table, **limit)
        assert told["max_tokens_that_fits"] is None


def test_a_cap_that_sends_rows_again_says_so(table: Table) -> None:
    """Another `max_tokens` is another model: rows that landed would be sent again.

    So would those that are in flight.
    """
    table.run(limit=8)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()), limit=2)
    bound = preview(table.spec()).summary.bound or 0
    limit = {"cost_limit_usd": float(usd(int(bound * Decimal("0.9"))))}
    plan = preview(table.spec(**limit))
    assert plan.limits is not None
    assert "10 rows that are up to date or in flight would be sent again" in plan.limits.text()
    plan = preview(table.spec(**limit, rerun_on=["new"]))
    assert plan.limits is not None
    assert plan.limits.text().endswith("all of it would fit at once")


def test_a_budget_counts_with_what_others_left_of_it(table: Table) -> None:
    """A plan counts with what remains of the present period."""
    budget = {"name": "team", "limit_usd": 1, "period": "total"}
    receipt = table.run(limit=10, budget=budget)
    assert receipt.cost_usd is not None
    told = limits(table, budget=budget)
    assert Decimal(told["budget"]["left_usd"]) == 1 - Decimal(receipt.cost_usd)
    assert told["stops"] is False


def test_money_that_comes_back_from_what_is_in_flight_is_told_apart(table: Table) -> None:
    """What is left of a budget now is too little for the rest, and enough once it came back."""
    ahead = preview(table.spec(limit=20)).summary.bound or 0
    limit = float(f"{usd(2 * ahead * 9 // 10):f}")
    changes = {"items_per_batch": 20, "max_parallel_batches": 1}
    spec = table.spec(budget={"name": "team", "limit_usd": limit, "period": "total"}, **changes)
    with open_batches(table.emulator):
        with pytest.raises(SuspendedRunError):
            run_prepared(prepare_run(spec, Settings()), run="flow run 7", letting_go=LettingGo(0))
        plan = preview(spec).limits
        assert plan is not None
        assert plan.text().endswith(
            "once what is in flight has landed: enough for the most that one attempt at each row "
            "may cost, once what is in flight has landed"
        )
        lines = list[str]()
        with pytest.raises(SuspendedRunError):
            run_prepared(
                prepare_run(spec, Settings()),
                progress=LineProgress(lines.append),
                run="flow run 7",
                letting_go=LettingGo(0),
            )
    (line,) = [line for line in lines if line.startswith("about to send")]
    assert ". Its limits leave $" in line


def test_budgets_that_disagree_are_refused_by_a_plan_as_by_a_run(table: Table) -> None:
    """A plan refuses them in the run's words, and writes nothing."""
    table.run(limit=1, budget={"name": "team", "limit_usd": 1, "period": "total"})
    budget = {"name": "team", "limit_usd": 2, "period": "total"}
    other = table.spec(name="other", output=str(table.folder / "other"), budget=budget)
    with pytest.raises(SpecError, match=r"gives 'team' .*, and this gives it"):
        preview(other)
    with opened() as ledger:
        assert [terms.limit for terms in ledger.budgets()] == [10**12]


def test_what_a_killed_run_has_in_flight_is_told_apart(table: Table) -> None:
    """The reserved and the expected cost in flight are shown beside the cost of what is to be sent.

    Once it has landed, nothing is in flight.
    """
    table.run(limit=5)
    ahead = preview(table.spec(limit=20)).summary
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()), limit=20)
    found = preview(table.spec())
    plan, told = found.to_json(), dict(found.lines())
    (run, _) = runs_overview(table.spec())
    assert plan["in_flight_usd"] == run["in_flight_usd"] == exact(ahead.bound)
    assert plan["in_flight_expected_usd"] == exact(ahead.expected)
    assert told["In flight"] == (
        f"1 batch sent before: about {dollars(ahead.expected)} expected, at most "
        f"{dollars(ahead.bound)}, which is reserved"
    )
    assert (plan["requests"], plan["open_batches"]) == (15, 1)
    assert told["Cost"].startswith(
        f"at most {dollars(found.summary.bound)} more than what is in flight (upper bound"
    )
    table.run()
    plan = preview(table.spec()).to_json()
    assert Decimal(plan["in_flight_usd"]) == Decimal(plan["in_flight_expected_usd"]) == 0


def test_a_pilot_that_is_in_flight_is_not_sent_again(table: Table) -> None:
    """A suspended run is told as one, and its own pilot decides on the rest; a landed one has."""
    spec = table.spec(pilot={"rows": 3}, items_per_batch=100)
    with open_batches(table.emulator):
        with pytest.raises(SuspendedRunError):
            run_prepared(prepare_run(spec, Settings()), run="flow run 7", letting_go=LettingGo(0))
        plan = preview(spec)
        told = dict(plan.lines())
        assert told["Pilot"] == "its 3 rows are in flight; the others are sent only if it holds"
        assert (plan.summary.pilot, plan.summary.batches) == (0, 1)
        assert told["First"] == (
            "under way: 1 batch of a run that is suspended until they have ended, and is resumed "
            "then; `run` goes on with it now"
        )
        # another spec's run begins anew, with a pilot of its own
        assert preview(table.spec(pilot={"rows": 4}, items_per_batch=100)).summary.pilot == 4
    with pytest.raises(KeyboardInterrupt):  # killed once it has landed
        run_with(
            table,
            stopping_at("submit", lambda chunk: chunk.start >= 3, KeyboardInterrupt()),
            pilot={"rows": 3},
            items_per_batch=100,
        )
    told = dict(preview(spec).lines())
    assert "Pilot" not in told


def test_open_batches_whose_files_are_gone_are_not_called_answered(table: Table) -> None:
    """The folder is deleted while a batch is open: its rows are told as open, not as answered."""
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()))
    shutil.rmtree(table.output)
    told = dict(preview(table.spec()).lines())["Recovered"]
    assert told.startswith(f"up to {ROWS} of these requests are in earlier batches that have not ")
    assert "answered" not in told
    table.run()
    assert len(table.rows()) == ROWS
    assert table.ledger()["requests_accepted"] == ROWS


def test_a_plan_makes_no_ledger(table: Table) -> None:
    """Before the first run, a plan leaves nothing behind, not even a ledger."""
    path = table.folder / "ledger.db"
    assert not path.exists()
    preview(table.spec(cost_limit_usd=1, budget={"name": "team", "limit_usd": 1, "period": "day"}))
    assert not path.exists()
    assert not table.output.exists()


def test_bounds_that_were_found_too_low_count_in_a_plan(table: Table) -> None:
    """A plan shows the bound that the run will reserve."""
    table.run(limit=1)
    before = preview(table.spec()).summary.bound
    with opened() as ledger:
        factor = ledger.correct_bounds(
            table.provider, MODELS[table.provider], 10**6, 2 * 10**6, "c"
        )
    after = preview(table.spec()).summary.bound
    assert before is not None
    assert after is not None
    assert after == pytest.approx(before * factor / 10**6, rel=1e-6)


def lose_part(table: Table) -> None:
    for path in (table.output / "data").iterdir():
        path.unlink()


def lose_all(table: Table) -> None:
    shutil.rmtree(table.output)


@pytest.mark.parametrize("lose", [lose_part, lose_all])
def test_a_plan_says_that_lost_rows_are_fetched_again(
    table: Table, lose: Callable[[Table], None]
) -> None:
    """If the ledger knows the batches of lost rows, the plan says that nothing is sent for them.

    The run sends nothing.
    """
    table.run()
    lose(table)
    found = preview(table.spec())
    plan = found.to_json()
    assert "nothing is sent for them" in dict(found.lines())["Recovered"]
    assert plan["recovered"] + plan["recoverable_rows"] == 40
    assert Decimal(plan["expected_usd"]) == 0
    receipt = table.run()
    assert (receipt.batches, table.ledger()["requests_accepted"]) == (0, 40)


def test_new_rows_beside_lost_ones_are_still_expected_to_be_sent(table: Table) -> None:
    """Of forty lost and ten new rows, ten have an expected cost."""
    table.run()
    shutil.rmtree(table.output)
    whole = preview(table.spec()).summary
    table.values += [
        {"id": f"new{i}", "text": f"text of row {i + 50}", "note": ""} for i in range(10)
    ]
    table.write()
    plan = preview(table.spec())
    assert whole.expected == 0
    assert (plan.summary.requests, plan.recoverable) == (50, 40)
    expected = plan.summary.expected
    table.run()
    with opened() as ledger:
        run = ledger.runs_of(None, 1)[0]
        settled, _ = ledger.money(run.id)
    assert expected == pytest.approx(settled, rel=0.15)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 900)), min_size=1, max_size=12),
    share=st.integers(0, 120),
    left=st.none() | st.integers(0, 20_000),
    parallel=st.integers(1, 5),
    pilot=st.integers(0, 60),
    budget=st.none() | st.integers(0, 20_000),
    back=st.lists(st.integers(0, 900), max_size=4),
)
def test_a_play_of_the_guard_ends_and_adds_up(
    sizes: list[tuple[int, int]],
    share: int,
    left: int | None,
    parallel: int,
    pilot: int,
    budget: int | None,
    back: list[int],
) -> None:
    """For any plan, rows sent and rows not sent are all rows.

    Without a limit, or under one that covers the bound, all are sent. Who waits for others sends
    no fewer.
    """
    spans, start = list[PlannedChunk](), 0
    for rows, bound in sizes:
        spans.append(PlannedChunk(start, start + rows, rows * 100, bound))
        start += rows
    costs = [span.bound * share // 100 for span in spans]
    outcome = simulate(spans, costs, left, parallel, pilot, budget)
    assert outcome.rows + outcome.unsent == start
    limits, bound = [one for one in (left, budget) if one is not None], sum(b for _, b in sizes)
    if budget is not None:
        others = [MoneyInFlight(1, 900, one) for one in back]
        waited = simulate(spans, costs, left, parallel, pilot, budget, others)
        assert waited.rows + waited.unsent == start
        if not others or min(limits) + sum(back) >= bound:
            assert waited.rows >= outcome.rows
    if not limits or min(limits) >= bound:
        assert (outcome.batches, outcome.waits, outcome.unsent) == (len(spans), 0, 0)
