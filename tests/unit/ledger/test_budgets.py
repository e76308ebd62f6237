"""Shared budgets in the ledger: periods, agreement, and one limit for all runs together."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import SpecError
from batchata_tasks.execution.guard import Verdict, guard
from batchata_tasks.ledger import (
    BudgetTerms,
    Chunk,
    Intent,
    Lease,
    Ledger,
    OutcomeTotals,
    RemainingBudget,
)
from batchata_tasks.ledger import tables as t
from batchata_tasks.planning.limits import SpendingLimits
from tests.support.chunks import planned_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ledgers import Databases

RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}
TERMS = BudgetTerms("night", 100, "month", "UTC")


class Runs:
    """Some runs in one ledger, each with a dataset of its own.

    Each has four chunks of ten rows, at four picodollars.
    """

    def __init__(self, url: str, number: int = 3) -> None:
        self.ledger, self.other = Ledger(url), Ledger(url)
        datasets = [self.ledger.dataset_id(f"file:///{n}", None) for n in range(number)]
        self.leases = [self.ledger.acquire_lease(dataset, 3600) for dataset in datasets]
        self.ids = [self.ledger.begin_run(lease, RUN) for lease in self.leases]
        self.chunks = [
            [self._chunk(lease, run, n) for n in range(4)]
            for lease, run in zip(self.leases, self.ids, strict=True)
        ]
        for lease, run, chunks in zip(self.leases, self.ids, self.chunks, strict=True):
            self.ledger.fix_plan(lease, run, {}, chunks)

    def _chunk(self, lease: Lease, run: str, number: int) -> Chunk:
        start = number * 10
        rows = range(start, start + 10)
        return planned_chunk(f"{run[:8]}-{number}", run, lease.dataset_id, rows, bound=40)

    def reserve(
        self, run: int, number: int, terms: BudgetTerms | None = TERMS, limit: int | None = None
    ) -> RemainingBudget | None:
        return self.ledger.reserve(self.leases[run], self.chunks[run][number], limit, terms)

    def settle(self, run: int, number: int, cost: int) -> None:
        self.ledger.collect(
            self.leases[run],
            self.chunks[run][number],
            {"succeeded": OutcomeTotals(10, cost=cost)},
            0,
        )

    def close(self) -> None:
        self.ledger.close()
        self.other.close()


@pytest.fixture
def runs(databases: Databases) -> Iterator[Runs]:
    made = Runs(databases.new())
    yield made
    made.close()


def test_runs_share_what_is_left(runs: Runs) -> None:
    """What one run has reserved or spent, another cannot.

    The difference to a lower settled cost is free for all.
    """
    assert runs.reserve(0, 0) is None
    assert runs.reserve(1, 0) is None
    assert runs.reserve(2, 0) == RemainingBudget(None, 20)
    assert runs.ledger.budget_money(TERMS) == (0, 80)
    runs.settle(0, 0, 5)
    assert runs.ledger.budget_money(TERMS) == (5, 40)
    assert runs.reserve(2, 0) is None
    assert runs.reserve(2, 1, limit=60) == RemainingBudget(20, 15)


def test_another_budget_and_none_do_not_count(runs: Runs) -> None:
    """Runs that name another budget, or none, take nothing from it."""
    assert runs.reserve(0, 0, None) is None
    assert runs.reserve(0, 1, replace(TERMS, name="day")) is None
    assert runs.ledger.budget_money(TERMS) == (0, 0)
    assert runs.ledger.budget_of(runs.chunks[0][0].id) is None


def test_money_belongs_to_the_period_in_which_it_was_reserved(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation made before midnight and settled after it counts for the day before.

    The new day has its whole limit.
    """
    before, after = (
        int(datetime(2026, 3, day, 12, tzinfo=UTC).timestamp() * 1e6) for day in (1, 2)
    )
    daily = replace(TERMS, period="day")
    for module in ("ledger.money", "ledger.budgets"):
        monkeypatch.setattr(f"batchata_tasks.{module}.now_us", lambda: before)
    assert runs.reserve(0, 0, daily) is None
    assert runs.reserve(0, 1, daily) is None
    for module in ("ledger.money", "ledger.budgets"):
        monkeypatch.setattr(f"batchata_tasks.{module}.now_us", lambda: after)
    runs.settle(0, 0, 30)
    assert runs.ledger.budget_money(daily) == (0, 0)
    assert runs.reserve(1, 0, daily) is None
    assert runs.ledger.budget_money(daily) == (0, 40)
    assert runs.ledger.budget_of(runs.chunks[0][0].id) == {
        "name": "night",
        "period_us": daily.start(before),
    }


