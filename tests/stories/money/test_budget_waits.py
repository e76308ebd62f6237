"""Runs that let go of their dataset while other runs of their budget have its money in flight."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import CostTracker
from batchata_tasks.common.clock import now_us
from batchata_tasks.common.money import pico_from_usd, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError, hold_dataset
from batchata_tasks.ledger import ChunkState, StopReason
from batchata_tasks.operations.flow_runs import NoFlowRuns, Waiters
from batchata_tasks.operations.watch import WatchReport, watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.status import runs_in_the_way
from batchata_tasks.types.batch_life import LONGEST_LIFE
from tests.support.books import billed, opened, run_with, stopping_at
from tests.support.operations import preview, runs_overview
from tests.support.table import MODELS, Table, open_batches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.forecast import LimitsAhead
    from batchata_tasks.pipeline.receipt import Receipt

ROWS = 12
WAITS = r"^waiting for \$0\.\d+ of budget 'shared' that other runs have reserved$"


@dataclass
class FlowRuns(NoFlowRuns):
    """Flow runs that are suspended for runs of the ledger, or under way again."""

    suspended: set[str] = field(default_factory=set[str])
    under_way: set[str] = field(default_factory=set[str])
    by_person: set[str] = field(default_factory=set[str])
    unseen: set[str] = field(default_factory=set[str])

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        assert ledger_id
        del runs  # those that are suspended are told for all
        resumed = {run: Waiters(under_way=(run,)) for run in self.under_way}
        return {run: Waiters((run,)) for run in self.suspended} | resumed

    def suspend(self, run_id: str) -> None:
        self.suspended.add(run_id)
        self.under_way.discard(run_id)

    def resume(self, flow_run_id: str) -> bool:
        self.suspended.remove(flow_run_id)
        self.under_way.add(flow_run_id)
        return True

    def leave_sign(self, ledger_id: str, unseen: Iterable[str], waiting: int) -> None:
        assert ledger_id
        self.unseen = set(unseen)

    def cancelled(self, works: Collection[str]) -> set[str]:
        return self.by_person & set(works)


class Team:
    """Specs that share a budget, each of a table of its own, and their suspended flow runs."""

    def __init__(self, folder: Path, emulator: Emulator, provider: str, number: int = 2) -> None:
        self.emulator, self.flow_runs = emulator, FlowRuns()
        self.tables = list[Table]()
        for name in map(str, range(number)):
            (folder / name).mkdir()
            self.tables.append(Table(folder / name, emulator, provider, ROWS))
        self.row = float(usd(preview(self.tables[0].spec()).summary.bound or 0)) / ROWS
        self.budget: dict[str, Any] = {}
        self.allow(ROWS + 0.5)

    def allow(self, rows: float) -> None:
        """Let the budget be that of so many rows at their bounds."""
        self.budget = {
            "name": "shared",
            "limit_usd": round(rows * self.row, 6),
            "period": "total",
        }

    def run(self, number: int, after: float = 0, **changes: Any) -> Receipt:
        spec = self.tables[number].spec(name=f"spec-{number}", budget=self.budget, **changes)
        ready = prepare_run(spec, Settings())
        letting_go = LettingGo(after, is_watched=after < math.inf)
        return run_prepared(ready, run=f"work {number}", letting_go=letting_go)

    def suspended(self, number: int, match: str, **changes: Any) -> str:
        """Run a spec until it lets go; return the run's id."""
        with pytest.raises(SuspendedRunError, match=match) as error:
            self.run(number, **changes)
        self.flow_runs.suspend(error.value.run_id)
        return error.value.run_id

    def watch(self) -> WatchReport:
        return watch(Settings(), self.flow_runs, gathered=0)

    def accepted(self) -> int:
        return self.tables[0].ledger()["requests_accepted"]

    def check_money(self) -> None:
        """Check that the provider's bill is what the budget counts, and within it."""
        with opened() as ledger:
            (terms,) = ledger.budgets()
            settled, in_flight = ledger.budget_money(terms)
        assert in_flight == 0
        assert settled == billed(self.tables[0]) <= pico_from_usd(self.budget["limit_usd"])


