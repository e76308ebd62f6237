"""Receipts, `batchata costs` and `status` after real runs.

Every figure is the dataset's and the provider's.
"""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.api.cost_tracker import CostTracker
from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.reports.status import runs_remedies
from batchata_tasks.types.answer import Usage
from tests.support.books import run_with, stopping_at
from tests.support.operations import reconcile, runs_overview
from tests.support.table import MODELS, Table

pytestmark = pytest.mark.in_turn

ROWS = 8
BUDGET = {"name": "night", "limit_usd": 2, "period": "month"}


def costs(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["costs", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def money(found: dict[str, Any], *names: str) -> list[Decimal]:
    return [Decimal(found[f"{name}_usd"]) for name in names]


def check_dataset(table: Table) -> dict[str, Any]:
    """Check that the costs of the dataset are the sum of its rows, to the last digit.

    Returns these costs.
    """
    (dataset,) = [
        one for one in costs()["datasets"] if one["dataset"] == table.output.resolve().as_uri()
    ]
    settled, inside, superseded, overhead, unlanded = money(
        dataset, "settled", "in_dataset", "superseded", "overhead", "unlanded"
    )
    assert inside == sum(row["_cost_usd"] for row in table.rows())
    assert settled == inside + superseded + overhead + unlanded
    return dataset


def test_every_dollar_is_accounted_for(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled money is that of the dataset, of superseded rows and of overhead.

    There are retries, unknown and missing lines, a changed prompt, a changed row and a refresh.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.2")
    control = table.emulator.control
    for kind, text in (
        ("request_error", "row 1"),
        ("request_truncated", "row 2"),
        ("request_unknown_id", "row 3"),
        ("request_missing", "row 4"),
    ):
        control.faults(kind=kind, contains=text, times=1)
    receipts = [table.run(items_per_batch=3)]
    assert money(check_dataset(table), "superseded") == [0]
    table.values[5]["text"] += " anew"
    table.write()
    receipts.append(table.run())
    control.faults(kind="request_invalid_answer", contains="row 6")
    receipts.append(table.run(prompt="Say: {{ text }}"))
    dataset = check_dataset(table)
    assert min(money(dataset, "superseded", "overhead")) > 0
    assert [money(dataset, name)[0] for name in ("settled", "superseded", "overhead")] == [
        sum(Decimal(str(getattr(receipt, field))) for receipt in receipts)
        for field in ("cost_usd", "superseded_usd", "overhead_usd")
    ]
    assert money(costs()["total"], "settled", "in_flight") == [*money(dataset, "settled"), 0]


def test_a_receipt_tells_what_was_saved(table: Table) -> None:
    """List price and saving are those of the very tokens that were billed.

    The receipt gives the cost by row and by outcome.
    """
    table.emulator.control.faults(kind="request_refusal", contains="row 1")
    receipt = table.run(budget=BUDGET)
    rates, book = published_rates(table.provider, MODELS[table.provider]), table.ledger()
    assert rates is not None
    listed = Decimal(
        rates.list_cost(Usage(book["input_tokens_billed"], book["output_tokens_billed"]))
    ).scaleb(-12)
    assert Decimal(str(receipt.list_price_usd)) == listed
    assert Decimal(str(receipt.saved_usd)) == listed - Decimal(str(receipt.cost_usd)) > 0
    assert sum(Decimal(str(amount)) for amount in receipt.cost_by_outcome.values()) == Decimal(
        str(receipt.cost_usd)
    )
    assert receipt.cost_by_outcome.keys() == {"succeeded", "refused"}
    assert abs(
        Decimal(str(receipt.cost_per_row_usd)) * ROWS - Decimal(str(receipt.cost_usd))
    ) < Decimal("1e-11")
    assert receipt.budget == {
        "name": "night",
        "period": "month",
        "limit_usd": "2.000000000000",
        "spent_usd": receipt.cost_usd,
        "in_flight_usd": "0.000000000000",
        "left_usd": f"{2 - Decimal(str(receipt.cost_usd)):f}",
        "batches_of_others": 0,
        "reserved_by_others_usd": "0.000000000000",
        "expected_back_usd": "0.000000000000",
    }
    assert (receipt.reserved_usd, receipt.cached_share, receipt.waits) == ("0.000000000000", 0.0, 0)
    lines = dict(receipt.lines())
    assert lines["Expected"].startswith("$0.00")
    assert Decimal(str(receipt.expected_usd)) > 0
    assert " against the list price of $" in lines["Saved"]
    assert lines["Budget"].startswith("night: $0.00")
    again = table.run(budget=BUDGET)
    assert (again.cost_usd, again.list_price_usd, again.cost_per_row_usd, again.cached_share) == (
        "0.000000000000",
        "0.000000000000",
        None,
        None,
    )


def test_costs_by_spec_budget_model_and_day(table: Table) -> None:
    """Each of four groupings has all the money.

    Groups add up to the total, with a tracker's spend.
    """
    table.run(budget=BUDGET, name="first")
    table.run(Options(take_over=True), prompt="Say: {{ text }}", name="second")
    CostTracker(name="night").track_spend("0.5")
    names = {
        "spec": {"first", "second", None},
        "budget": {"night", None},
        "model": {MODELS[table.provider], None},
    }
    for by in ("spec", "budget", "model", "day"):
        report = costs("--by", by)
        assert {group["name"] for group in report["groups"]} == names.get(
            by, {group["name"] for group in report["groups"]}
        )
        for name in ("settled", "list_price", "saved", "superseded", "overhead", "in_flight"):
            assert (
                sum(money(group, name)[0] for group in report["groups"])
                == money(report["total"], name)[0]
            )
    assert (report["total"]["runs"], report["total"]["batches"], report["total"]["rows"]) == (
        2,
        2,
        2 * ROWS,
    )
    (budget,) = report["budgets"]
    (night,) = [group for group in costs("--by", "budget")["groups"] if group["name"] == "night"]
    assert budget["spent_usd"] == night["settled_usd"]
    assert sum(money(budget, "spent", "left")) == 2
    assert costs("--since", "2100-01-01")["groups"] == []
    text = CliRunner().invoke(app, ["costs", "--set-budget", "night=3.5"]).stdout
    assert "(outside of runs)" in text
    assert costs()["budgets"][0]["limit_usd"] == "3.500000000000"


@pytest.mark.parametrize(
    "words",
    [
        ["--set-budget", "night=5"],
        ["--set-budget", "night"],
        ["--set-budget", "night=lots"],
        ["--since", "monday"],
    ],
)
def test_wrong_words_are_refused(words: list[str]) -> None:
    """The error is one sentence, and the exit code 2."""
    done = CliRunner().invoke(app, ["costs", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {words[0]}")


def test_an_empty_ledger_has_no_costs() -> None:
    """There is no table, and the total is zero."""
    assert "nothing was spent" in CliRunner().invoke(app, ["costs"]).stdout
    assert costs()["groups"] == []


def test_status_tells_stopped_from_running(table: Table) -> None:
    """A run whose process died is stopped, with the remedy.

    While a process holds the dataset, it is running.
    """
    seen: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at(
                "poll",
                lambda _: bool(seen.extend(runs_overview(None))) or True,
                KeyboardInterrupt(),
            ),
        )
    assert [run["running"] for run in seen] == [True]
    assert runs_remedies(seen) == []
    (run,) = runs_overview(table.spec())
    assert (run["running"], run["result"]) == (False, None)
    assert Decimal(run["in_flight_usd"]) > 0
    text = CliRunner().invoke(app, ["status"]).stdout
    assert "stopped" in text
    assert "start the same command again" in text
    assert money(costs()["total"], "in_flight") == [Decimal(run["in_flight_usd"])]
    table.run()
    assert runs_remedies(runs_overview(None)) == []


def test_status_of_a_deleted_dataset(table: Table) -> None:
    """The ledger still has the runs of that folder, and `status` does not change it."""
    receipt = table.run()
    shutil.rmtree(table.output)
    assert [run["run_id"] for run in runs_overview(table.spec())] == [receipt.run_id]
    assert runs_overview(table.spec(output=str(table.folder / "elsewhere"))) == []
    assert not table.output.exists()


def test_a_rebuilt_ledger_knows_list_prices(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger rebuilt from commits has the same sums of savings and superseded cost."""
    table.emulator.control.faults(kind="request_error", contains="row 1", times=1)
    table.run()
    table.run(prompt="Say: {{ text }}")
    before = costs()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'rebuilt.db'}")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    after = costs()
    columns = (
        "rows",
        "settled_usd",
        "list_price_usd",
        "saved_usd",
        "superseded_usd",
        "overhead_usd",
        "cost_by_outcome",
    )
    assert {name: after["total"][name] for name in columns} == {
        name: before["total"][name] for name in columns
    }
    check_dataset(table)


def test_ages_are_whole_seconds(table: Table) -> None:
    """Batches that nobody owns are listed with an age that people can read."""
    table.emulator.control.foreign(table.provider, batches=1, requests=2)
    assert [type(stray["age"]) for stray in reconcile().to_json()["strays"]] == [int]