def test_parts_of_a_cut_chunk_keep_their_budget(runs: Runs) -> None:
    """Both halves of a chunk that is split after its reservation count for the same period."""
    whole = runs.chunks[0][0]
    assert runs.reserve(0, 0) is None
    head, tail = replace(whole, stop=4, bound=16), replace(whole, id="tail", start=4, bound=24)
    runs.ledger.split_chunk(runs.leases[0], whole, head, tail)
    assert runs.ledger.budget_money(TERMS) == (0, 40)
    assert runs.ledger.budget_of("tail") == runs.ledger.budget_of(whole.id) != None  # noqa: E711


def test_threads_of_many_runs_cannot_overshoot(runs: Runs) -> None:
    """Twelve chunks of three runs ask at once, over two connections.

    As many get money as the budget allows.
    """
    pairs = [(run, one) for run in range(3) for one in runs.chunks[run]]
    gate = threading.Barrier(len(pairs))

    def ask(one: tuple[int, Chunk]) -> RemainingBudget | None:
        gate.wait()
        ledger = runs.ledger if one[1].start % 20 else runs.other
        return ledger.reserve(runs.leases[one[0]], one[1], None, replace(TERMS, limit=205))

    with ThreadPoolExecutor(len(pairs)) as pool:
        refusals = list(pool.map(ask, pairs))
    assert refusals.count(None) == 5
    assert set(refusals) - {None} == {RemainingBudget(None, 5)}


def test_the_guard_waits_for_live_runs_alone(runs: Runs) -> None:
    """A run waits for money that a live run has in flight; after that, the limit is reached."""
    assert runs.reserve(0, 0) is None
    assert runs.reserve(0, 1) is None

    def ask(limits: SpendingLimits) -> Verdict:
        return guard(
            runs.ledger,
            runs.leases[1],
            runs.chunks[1][0],
            limits,
            10_000,
            lambda chunk: ([4] * chunk.rows, [10] * chunk.rows),
        )[0]

    assert ask(SpendingLimits(None, replace(TERMS, limit=83))) is Verdict.WAIT_FOR_OTHERS
    # whatever comes back, its own limit leaves nothing
    assert ask(SpendingLimits(3, replace(TERMS, limit=83))) is Verdict.ASIDE
    runs.ledger.release_lease(runs.leases[0])
    assert ask(SpendingLimits(None, replace(TERMS, limit=83))) is Verdict.ASIDE
    assert ask(SpendingLimits(None, replace(TERMS, limit=120))) is Verdict.SEND


def held(runs: Runs, run: int) -> None:
    """Let the first chunk of a run be held with its money, and the run end."""
    ledger = runs.ledger
    lease = runs.leases[run]
    chunk = runs.chunks[run][0]
    assert runs.reserve(run, 0) is None
    assert ledger.record_intent(
        lease, Intent(chunk.id, "account", chunk.rows, lease.fence, now_us())
    )
    ledger.hold(lease, chunk.id)
    ledger.close_run(lease, run_id=chunk.run_id, result="some_rows_failed")