@pytest.fixture(params=MODELS)
def team(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Team:
    return Team(tmp_path, emulator, request.param)


@pytest.fixture
def claude(emulator: Emulator, tmp_path: Path) -> Team:
    return Team(tmp_path, emulator, "anthropic")


def test_a_run_waits_without_a_process_for_what_a_suspended_one_has_in_flight(team: Team) -> None:
    """It lets go of dataset and money, is not resumed in vain, and goes on once money came back."""
    with open_batches(team.emulator):
        first = team.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        second = team.suspended(1, WAITS)
        with hold_dataset(str(team.tables[1].output), Settings()), opened() as ledger:
            assert ledger.money(second) == (0, 0)
        for _ in range(2):
            assert team.watch().resumed == []
        assert team.flow_runs.unseen == set()
        assert team.suspended(1, WAITS) == second  # as if somebody had resumed it too early
        assert team.watch().resumed == []
    assert team.watch().resumed == [first]
    assert team.watch().resumed == []  # what ended gives money back when it lands
    assert team.run(0, 60).exit_code == 0
    assert team.watch().resumed == [second]
    receipt = team.run(1, 60)
    assert (receipt.outcomes, receipt.exit_code) == ({"succeeded": ROWS}, 0)
    assert team.accepted() == 2 * ROWS
    team.check_money()


def test_money_of_a_dead_run_comes_back_where_it_is_watched(claude: Team) -> None:
    """A pass of `watch` lands the batch of a command that was killed, and resumes who waits."""
    steps = stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True)
    with open_batches(claude.emulator):
        with pytest.raises(KeyboardInterrupt):
            run_with(claude.tables[0], steps, name="spec-0", budget=claude.budget)
        second = claude.suspended(1, WAITS)
        assert claude.watch().resumed == []
    report = claude.watch()
    assert (len(report.landed), report.resumed) == (1, [second])
    assert claude.run(1, 60).exit_code == 0
    claude.check_money()


def test_what_came_back_may_not_be_enough(claude: Team) -> None:
    """Then the run ends at the limit as it does without a wait, and sent nothing."""
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        second = claude.suspended(1, WAITS)
    claude.run(0, 60)
    CostTracker(name="shared").track_spend(round(ROWS * claude.row, 6))
    assert second in claude.watch().resumed
    receipt = claude.run(1, 60)
    assert (receipt.result, receipt.exit_code, receipt.unsent_rows) == (
        "cost_limit_reached",
        4,
        ROWS,
    )
    assert claude.accepted() == ROWS


def test_a_run_that_may_not_be_suspended_does_not_wait_for_one_that_is(claude: Team) -> None:
    """It would hold the slot that the other one needs: it ends at the limit."""
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        assert claude.run(1, float("inf")).exit_code == 4


