"""What an emulator answered says so, and counts for nothing at a real endpoint.

The emulator of the other tests is anonymous: it plays the real endpoint. Here one that says what it
is serves the same datasets.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from shutil import rmtree
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from batchata_tasks import Batch
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import Emulator
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.costs import gather, moment_of
from batchata_tasks.reports.plan import preview
from batchata_tasks.reports.status import runs_overview
from tests.support.books import check_money, opened, run_with, stopping_at
from tests.support.table import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 6
BUDGET = {"name": "night", "limit_usd": 1, "period": "total"}


@pytest.fixture(scope="module")
def _stage() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


class Stage:
    """Switches a table between the emulator that says what it is, and the one that does not."""

    def __init__(self, table: Table, stage: Emulator, patch: pytest.MonkeyPatch) -> None:
        self._table, self._patch = table, patch
        self._real, self._stage = table.emulator, stage

    def rehearse(self) -> None:
        self._use(self._stage)

    def real(self) -> None:
        self._use(self._real)

    def _use(self, emulator: Emulator) -> None:
        for name, value in emulator.env().items():
            self._patch.setenv(name, value)
        self._table.emulator = emulator


@pytest.fixture
def stage(table: Table, _stage: Emulator, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Return the stage; a rehearsal is on."""
    _stage.control.reset()
    made = Stage(table, _stage, monkeypatch)
    made.rehearse()
    return made


def kinds(table: Table) -> set[str]:
    return {row["_fingerprint"].partition(":")[0] for row in table.rows()}


def spent() -> float:
    total = gather("spec", moment_of(None, None), Settings()).to_json()["total"]
    return float(total["settled_usd"] or 0) + float(total["in_flight_usd"] or 0)


def test_on_the_emulator_all_is_as_ever(table: Table, stage: Stage) -> None:
    """Its rows are up to date for it, failed ones have another attempt; the receipt says so."""
    table.emulator.control.faults(kind="request_refusal", contains="row 3")
    receipt = table.run()
    assert (receipt.rehearsal, receipt.outcomes) == (True, {"refused": 1, "succeeded": ROWS - 1})
    assert ("Rehearsal", "an emulator") in [(what, text[:11]) for what, text in receipt.lines()]
    assert kinds(table) == {"e2"}
    check_money(table)
    again = table.run()
    assert (again.plan["up_to_date"], again.plan["exhausted"]) == (ROWS - 1, 1)
    assert "Rehearsal" not in dict(again.lines())  # nothing was sent, so nothing was made up
    (newest, _) = runs_overview(table.spec(), Settings())
    assert newest["rehearsal"]


def of_an_older_version(tmp_path: Path) -> None:
    """Let the ledger's runs be as a version left them that did not know who answered."""
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger, ledger:
        ledger.execute("update runs set rehearsal = null")


def test_an_older_datasets_rows_stay_up_to_date_on_an_emulator(
    table: Table, stage: Stage, tmp_path: Path
) -> None:
    """What was sent to an emulator's address, by its look, is carried on there: one row is new."""
    stage.real()
    table.run()
    of_an_older_version(tmp_path)
    stage.rehearse()
    table.values.append({"id": "new", "text": "a new one", "note": "n"})
    table.write()
    receipt = table.run()
    assert (receipt.plan["up_to_date"], receipt.plan["reasons"]) == (ROWS, {"new": 1})
    assert receipt.outcomes == {"succeeded": 1}


def test_an_older_run_that_died_is_carried_on_by_an_emulator(
    table: Table, stage: Stage, tmp_path: Path
) -> None:
    """It sends what it had planned, though nobody knows who answered it before."""

    def die(*_: object) -> dict[str, object]:
        message = "the process is lost"
        raise RuntimeError(message)

    stage.real()
    with pytest.raises(RuntimeError, match="is lost"):
        enrich(table.spec(), steps=Steps(submit=die))
    of_an_older_version(tmp_path)
    stage.rehearse()
    assert table.run().outcomes == {"succeeded": ROWS}
    assert len(table.rows()) == ROWS
    assert table.run().plan["requests"] == 0


def test_a_real_endpoint_is_sent_all_of_it(table: Table, stage: Stage) -> None:
    """The plan and the receipt count the rows as rehearsed; attempts and money begin anew."""
    table.run(max_attempts=1)
    stage.real()
    planned = preview(table.spec(), Settings()).summary
    assert planned.reasons == {"rehearsed": ROWS}
    receipt = table.run(rerun_on=["new"], max_attempts=1)
    assert receipt.plan["reasons"] == {"rehearsed": ROWS}
    assert f"{ROWS} rehearsed" in dict(receipt.lines())["Source rows"]
    assert (receipt.rehearsal, receipt.outcomes) == (False, {"succeeded": ROWS})
    assert kinds(table) == {"v2"}
    assert {row["_attempts"] for row in table.rows()} == {1}
    assert float(receipt.superseded_usd or 1) == 0
    assert table.run().plan["up_to_date"] == ROWS