def test_nobody_waits_for_money_that_is_held(runs: Runs) -> None:
    """Money of a held chunk is free only when a person decides.

    Neither the next run of its dataset waits for it nor any other.
    """
    held(runs, 0)
    again = replace(
        runs.chunks[0][0], id="again", run_id=runs.ledger.begin_run(runs.leases[0], RUN)
    )
    runs.ledger.fix_plan(runs.leases[0], again.run_id, {}, [again])
    limits = SpendingLimits(None, replace(TERMS, limit=43))
    for lease, chunk in ((runs.leases[0], again), (runs.leases[1], runs.chunks[1][0])):
        verdict, head = guard(
            runs.ledger,
            lease,
            chunk,
            limits,
            10,
            lambda chunk: ([4] * chunk.rows, [10] * chunk.rows),
        )
        assert (verdict, head) == (Verdict.ASIDE, chunk)


def test_held_money_of_a_run_does_not_keep_it_from_waiting_for_others(runs: Runs) -> None:
    """With a chunk of its own held, a run still waits for what another has in flight."""
    held(runs, 0)
    assert runs.reserve(1, 0) is None
    limits = SpendingLimits(None, replace(TERMS, limit=83))
    verdict, _ = guard(
        runs.ledger,
        runs.leases[0],
        runs.chunks[0][1],
        limits,
        10,
        lambda chunk: ([4] * chunk.rows, [10] * chunk.rows),
    )
    assert verdict is Verdict.WAIT_FOR_OTHERS


@pytest.mark.parametrize(
    ("bounds", "own", "verdict", "rows"),
    [
        (
            [1000, *[4] * 9],
            None,
            Verdict.ASIDE,
            1,
        ),  # not even with what comes back; the nine behind it are
        ([1000, *[4] * 9], 60, Verdict.ASIDE, 1),
        ([1000, *[4] * 9], 3, Verdict.ASIDE, 10),
        ([100] * 10, None, Verdict.ASIDE, 10),
        ([41] * 10, None, Verdict.WAIT_FOR_OTHERS, 10),
        ([42] * 10, None, Verdict.ASIDE, 10),
    ],
)
def test_what_comes_back_decides_what_is_waited_for(
    runs: Runs, bounds: list[int], own: int | None, verdict: Verdict, rows: int
) -> None:
    """Rows that cost more than all money, even with that in flight, are set aside.

    All others wait for it.
    """
    assert runs.reserve(0, 0) is None
    chunk = replace(runs.chunks[1][0], id="dear", start=100, stop=110, bound=sum(bounds))
    runs.ledger.add_round(runs.leases[1], [chunk])
    limits = SpendingLimits(own, replace(TERMS, limit=41))
    found = guard(
        runs.ledger,
        runs.leases[1],
        chunk,
        limits,
        10,
        lambda chunk: (bounds[chunk.start - 100 : chunk.stop - 100], [10] * chunk.rows),
    )
    assert (found[0], found[1].rows) == (verdict, rows)


def test_specs_agree_on_a_budget(runs: Runs) -> None:
    """A limit, period or time zone other than another spec's is refused.

    The error names both and the remedy, and nothing changes.
    """
    runs.ledger.agree_budget(TERMS, "topics")
    runs.ledger.agree_budget(TERMS, "titles")
    said = (
        r"^budget: the spec topics gives 'night' \$0.+ a month .*, "
        "and this gives it .* --set-budget night=USD"
    )
    for other in (
        replace(TERMS, limit=7),
        replace(TERMS, period="day"),
        replace(TERMS, timezone="Europe/Berlin"),
    ):
        with pytest.raises(SpecError, match=said):
            runs.other.check_budget(other, "titles")
        with pytest.raises(SpecError, match=said):
            runs.ledger.agree_budget(other, "titles")
    assert runs.ledger.budgets() == [TERMS]


def test_specs_are_changed_one_after_the_other(runs: Runs) -> None:
    """New terms hold once each spec has them, in any order.

    A spec that is alone changes its budget at once.
    """
    new = replace(TERMS, limit=200, period="week")
    runs.ledger.agree_budget(TERMS, "topics")
    runs.ledger.agree_budget(TERMS, "titles")
    with pytest.raises(SpecError):
        runs.ledger.agree_budget(new, "topics")
    assert runs.ledger.binding(new) == TERMS
    assert runs.ledger.check_budget(new, "titles") == new
    runs.ledger.agree_budget(new, "titles")
    runs.ledger.agree_budget(new, "topics")
    assert runs.ledger.binding(TERMS) == new
    runs.ledger.agree_budget(replace(TERMS, name="own"), "topics")
    runs.ledger.agree_budget(replace(TERMS, name="own", limit=9), "topics")
    assert runs.ledger.binding(replace(TERMS, name="own")).limit == 9


