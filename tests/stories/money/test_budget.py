"""Shared budgets in real runs: two specs on two datasets, one limit."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from platform import node
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks import CostTracker
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import CredentialsError, SpecError, WrongLedgerError
from batchata_tasks.common.files import read_json
from batchata_tasks.common.money import pico_from_usd, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution import guard as guards
from batchata_tasks.ledger import BudgetTerms, Chunk
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import billed, opened, run_with, stopping_at
from tests.support.operations import preview
from tests.support.table import MODELS, Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.reports.preview import Preview

_DAY_US = 86_400 * 10**6


class Pair:
    """Two tables with a spec each, which share a budget for this number of rows at their bounds."""

    def __init__(self, folder: Path, emulator: Emulator, provider: str, rows: int = 12) -> None:
        for name in ("one", "two"):
            (folder / name).mkdir()
        self.one, self.two = (
            Table(folder / name, emulator, provider, rows) for name in ("one", "two")
        )
        self.row = float(usd(preview(self.one.spec()).summary.bound or 0)) / rows

    def budget(self, rows: float, **more: Any) -> dict[str, Any]:
        # to a millionth of a dollar, as people write it
        return {"name": "shared", "limit_usd": round(rows * self.row, 6), "period": "total", **more}

    def run(
        self,
        table: Table,
        budget: dict[str, Any] | str,
        notes: list[str] | None = None,
        **changes: Any,
    ) -> Receipt:
        name = "one" if table is self.one else "two"
        heard = notes if notes is not None else list[str]()
        return enrich(
            table.spec(name=name, budget=budget, **changes), progress=LineProgress(heard.append, 0)
        )

    def plan(self, table: Table, budget: dict[str, Any] | str) -> Preview:
        name = "one" if table is self.one else "two"
        return preview(table.spec(name=name, budget=budget))

    def accepted(self) -> int:
        return self.one.ledger()["requests_accepted"]

    def spent(self, budget: dict[str, Any]) -> tuple[int, int]:
        terms = BudgetTerms(
            budget["name"],
            pico_from_usd(budget["limit_usd"]),
            budget["period"],
            budget.get("timezone", "UTC"),
        )
        with opened() as ledger:
            return ledger.budget_money(terms)


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Pair:
    return Pair(tmp_path, emulator, request.param)


@pytest.fixture
def claude(emulator: Emulator, tmp_path: Path) -> Pair:
    return Pair(tmp_path, emulator, "anthropic")


def test_two_runs_at_once_keep_one_limit(pair: Pair) -> None:
    """Two runs never spend more than the budget together.

    What could not be paid for is sent when the limit is raised.
    """
    budget = pair.budget(1.7)
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(pair.run, table, budget, None, items_per_batch=3)
            for table in (pair.one, pair.two)
        ]
        receipts = [run.result(PATIENCE) for run in runs]
    settled, flying = pair.spent(budget)
    assert (settled, flying) == (billed(pair.one), 0)
    assert settled <= pico_from_usd(budget["limit_usd"])
    assert max(receipt.exit_code for receipt in receipts) == 4
    assert {receipt.exit_code for receipt in receipts} <= {0, 4}
    sent = pair.accepted()
    assert 0 < sent < 24
    assert sum(receipt.unsent_rows for receipt in receipts) == 24 - sent
    with opened() as ledger:
        ledger.set_budget("shared", pico_from_usd(1))
    raised = {**budget, "limit_usd": 1}
    assert [pair.run(table, raised).exit_code for table in (pair.one, pair.two)] == [0, 0]
    assert pair.accepted() == 24
    assert pair.spent(raised) == (billed(pair.one), 0)
    for table in (pair.one, pair.two):
        table.check_answers()


def test_a_run_that_changes_the_terms_says_what_they_were(claude: Pair) -> None:
    """Else nobody sees that its file of budgets is another one than that of the run before."""
    first, second = claude.budget(30), claude.budget(40)
    for budget, changes in ((first, False), (second, True), (second, False), (first, True)):
        notes = list[str]()
        claude.run(claude.one, budget, notes)
        told = [note for note in notes if "from now on; it was" in note]
        assert len(told) == changes
        assert all(note.startswith("budget 'shared': $") for note in told)


def test_an_edit_of_a_file_of_budgets_holds_at_once(
    claude: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line is changed, and all specs that name it go by it, whichever of them runs first.

    A spec that states another limit itself is refused before anything is sent.
    """
    monkeypatch.chdir(tmp_path)
    notes, file = list[str](), tmp_path / "budgets.yaml"
    place = f"{file} on {node()}"

    def run(table: Table, name: str, usd: float, budget: object = "shared") -> Receipt:
        file.write_text(f"shared: {{limit_usd: {usd}, period: total}}\n")
        notes.clear()
        return enrich(table.spec(name=name, budget=budget), progress=LineProgress(notes.append, 0))

    assert run(claude.one, "one", 0).exit_code == 4
    assert run(claude.two, "two", 0).exit_code == 4
    assert (run(claude.two, "two", 5).exit_code, claude.accepted()) == (0, 12)
    said = f"$5.00 in total (UTC) from now on; it was $0.00 in total (UTC). So says {place}."
    assert f"budget 'shared': {said}" in notes
    assert (run(claude.one, "one", 5).exit_code, claude.accepted()) == (0, 24)
    assert not any("from now on" in note for note in notes)
    named = rf"^budget: {place}, which the spec two for .* names, gives .* and this gives it"
    with pytest.raises(SpecError, match=named):
        run(claude.one, "one", 5, claude.budget(1))