def test_a_batch_that_nobody_lands_is_not_waited_for_without_end(
    claude: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After more than a day any batch has ended: who waits for its money is told of the limit."""
    with open_batches(claude.emulator):
        first = claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        second = claude.suspended(1, WAITS)
        claude.flow_runs.suspended.remove(first)  # as if it hung at its server
        monkeypatch.setattr(
            "batchata_tasks.ledger.budgets.now_us", lambda: now_us() + int(LONGEST_LIFE * 1e6)
        )
        assert claude.watch().resumed == [second]
        assert claude.run(1).exit_code == 4


def test_a_time_limit_ends_a_wait_for_money(claude: Team) -> None:
    """The run is resumed once its time is over, and ends; it sent nothing."""
    limited = {"time_limit": "1h"}
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        second = claude.suspended(1, WAITS, **limited)
        assert claude.watch().resumed == []
        with opened() as ledger:
            ledger.request_stop(second, StopReason.TIME_LIMIT)
        assert claude.watch().resumed == [second]
        receipt = claude.run(1, **limited)
    assert (receipt.result, receipt.unsent_rows) == ("time_limit_reached", ROWS)


def test_a_run_that_is_cancelled_while_it_waits_for_money_ends(claude: Team) -> None:
    """Nobody goes on with it: the next run of the spec begins anew."""
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        second = claude.suspended(1, WAITS)
        claude.flow_runs.suspended.remove(second)
        claude.flow_runs.by_person.add("work 1")
        assert claude.watch().cancelled == [second]
    with opened() as ledger:
        assert ledger.run(second).result == "cancelled"
        assert ledger.chunks(second, (ChunkState.PLANNED,)) == []


def ahead(team: Team, number: int, **changes: Any) -> LimitsAhead:
    """Return what a plan says of the limits of a spec."""
    spec = team.tables[number].spec(name=f"spec-{number}", budget=team.budget, **changes)
    found = preview(spec).limits
    assert found is not None
    return found


def test_who_need_only_wait_is_not_told_to_raise_the_limit(claude: Team) -> None:
    """While others have a budget in flight, plan, log and receipt say what waiting brings back.

    Once their batches ended, the same command sends all of its rows.
    """
    notes, unlimited = list[str](), float("inf")
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        told = ahead(claude, 1)
        spec = claude.tables[1].spec(name="spec-1", budget=claude.budget)
        progress = LineProgress(notes.append)
        receipt = run_prepared(prepare_run(spec, Settings()), progress=progress)
    (note,) = (note for note in notes if note.startswith("about to send"))
    unsent = dict(receipt.lines())["Not sent"]
    in_flight = r" more is in flight at 1 batch of another run; once it has ended, about \$"
    for text in (told.text(), note, unsent):
        assert re.search(in_flight, text)
        assert "run it again then" in text
        assert "max_tokens" not in text
    assert (told.prospect.rows, told.prospect.stops) == (0, True)
    assert told.once_back is not None
    assert (told.once_back.rows, told.once_back.stops) == (ROWS, False)
    assert receipt.budget is not None
    assert receipt.budget["batches_of_others"] == told.to_json()["budget"]["batches_of_others"] == 1
    claude.run(0, 60)
    assert ahead(claude, 1).once_back is None
    assert claude.run(1, unlimited).outcomes == {"succeeded": ROWS}


def test_what_would_not_be_enough_is_not_waited_for(claude: Team) -> None:
    """Where the limit is too low for a row whatever comes back, it is to be raised."""
    claude.allow(0.5)
    told = ahead(claude, 1)
    assert told.once_back is None
    assert told.text().endswith(": raise it, or lower `max_tokens`")
    claude.allow(ROWS + 0.5)
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        CostTracker(name="shared").track_spend(round(ROWS * claude.row, 6))  # beyond the limit
        told = ahead(claude, 1)
    assert told.once_back is not None
    assert told.once_back.rows == 0
    assert told.text().endswith("which is too little: raise it, or lower `max_tokens`")


def test_what_a_dataset_has_in_flight_is_there_before_it_sends_more(claude: Team) -> None:
    """Its own batches land first: a plan counts on the money that they give back."""
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        told = ahead(claude, 0, prompt="Anew: {{ text }}")
    assert (told.prospect.stops, told.once_back) == (False, None)
    assert " once what is in flight has landed: expected to be enough" in told.text()
    assert claude.run(0, 60, prompt="Anew: {{ text }}").outcomes == {"succeeded": ROWS}


def test_a_status_says_what_money_is_waited_for(claude: Team) -> None:
    """Who looks at the runs sees why one of them sends nothing."""
    with open_batches(claude.emulator):
        claude.suspended(0, r"^waiting for 1 of 1 batch, the oldest sent ")
        claude.suspended(1, WAITS)
        text, unwatched = runs_in_the_way(runs_overview(None))
    assert text.startswith("spec-1: waiting for $0.")
    assert unwatched.startswith("no scheduled pass of `watch` has looked")
    assert text.endswith(" of budget 'shared' that other runs have reserved.")


@pytest.mark.parametrize("seed", range(6))
def test_runs_of_a_budget_come_to_an_end_in_any_order(
    emulator: Emulator, tmp_path: Path, seed: int
) -> None:
    """Three runs that wait for each other's money, resumed by `watch` alone, all end.

    Nothing is sent twice, the budget holds at each moment, and a pass resumes nobody if nothing
    has changed since the one before.
    """
    draw = random.Random(seed)
    team = Team(tmp_path, emulator, draw.choice(list(MODELS)), number=3)
    team.allow(draw.uniform(0.5, 2.5) * ROWS)
    changes = {"items_per_batch": draw.choice([3, 5, ROWS])}
    at_work, waiting, ended = [0, 1, 2], dict[str, int](), list["Receipt"]()
    emulator.control.progress("reads", 10**6)
    while at_work or waiting:
        for number in draw.sample(at_work, len(at_work)):
            try:
                ended.append(team.run(number, **changes))
            except SuspendedRunError as error:
                waiting[error.run_id] = number
                team.flow_runs.suspend(error.run_id)
        with opened() as ledger:
            (terms,) = ledger.budgets()
            assert sum(ledger.budget_money(terms)) <= terms.limit
        at_work = [waiting.pop(run_id) for run_id in team.watch().resumed]
        assert team.watch().resumed == []
        if waiting and not at_work:
            emulator.control.finish(draw.choice(open_ids(team)))
    emulator.control.progress("immediate")
    assert {receipt.exit_code for receipt in ended} <= {0, 4}
    assert sum(sum(receipt.outcomes.values()) for receipt in ended) == team.accepted()
    team.check_money()


def open_ids(team: Team) -> list[str]:
    """Return the batches that have not ended."""
    ended = ("ended", "completed")
    return [one["id"] for one in team.tables[0].ledger()["batches"] if one["status"] not in ended]