def test_a_limit_that_was_set_by_hand_holds_for_all(runs: Runs) -> None:
    """A limit set by hand binds at once, though specs keep their terms.

    It ends when all of them state the same new one. None is refused until then, and none changes it
    alone. With a spec that is gone it is set anew.
    """
    for spec in ("topics", "titles", "gone"):
        runs.ledger.agree_budget(TERMS, spec)
    runs.ledger.set_budget("night", 45)
    runs.ledger.agree_budget(TERMS, "topics")
    assert runs.ledger.check_budget(TERMS, "titles").limit == 45
    assert runs.reserve(0, 0) is None
    assert runs.reserve(0, 1) == RemainingBudget(None, 5)
    runs.ledger.set_budget("night", 500)
    assert runs.reserve(0, 1) is None
    new, other = replace(TERMS, limit=90), replace(TERMS, limit=900)
    for spec, terms in (("topics", new), ("titles", other), ("topics", new), ("titles", new)):
        assert runs.ledger.check_budget(terms, spec).limit == 500
        runs.ledger.agree_budget(terms, spec)
        assert runs.ledger.binding(TERMS).limit == 500
    runs.ledger.set_budget("night", 90)
    assert runs.ledger.check_budget(other, "topics").limit == 90
    runs.ledger.set_budget("night", 500)
    assert runs.ledger.check_budget(new, "gone") == new
    runs.ledger.agree_budget(new, "gone")
    assert runs.ledger.binding(TERMS) == new
    with pytest.raises(SpecError, match="all that share a budget must give it the same terms"):
        runs.ledger.agree_budget(other, "topics")
    with pytest.raises(SpecError, match="no budget of that name"):
        runs.ledger.set_budget("day", 1)


def test_a_limit_set_by_hand_ends_a_disagreement(runs: Runs) -> None:
    """Specs with different terms run under a limit set by hand, in any order.

    Repeating their terms, or naming the limit that was set, changes nothing.
    """
    dearer, by_hand = replace(TERMS, limit=900, period="day"), replace(TERMS, limit=50)
    runs.ledger.agree_budget(TERMS, "topics")
    with pytest.raises(SpecError):
        runs.ledger.agree_budget(dearer, "titles")
    runs.ledger.set_budget("night", 50)
    for spec, terms in (
        ("titles", dearer),
        ("topics", TERMS),
        ("another", TERMS),
        ("titles", by_hand),
        ("topics", by_hand),
    ):
        assert runs.ledger.check_budget(terms, spec) == by_hand
        runs.ledger.agree_budget(terms, spec)
        assert runs.ledger.binding(TERMS) == by_hand


def test_a_stranger_does_not_change_what_was_set_by_hand(runs: Runs) -> None:
    """A spec new to the budget is refused if nobody else has its terms.

    The specs that were there may agree on something new.
    """
    runs.ledger.agree_budget(TERMS, "topics")
    runs.ledger.set_budget("night", 50)
    new = replace(TERMS, limit=900)
    for ask in (runs.ledger.check_budget, runs.ledger.agree_budget, runs.ledger.agree_budget):
        with pytest.raises(
            SpecError,
            match=(
                r"^budget: the ledger gives 'night' \$0.+ and this gives it .*: "
                "change one, or set the limit for all"
            ),
        ):
            ask(new, "stranger")
    runs.ledger.agree_budget(TERMS, "topics")
    assert runs.ledger.binding(TERMS).limit == 50
    runs.ledger.agree_budget(new, "topics")
    runs.ledger.agree_budget(new, "stranger")
    assert runs.ledger.binding(TERMS) == new


FILE = replace(TERMS, file="budgets.yaml of example.com/night")