def test_a_limit_that_was_overruled_by_hand_may_be_stated_anew(
    claude: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once nobody stated it any more: it binds as any new one does."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "budgets.yaml"

    def run_with(limit: float) -> int:
        file.write_text(f"shared: {{limit_usd: {limit}, period: total}}\n")
        return claude.run(claude.one, "shared").exit_code

    assert run_with(0.000001) == 4
    assert CliRunner().invoke(app, ["costs", "--set-budget", "shared=5"]).exit_code == 0
    assert run_with(5) == 0
    for value in claude.one.values:
        value["text"] = f"another {value['text']}"
    claude.one.write()
    assert run_with(0.000001) == 4


def test_a_limit_set_by_hand_is_told_where_another_one_is_stated(
    claude: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is overruled in silence: the command, each run and each plan say what holds."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "budgets.yaml"
    place = f"{file} on {node()}"
    file.write_text("shared: {limit_usd: 2, period: total}\n")
    claude.run(claude.one, "shared")
    done = CliRunner().invoke(app, ["costs", "--set-budget", "shared=3"])
    assert done.stderr == (
        "budget 'shared': $3.00 in total (UTC) from now on; it was $2.00 in total (UTC). It "
        f"overrules what is stated in {place} ($2.00 in total (UTC)): runs go by the new limit, "
        "and say so, until all that share the budget state the same new limit, or it is set anew.\n"
    )
    for stated, told in ((2, True), (3, False), (4, False)):
        file.write_text(f"shared: {{limit_usd: {stated}, period: total}}\n")
        ahead, notes = claude.plan(claude.one, "shared").limits, list[str]()
        claude.run(claude.one, "shared", notes)
        said = (
            "$3.00 in total (UTC) holds, as `batchata costs --set-budget` set it, and not the "
            f"$2.00 in total (UTC) of {place}, until all that share the budget state the same new "
            "limit, or it is set anew"
        )
        assert ahead is not None
        assert (f"Budget: {said}" in ahead.text()) == told
        assert (f"budget 'shared': {said}." in notes) == told
    with opened() as ledger:
        assert [terms.limit for terms in ledger.budgets()] == [pico_from_usd(4)]


def test_a_run_waits_for_the_money_of_another(pair: Pair) -> None:
    """While another run has the budget in flight, this one waits, and says so once.

    It continues when that is settled.
    """
    budget, notes = pair.budget(12.2), list[str]()
    with ThreadPoolExecutor(2) as pool:
        with open_batches(pair.one.emulator):
            first = pool.submit(pair.run, pair.one, budget)
            until(lambda: pair.accepted() == 12)
            second = pool.submit(pair.run, pair.two, budget, notes)
            until(lambda: any("other runs of the same budget" in note for note in notes))
            time.sleep(0.3)  # several looks
            assert pair.accepted() == 12
            assert not second.done()
        assert [run.result(PATIENCE).exit_code for run in (first, second)] == [0, 0]
    assert pair.accepted() == 24
    assert sum("other runs of the same budget" in note for note in notes) == 1
    assert pair.spent(budget) == (billed(pair.one), 0)


def test_a_waiting_run_heeds_its_time_limit(claude: Pair) -> None:
    """A run that waits for another's money ends at its own time limit, with nothing sent."""
    budget = claude.budget(12.2)
    with ThreadPoolExecutor(1) as pool:
        with open_batches(claude.one.emulator):
            first = pool.submit(claude.run, claude.one, budget)
            until(lambda: claude.accepted() == 12)
            receipt = claude.run(claude.two, budget, time_limit="0.5s")
            assert (receipt.result, receipt.exit_code, receipt.unsent_rows) == (
                "time_limit_reached",
                5,
                12,
            )
        assert first.result(PATIENCE).exit_code == 0
    assert claude.accepted() == 12


def test_money_of_a_dead_run_is_not_waited_for(claude: Pair) -> None:
    """Money that a dead run has in flight counts, but nobody waits for it.

    The dataset's own next run settles it.
    """
    budget = claude.budget(12.2)
    claude.one.emulator.control.progress("reads", 10**6)
    steps = stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True)
    with pytest.raises(KeyboardInterrupt):
        run_with(claude.one, steps, name="one", budget=budget)
    claude.one.emulator.control.progress("immediate")
    receipt = claude.run(claude.two, budget)
    assert (receipt.exit_code, receipt.unsent_rows) == (4, 12)
    assert claude.run(claude.one, budget).continued
    assert claude.run(claude.two, budget).exit_code == 0
    assert claude.accepted() == 24


def test_a_run_that_ends_with_an_error_gives_back_what_it_did_not_send(claude: Pair) -> None:
    """A run that ends, say with a refused key, gives the budget's money back.

    When it is carried on, it reserves its own anew.
    """
    budget = claude.budget(12.5)
    claude.one.emulator.control.faults(kind="http_error", status=401, route="create", nth=1)
    with pytest.raises(CredentialsError):
        claude.run(claude.one, budget)
    assert claude.spent(budget) == (0, 0)
    assert claude.run(claude.two, budget).exit_code == 0
    receipt = claude.run(claude.one, budget)
    assert receipt.continued
    assert claude.spent(budget) == (billed(claude.one), 0)
    assert billed(claude.one) <= pico_from_usd(budget["limit_usd"])


@pytest.mark.parametrize(
    "change", [{"limit_usd": 2}, {"period": "day"}, {"timezone": "Europe/Berlin"}]
)
def test_specs_that_disagree(claude: Pair, change: dict[str, Any]) -> None:
    """The second spec is refused before anything is sent.

    One sentence names both limits and the remedy.
    """
    budget = claude.budget(100)
    assert claude.run(claude.one, budget).exit_code == 0
    with pytest.raises(
        SpecError,
        match=(
            r"^budget: the spec one for file://.*/one/out gives 'shared' \$.*, "
            r"and this gives it \$.*--set-budget"
        ),
    ):
        claude.run(claude.two, {**budget, **change})
    assert claude.accepted() == 12
    assert claude.run(claude.two, budget).exit_code == 0


def test_a_plan_says_nothing_of_a_budget(claude: Pair) -> None:
    """A plan with other terms, which a run would record or refuse, leaves the ledger unchanged."""
    budget = claude.budget(100)
    other = {**budget, "limit_usd": 1}
    assert claude.run(claude.one, budget).exit_code == 0
    ahead = preview(claude.one.spec(name="one", budget=other)).limits
    assert ahead is not None
    assert ahead.limits.budget == BudgetTerms("shared", pico_from_usd(1), "total", "UTC")
    with pytest.raises(SpecError):
        preview(claude.two.spec(name="two", budget=other))
    preview(claude.two.spec(name="two", budget={**other, "name": "new"}))
    with opened() as ledger:
        assert [terms.limit for terms in ledger.budgets()] == [pico_from_usd(budget["limit_usd"])]
    assert claude.run(claude.two, budget).exit_code == 0


def test_specs_of_one_name_are_two(claude: Pair) -> None:
    """A spec of the same name for another dataset does not change the first one's budget."""
    budget = claude.budget(1.5)
    assert enrich(claude.one.spec(name="same", budget=budget)).exit_code == 4
    sent = claude.accepted()
    for ask in (preview, enrich):
        with pytest.raises(SpecError, match=r"^budget: the spec same for file://.*/one/out gives"):
            ask(claude.two.spec(name="same", budget={**budget, "limit_usd": 1}))
    assert claude.accepted() == sent


def test_a_model_without_a_price_has_no_budget(claude: Pair) -> None:
    """A limit that could not hold is refused before anything is sent."""
    with pytest.raises(
        SpecError, match=r"^model: no batch price is known for 'claude-omega-99', so budget could"
    ):
        claude.run(claude.one, claude.budget(100), model="claude-omega-99")
    assert claude.accepted() == 0


def test_a_day_later_there_is_money_again(claude: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daily budget that is used up is whole again on the next day.

    Earlier spending stays in its own day.
    """
    budget = claude.budget(1.5, period="day")
    first = claude.run(claude.one, budget)
    assert first.exit_code == 4
    sent, (spent, _) = claude.accepted(), claude.spent(budget)
    assert 0 < sent < 12
    assert claude.run(claude.one, budget).batches == 0
    for module in ("money", "budgets"):
        monkeypatch.setattr(
            f"batchata_tasks.ledger.{module}.now_us", lambda: time.time_ns() // 1000 + _DAY_US
        )
    assert claude.spent(budget) == (0, 0)
    claude.run(claude.one, budget)
    assert claude.accepted() > sent
    assert claude.spent(budget) == (billed(claude.one) - spent, 0)


def test_a_plan_counts_by_the_period_that_it_says(
    claude: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a spec has a new period, its plan shows what that one leaves, as its run will have it."""
    budget = claude.budget(1.5, period="day")
    assert claude.run(claude.one, budget).exit_code == 4
    for module in ("money", "budgets"):
        monkeypatch.setattr(
            f"batchata_tasks.ledger.{module}.now_us", lambda: time.time_ns() // 1000 + _DAY_US
        )
    for period, spent in (("day", 0), ("total", billed(claude.one))):
        changed = {**budget, "period": period}
        ahead = preview(claude.one.spec(name="one", budget=changed)).limits
        assert ahead is not None
        assert ahead.left == pico_from_usd(budget["limit_usd"]) - spent
    assert claude.run(claude.one, {**budget, "period": "total"}).batches == 0


def test_a_run_keeps_its_own_limit_within_a_budget(claude: Pair) -> None:
    """If there is a limit and a budget, the smaller remainder binds."""
    budget = claude.budget(100)
    receipt = claude.run(claude.one, budget, cost_limit_usd=round(1.5 * claude.row, 6))
    assert receipt.exit_code == 4
    assert claude.spent(budget)[0] <= 1.5 * claude.row * 1e12
    assert claude.run(claude.two, budget).exit_code == 0


def test_a_rebuilt_ledger_knows_what_a_budget_spent(claude: Pair, tmp_path: Path) -> None:
    """Intents name budget and period, so a rebuilt ledger counts the spending of the lost one."""
    budget = claude.budget(1.5)
    assert claude.run(claude.one, budget).exit_code == 4
    spent, sent = claude.spent(budget), claude.accepted()
    for path in (claude.one.output / "_batchata/intents").glob("*.json"):
        assert (read_json(path) or {})["budget"] == {"name": "shared", "period_us": 0}
    (tmp_path / "ledger.db").unlink()
    rebuild(prepare_run(claude.one.spec(name="one", budget=budget), Settings()), Settings())
    assert claude.spent(budget) == spent
    assert spent[0] > 0
    assert claude.run(claude.one, budget).batches == 0
    assert claude.run(claude.two, budget).batches == 0
    assert claude.accepted() == sent


def test_a_budget_counts_by_no_ledger_that_is_older_than_another_dataset(
    claude: Pair, tmp_path: Path
) -> None:
    """What a spec spent since a backup is in no sum: nothing is sent until that is read in."""
    budget = claude.budget(9)
    claude.run(claude.one, budget, limit=1)
    claude.run(claude.two, budget, limit=1)
    shutil.copyfile(tmp_path / "ledger.db", tmp_path / "backup.db")
    claude.run(claude.one, budget, limit=4)
    spent, sent = claude.spent(budget), claude.accepted()
    shutil.copyfile(tmp_path / "backup.db", tmp_path / "ledger.db")
    for attempt in (
        lambda: claude.run(claude.two, budget),
        lambda: claude.plan(claude.two, budget),
    ):
        with pytest.raises(WrongLedgerError, match=r"older than the dataset in .*one.*--rebuild"):
            attempt()
    assert claude.accepted() == sent
    rebuild(prepare_run(claude.one.spec(name="one", budget=budget), Settings()), Settings())
    assert claude.spent(budget) == spent
    assert claude.run(claude.two, budget, limit=2).exit_code == 0


def test_a_chunk_that_is_cut_twice_loses_no_row(
    claude: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another run spends between two reads of the guard, the chunk is split again.

    Every piece is sent in its turn.
    """
    budget = claude.budget(9.5)
    real = guards.split_chunk
    cuts = list[int]()

    def cut(*given: Any) -> Chunk:
        cuts.append(given[3])
        if len(cuts) == 1:
            CostTracker(name="shared").track_spend(round(4 * claude.row, 6))
        return real(*given)

    monkeypatch.setattr(guards, "split_chunk", cut)
    receipt = claude.run(claude.one, budget)
    assert cuts[:2] == [9, 5]
    assert (receipt.outcomes, receipt.unsent_rows, receipt.exit_code) == ({"succeeded": 12}, 0, 0)