def test_a_limit_leaves_the_rest_rehearsed(table: Table, stage: Stage) -> None:
    """Rows are replaced as they are sent; the others stay, and say what they are."""
    table.run()
    stage.real()
    table.run(limit=2)
    fingerprints = [row["_fingerprint"][:3] for row in table.rows()]
    assert sorted(fingerprints) == ["e2:"] * (ROWS - 2) + ["v2:"] * 2
    assert preview(table.spec(), Settings()).summary.reasons == {"rehearsed": ROWS - 2}
    assert table.run().outcomes == {"succeeded": ROWS - 2}


def test_a_made_up_answer_does_not_stay_in_a_failed_row(table: Table, stage: Stage) -> None:
    """A real attempt without an answer keeps an earlier real one, never a rehearsed one."""
    table.run()
    stage.real()
    table.emulator.control.faults(kind="request_error", contains="row 1")
    table.run(max_attempts=1)
    failed = next(row for row in table.rows() if row["id"] == "k1")
    assert (failed["_status"], failed["_response"], failed["label"]) == ("errored", None, None)


@pytest.mark.usefixtures("stage")
def test_nobody_meets_the_name_of_its_budget(table: Table) -> None:
    """People know one name: what they set for it holds for rehearsals, too, and errors name it."""
    receipt = table.run(budget=BUDGET)
    assert receipt.budget is not None
    assert receipt.budget["name"] == "night (rehearsals)"
    other = {**BUDGET, "limit_usd": 2}
    with pytest.raises(SpecError, match=r"--set-budget night=USD") as refused:
        table.run(name="other", output=f"{table.output}-2", budget=other)
    assert "rehearsal:" not in str(refused.value)
    done = CliRunner().invoke(app, ["costs", "--set-budget", "rehearsal:night=2"])
    assert done.exit_code == 2
    assert "the ledger has no budget of that name" in " ".join(done.output.split())
    assert CliRunner().invoke(app, ["costs", "--set-budget", "night=2"]).exit_code == 0
    table.run(name="other", output=f"{table.output}-2", budget=other)


def test_costs_show_budgets_of_rehearsals_apart(table: Table, stage: Stage) -> None:
    """They have a table of their own; a limit that is set is told for which budgets it holds."""

    def setting(limit: str) -> str:
        words = ["costs", "--by", "budget", "--set-budget", f"night={limit}"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    receipt = table.run(budget=BUDGET)
    assert receipt.budget is not None
    output = setting("2")
    assert "'night (rehearsals)': $2.00 in total" in output
    assert "It is of rehearsals alone: no real run has named 'night' yet." in output
    assert "Shared budgets" not in output
    assert "Budgets of rehearsals, whose money is made up and in no sum" in output
    gathered = gather("budget", moment_of(None, None), Settings()).to_json()
    (rehearsed,) = gathered["budgets_of_rehearsals"]
    assert (gathered["budgets"], gathered["groups"]) == ([], [])
    assert (rehearsed["name"], rehearsed["limit_usd"]) == ("night", "2.000000000000")
    assert rehearsed["spent_usd"] == receipt.budget["spent_usd"]
    stage.real()
    table.run(budget={**BUDGET, "limit_usd": 2})
    output = setting("3")
    assert "budget 'night': $3.00 in total" in output
    assert "That of its rehearsals has the same limit." in output
    gathered = gather("budget", moment_of(None, None), Settings())
    assert [[p.terms.limit for p in one] for one in (*gathered.budgets, *gathered.rehearsed)] == [
        [3 * 10**12],
        [3 * 10**12],
    ]


def test_its_money_counts_for_rehearsals_alone(table: Table, stage: Stage) -> None:
    """No budget, cost or estimate of real runs has it; the limits of rehearsals hold."""
    receipt = table.run(budget=BUDGET)
    assert receipt.budget is not None
    assert float(receipt.budget["spent_usd"]) > 0
    assert spent() == 0
    small = {**BUDGET, "name": "small", "limit_usd": 0.000001}
    assert table.run(budget=small, max_tokens=150).exit_code == 4
    provider, model = table.provider, MODELS[table.provider]
    with opened() as ledger:
        assert ledger.usage_history(provider, model, "table") is None
        assert ledger.usage_history(provider, model, "table", rehearsal=True) is not None
        assert ledger.budgets() == []
    stage.real()
    planned = preview(table.spec(budget=BUDGET), Settings())
    assert planned.limits is not None
    assert planned.limits.budget is not None
    assert planned.limits.budget.left == 10**12
    assert planned.summary.calibrated_by == 0
    receipt = table.run(budget=BUDGET)
    assert receipt.budget is not None
    assert receipt.budget["spent_usd"] == receipt.cost_usd
    assert spent() == float(receipt.cost_usd or 0)


def test_a_dear_answer_teaches_rehearsals_alone(table: Table, stage: Stage) -> None:
    """Bounds of real runs do not grow by an emulator's answer above its bound."""
    table.emulator.control.faults(kind="request_dear", contains="row 0")
    table.run(cost_limit_usd=1)
    provider, model = table.provider, MODELS[table.provider]
    with opened() as ledger:
        assert ledger.bounds_factor(provider, model) == 10**6
        assert ledger.bounds_factor(provider, model, rehearsal=True) > 10**6


def test_real_answers_are_never_replaced(table: Table, stage: Stage) -> None:
    """A rehearsal on them is refused before anything is sent, with the way out; so is its plan."""
    stage.real()
    table.run(limit=1)
    before = table.rows()
    stage.rehearse()
    for look in (table.run, lambda: preview(table.spec(), Settings())):
        with pytest.raises(SpecError, match="`batchata rehearse SPEC`") as refused:
            look()
        assert "answers of a real endpoint" in str(refused.value)
    assert table.ledger()["requests_accepted"] == 0
    assert table.rows() == before
    rmtree(table.output)  # what was paid for is not forgotten
    with pytest.raises(SpecError, match="answers of a real endpoint"):
        table.run()


def interrupted(table: Table) -> None:
    table.emulator.control.progress("reads", 10**6)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))