def test_a_file_of_budgets_is_one_voice(runs: Runs) -> None:
    """A limit that is changed in the file holds at once for all specs that name it.

    It does not matter which of them runs first, or whether others run at all.
    """
    for spec in ("topics", "titles", "gone"):
        runs.ledger.agree_budget(FILE, spec)
    for limit, spec in ((200, "titles"), (50, "topics"), (70, "new")):
        changed = replace(FILE, limit=limit)
        assert runs.other.check_budget(changed, spec) == changed
        runs.ledger.agree_budget(changed, spec)
        assert runs.ledger.binding(TERMS).limit == limit
    runs.ledger.agree_budget(replace(FILE, limit=70), "topics")


def test_a_file_does_not_speak_for_others(runs: Runs) -> None:
    """What a spec states itself, or another file does, is not raised by an edit of this one.

    The error names both places. When the other one follows, the new limit holds.
    """
    other = replace(TERMS, file="/srv/budgets.yaml")
    runs.ledger.agree_budget(FILE, "topics")
    runs.ledger.agree_budget(other, "titles")
    runs.ledger.agree_budget(TERMS, "own")
    file = r"budgets.yaml of example.com/night"
    theirs = r"/srv/budgets.yaml, which the spec titles names,"
    for terms, spec, words in (
        (FILE, "topics", rf"^budget: {theirs} gives 'night' \$.* and {file} gives it \$"),
        (other, "titles", r"^budget: the spec own gives .* and /srv/budgets.yaml gives it \$"),
    ):
        changed = replace(terms, limit=900)
        with pytest.raises(SpecError, match=words):
            runs.ledger.agree_budget(changed, spec)
        assert runs.ledger.binding(TERMS) == TERMS
    runs.ledger.agree_budget(replace(TERMS, limit=900), "own")
    assert runs.ledger.binding(TERMS).limit == 900


def test_a_limit_set_by_hand_outlasts_one_of_two_files(runs: Runs) -> None:
    """It ends when the other one follows."""
    other, new = replace(TERMS, file="/srv/budgets.yaml"), replace(FILE, limit=900)
    for terms, spec in ((FILE, "topics"), (FILE, "tags"), (other, "titles")):
        runs.ledger.agree_budget(terms, spec)
    runs.ledger.set_budget("night", 50)
    runs.ledger.agree_budget(new, "topics")
    assert runs.ledger.binding(TERMS).limit == 50
    runs.ledger.agree_budget(replace(other, limit=900), "titles")
    assert runs.ledger.binding(TERMS).limit == 900
    runs.ledger.agree_budget(new, "tags")


def stored(runs: Runs) -> tuple[dict[str, Any], list[Any]]:
    """Return what the ledger keeps of what is stated of the budget, and of what was agreed on."""
    with runs.ledger.engine.connect() as connection:
        row = connection.execute(select(t.budgets)).one()
    return json.loads(row.said), json.loads(row.agreed)


def test_earlier_versions_can_read_what_is_stated(runs: Runs) -> None:
    """They know three values of each statement, or none, whatever file it stands in."""
    runs.ledger.agree_budget(FILE, "topics")
    runs.ledger.agree_budget(TERMS, "titles")
    runs.ledger.set_budget("night", 50)
    said, agreed = stored(runs)
    assert list(said.values()) == [[100, "month", "UTC"]] * 2
    assert all(len(statement) == 3 for statement in agreed)


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_earlier_versions_wrote_is_read(runs: Runs, by_hand: bool) -> None:
    """The file as a fourth value, and nothing of what a hand had overruled."""
    runs.ledger.agree_budget(FILE, "topics")
    runs.ledger.agree_budget(FILE, "titles")
    stated = None if by_hand else [100, "month", "UTC", FILE.file]
    agreed = [[100, "month", "UTC"], [50, "month", "UTC"]] if by_hand else [[100, "month", "UTC"]]
    values = {"said": json.dumps(dict.fromkeys(("topics", "titles"), stated))}
    values |= {"agreed": json.dumps(agreed)}
    with runs.ledger.engine.begin() as connection:
        connection.execute(update(t.budgets).values(limit_amount=agreed[-1][0], **values))
    for spec in ("topics", "titles"):
        runs.ledger.agree_budget(FILE, spec)
        assert runs.ledger.binding(TERMS).limit == agreed[-1][0]
    changed = replace(FILE, limit=70)
    runs.ledger.agree_budget(changed, "titles")
    assert runs.ledger.binding(TERMS) == changed


def test_a_spec_whose_file_is_elsewhere_now_is_no_other_voice(runs: Runs) -> None:
    """A spec's last word counts, wherever its file lay before."""
    runs.ledger.agree_budget(FILE, "topics")
    runs.ledger.agree_budget(replace(TERMS, limit=7, file="/srv/budgets.yaml"), "topics")
    runs.ledger.agree_budget(replace(TERMS, limit=9), "topics")
    assert runs.ledger.binding(TERMS).limit == 9


def test_what_a_limit_set_by_hand_overrules_is_told(runs: Runs) -> None:
    """The change names each statement that is not followed any more; an edit of the file counts."""
    runs.ledger.agree_budget(FILE, "topics")
    runs.ledger.agree_budget(FILE, "titles")
    changed = runs.ledger.set_budget("night", 500)
    assert (changed.before, changed.now) == (TERMS, replace(TERMS, limit=500))
    told = {spec: (terms, terms.file) for spec, terms in changed.overruled.items()}
    assert told == dict.fromkeys(("topics", "titles"), (TERMS, FILE.file))
    runs.ledger.agree_budget(FILE, "topics")
    assert runs.ledger.binding(TERMS).limit == 500
    runs.ledger.agree_budget(replace(FILE, limit=60), "titles")
    assert runs.ledger.binding(TERMS).limit == 60


def test_another_period_forgets_nothing_that_was_spent_in_it(runs: Runs) -> None:
    """What was reserved today counts today, in whatever period it was reserved."""
    runs.ledger.agree_budget(TERMS, "topics")
    assert runs.reserve(0, 0) is None
    daily = replace(TERMS, period="day")
    runs.ledger.agree_budget(daily, "topics")
    assert runs.ledger.budget_money(daily) == (0, 40)
    assert runs.reserve(0, 1, daily) is None
    for period in ("total", "week"):
        runs.ledger.agree_budget(replace(TERMS, period=period), "topics")
        assert runs.ledger.budget_money(TERMS) == (0, 80)


@given(
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001
    period=st.sampled_from(["day", "week", "month"]),
    zone=st.sampled_from(
        [
            "UTC",
            "Europe/Berlin",
            "America/Sao_Paulo",
            "Asia/Kathmandu",
            "Pacific/Apia",
            "Africa/Casablanca",
        ]
    ),
)
def test_periods_begin_by_local_clocks(moment: datetime, period: str, zone: str) -> None:
    """Two moments share a period exactly if their local dates do.

    It began before both, on the first such date.
    """
    terms = BudgetTerms("b", 1, period, zone)
    first = moment.replace(tzinfo=UTC)
    later = datetime.fromtimestamp(first.timestamp() + 86_400 * 3, UTC)

    def number(at: datetime) -> tuple[int, ...]:
        local = at.astimezone(ZoneInfo(zone))
        return {
            "day": (local.toordinal(),),
            "week": local.isocalendar()[:2],
            "month": (local.year, local.month),
        }[period]

    starts = [terms.start(int(at.timestamp()) * 10**6) for at in (first, later)]
    assert (starts[0] == starts[1]) == (number(first) == number(later))
    assert starts[0] <= first.timestamp() * 1e6
    assert number(datetime.fromtimestamp(starts[0] / 1e6, UTC)) == number(first)
    assert number(datetime.fromtimestamp(starts[0] / 1e6 - 1, UTC)) != number(first)


def test_a_total_has_one_period() -> None:
    """A budget in total never begins anew."""
    assert {replace(TERMS, period="total").start(moment) for moment in (1, now_us())} == {0}