def deleted(table: Table) -> None:
    table.run()
    rmtree(table.output)


def died_landing(table: Table) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("collect", lambda _: True, KeyboardInterrupt(), after=True))


@pytest.mark.parametrize("left", [interrupted, deleted, died_landing])
def test_what_it_left_is_not_waited_for(
    table: Table, stage: Stage, left: Callable[[Table], None]
) -> None:
    """Open batches, lost files, half-landed rows of a rehearsal are in no real run's way."""
    left(table)
    stage.real()
    planned = preview(table.spec(), Settings())
    assert (planned.summary.requests, planned.open_batches, planned.recoverable) == (ROWS, 0, 0)
    assert planned.in_the_way == ()
    notes = list[str]()
    receipt = enrich(table.spec(), progress=LineProgress(notes.append))
    assert receipt.outcomes == {"succeeded": ROWS}
    assert kinds(table) == {"v2"}
    assert not any("Trying again" in note for note in notes)
    assert spent() == float(receipt.cost_usd or 0)
    assert table.run().plan["up_to_date"] == ROWS


def test_lost_files_of_both_kinds(table: Table, stage: Stage) -> None:
    """The real rows come back from their provider, the rehearsed ones are sent."""
    table.run()
    stage.real()
    table.run(limit=2)
    rmtree(table.output)
    receipt = table.run()
    assert (receipt.plan["recovered"], receipt.outcomes) == (2, {"succeeded": ROWS - 2})
    assert kinds(table) == {"v2"}
    assert table.ledger()["requests_accepted"] == ROWS
    (money,) = gather("spec", moment_of(None, None), Settings()).to_json()["datasets"]
    assert Decimal(money["in_dataset_usd"]) == sum(row["_cost_usd"] for row in table.rows())
    assert float(money["superseded_usd"]) == 0


def test_an_emulator_that_forgot_is_no_obstacle(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `rm -rf out` and a restart of the emulator at its address, a rehearsal goes on."""
    with Emulator() as first:
        for name, value in first.env().items():
            monkeypatch.setenv(name, value)
        table.run()
        port = int(first.url.rpartition(":")[2])
    rmtree(table.output)
    with Emulator(port=port) as second:
        table.emulator = second
        receipt = table.run()
        assert receipt.outcomes == {"succeeded": ROWS}
        assert table.ledger()["requests_accepted"] == ROWS


def test_a_rebuilt_ledger_knows_what_was_rehearsed(
    table: Table, stage: Stage, tmp_path: Path
) -> None:
    """The kind stands in the dataset's folder, too: no money of it counts afterwards."""
    table.run(budget=BUDGET)
    settings = Settings(ledger_url=f"sqlite:///{tmp_path / 'another.db'}")
    with closing(prepare_run(table.spec(), settings)) as ready:
        rebuild(ready, settings)
    assert gather("spec", moment_of(None, None), settings).to_json()["total"]["batches"] == 0


def test_one_run_is_of_one_kind(
    table: Table, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose models are rehearsed in part is refused, with both addresses."""
    stage.real()
    real = table.emulator.openai_url
    stage.rehearse()
    monkeypatch.setenv("OPENAI_BASE_URL", real)
    batch = Batch(str(table.folder / "mixed")).set_default_params(max_tokens=50)
    for name, model in MODELS.items():
        batch.add_job(id=name, model=model, prompt="Hello")
    with pytest.raises(SpecError, match="rehearsed, or real") as refused:
        batch.run()
    assert real in str(refused.value)


def test_results_of_jobs_are_of_the_kind_of_the_run(
    table: Table, stage: Stage, tmp_path: Path
) -> None:
    """A Batch that was rehearsed has its results, and a real one sends its jobs again."""

    def run() -> list[str]:
        batch = Batch(str(tmp_path / "jobs")).set_default_params(model=MODELS[table.provider])
        batch.add_job(id="one", prompt="Say something.", max_tokens=60)
        assert batch.run().results()["one"].is_success()
        return pq.read_table(tmp_path / "jobs/data")["_batch_id"].to_pylist()

    rehearsed = run()
    assert run() == rehearsed
    stage.real()
    answered = run()
    assert answered != rehearsed
    assert run() == answered
