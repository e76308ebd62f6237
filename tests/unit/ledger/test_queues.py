"""Queues in the ledger: one line for all runs, what is inside, and limits that change."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LeaseError
from batchata_tasks.ledger import Chunk, ChunkState, Intent, Ledger, OutcomeTotals, Queue, store
from tests.support.chunks import planned_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.ledger import Lease, QueueRoom
    from tests.support.ledgers import Databases

RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}
QUEUE = Queue("account", "m")
LEASE = 60
DAY = 86_400
CHUNKS = 3


class Runs:
    """Some runs in one ledger, each with a dataset of its own and three chunks."""

    def __init__(self, url: str, number: int = 3) -> None:
        self.ledger = Ledger(url)
        datasets = [self.ledger.dataset_id(f"file:///{n}", None) for n in range(number)]
        self.leases = [self.ledger.acquire_lease(dataset, LEASE) for dataset in datasets]
        self.ids = [self.ledger.begin_run(lease, RUN) for lease in self.leases]
        for lease, run in zip(self.leases, self.ids, strict=True):
            chunks = [
                planned_chunk(f"{run[:8]}-{n}", run, lease.dataset_id, range(n * 10, n * 10 + 10))
                for n in range(CHUNKS)
            ]
            self.ledger.fix_plan(lease, run, {}, chunks)

    def chunk(self, run: int, number: int = 0) -> Chunk:
        return self.ledger.chunk(f"{self.ids[run][:8]}-{number}")

    def ask(self, run: int, amount: int, number: int = 0, *, stated: int | None = 100) -> QueueRoom:
        chunk = self.chunk(run, number)
        return self.ledger.ask_room(self.leases[run], chunk, QUEUE, amount, stated)

    def intend(self, run: int, number: int = 0) -> None:
        lease, chunk = self.leases[run], self.chunk(run, number)
        intent = Intent(chunk.id, QUEUE.account, chunk.rows, lease.fence, now_us())
        assert self.ledger.record_intent(lease, intent, named=True)

    def send(self, run: int, number: int = 0) -> str:
        self.intend(run, number)
        chunk = self.chunk(run, number)
        batch_id = f"batch of {chunk.id}"
        self.ledger.record_batch(self.leases[run], chunk, batch_id, QUEUE.account, "in_progress")
        return batch_id

    def end(self, run: int, number: int = 0) -> None:
        batch_id = self.chunk(run, number).batch_id or ""
        self.ledger.record_look(batch_id, "completed", 10, ended=True)

    def refuse(self, run: int, told: int) -> QueueRoom:
        """Let the provider have no room for what a run sent, which is to be sent again."""
        room = self.ledger.refuse_room(self.leases[run], self.chunk(run), QUEUE, told)
        self.end(run)
        self.ledger.return_chunk(self.leases[run], self.chunk(run).id)
        return room

    def land(self, run: int, number: int = 0) -> None:
        totals = {"succeeded": OutcomeTotals(10)}
        self.ledger.collect(self.leases[run], self.chunk(run, number), totals, 0)

    def take_over(self, run: int) -> Lease:
        self.leases[run] = self.ledger.acquire_lease(self.leases[run].dataset_id, LEASE)
        return self.leases[run]


@pytest.fixture
def runs(databases: Databases) -> Iterator[Runs]:
    made = Runs(databases.new())
    yield made
    made.ledger.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the ledger's clock, which a test sets forward."""
    clock = Clock()
    monkeypatch.setattr(Ledger, "clock", lambda _ledger, _connection: clock.read())
    return clock


class Clock:
    """A clock that goes on by a microsecond when it is read."""

    def __init__(self) -> None:
        self.now = now_us()

    def read(self) -> int:
        self.now += 1
        return self.now

    def later(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)


def test_without_a_limit_all_are_let_in(runs: Runs) -> None:
    """If nobody knows what the queue holds, nobody waits; what is in it is known all the same."""
    assert runs.ask(0, 10**12, stated=None).let_in
    room = runs.ask(1, 10**12, stated=None)
    assert (room.let_in, room.taken, room.limit, room.runs) == (True, 10**12, None, 1)


def test_what_is_inside_counts_until_its_batch_ended(runs: Runs) -> None:
    """Let in, in doubt, or at the provider, it takes up room; not any more once it ended."""
    assert runs.ask(0, 60).let_in
    assert not runs.ask(1, 60).let_in
    runs.intend(0)
    assert not runs.ask(1, 60).let_in
    runs.ledger.withdraw_intent(runs.leases[0], runs.chunk(0).id)
    runs.send(0)
    assert not runs.ask(1, 60).let_in
    runs.end(0)
    assert runs.ask(1, 60).let_in


def test_two_that_ask_at_once_do_not_both_get_the_last_room(databases: Databases) -> None:
    """Of many that ask at the same moment, no more are let in than there is room for."""
    runs = Runs(databases.new(), 8)
    with ThreadPoolExecutor(8) as pool:
        rooms = list(pool.map(lambda run: runs.ask(run, 30), range(8)))
    assert sum(room.let_in for room in rooms) == 3
    runs.ledger.close()


def test_a_large_chunk_is_not_overtaken_by_small_ones(runs: Runs) -> None:
    """Small ones go by only as long as they leave the room that one ahead of them waits for."""
    assert runs.ask(0, 40).let_in
    assert not runs.ask(1, 90).let_in
    assert not runs.ask(2, 10).let_in  # there is room for it, but not for the one ahead as well
    runs.send(0)
    runs.end(0)
    assert not runs.ask(2, 20).let_in
    assert runs.ask(1, 90).let_in
    assert not runs.ask(2, 20).let_in
    assert runs.ask(2, 10).let_in


def test_one_that_seems_too_large_goes_by_itself(runs: Runs) -> None:
    """More than the queue holds is let in once it is empty: an estimate may be wrong."""
    assert runs.ask(0, 10).let_in
    assert not runs.ask(1, 101).let_in
    assert not runs.ask(2, 10).let_in
    runs.send(0)
    runs.end(0)
    assert runs.ask(1, 101).let_in
    assert not runs.ask(2, 10).let_in


def test_a_dead_run_does_not_hold_the_line(runs: Runs, clock: Clock) -> None:
    """Who waits, or was let in and sent nothing, counts no longer once its lease has run out."""
    assert runs.ask(0, 60).let_in
    assert not runs.ask(1, 60).let_in
    clock.later(LEASE + 1)
    runs.take_over(2)
    assert runs.ask(2, 100).let_in


def test_what_a_dead_run_sent_counts_until_it_ended(runs: Runs, clock: Clock) -> None:
    """Its batch is at the provider; a day later, when no provider has one, it counts no more."""
    assert runs.ask(0, 60).let_in
    batch_id = runs.send(0)
    clock.later(LEASE + 1)
    runs.take_over(1)
    assert not runs.ask(1, 60).let_in
    assert runs.ledger.unwatched_in(QUEUE) == [batch_id]
    clock.later(26 * 3600)
    runs.take_over(1)
    assert runs.ask(1, 60).let_in


def test_a_successor_stands_where_its_predecessor_did(runs: Runs, clock: Clock) -> None:
    """A run that is carried on keeps its place, and is not held up by its own other places."""
    assert runs.ask(0, 60).let_in
    runs.send(0)
    assert not runs.ask(1, 60, 0).let_in
    assert not runs.ask(1, 60, 1).let_in
    assert not runs.ask(2, 60).let_in
    clock.later(LEASE + 1)
    runs.take_over(1)
    runs.take_over(2)
    runs.end(0)
    assert not runs.ask(1, 60, 1).ahead  # its other chunk is asked for by nobody
    assert runs.ask(1, 60, 1).let_in
    assert not runs.ask(2, 60).let_in


def test_a_suspended_run_keeps_its_place_for_a_while(runs: Runs, clock: Clock) -> None:
    """It holds the line as long as somebody says that it comes back, and no longer."""
    assert runs.ask(0, 60).let_in
    runs.send(0)
    assert not runs.ask(1, 60).let_in
    runs.ledger.keep_places(runs.ids[1], 600)
    runs.ledger.release_lease(runs.leases[1])
    assert not runs.ask(2, 60).let_in
    assert [one.may_go for one in runs.ledger.standings()] == [frozenset()]
    runs.end(0)
    assert not runs.ask(2, 60).let_in
    (standing,) = runs.ledger.standings()
    assert (standing.waiting, standing.may_go, standing.taken, standing.limit) == (
        {runs.ids[1]: 1, runs.ids[2]: 1},
        {runs.ids[1]},
        0,
        100,
    )
    clock.later(601)
    runs.take_over(2)
    assert runs.ask(2, 60).let_in
    runs.take_over(1)
    assert not runs.ask(1, 60).let_in


def test_a_clock_that_was_ahead_holds_nobody_up(runs: Runs, clock: Clock) -> None:
    """What was noted then counts neither as kept nor as at the provider for weeks."""
    assert runs.ask(0, 60).let_in
    clock.later(30 * DAY)
    for run in (0, 1):
        runs.take_over(run)
    assert runs.ask(0, 60).let_in
    runs.send(0)
    assert not runs.ask(1, 60).let_in
    runs.ledger.keep_places(runs.ids[1], 600)
    for run in (0, 1):
        runs.ledger.release_lease(runs.leases[run])
    clock.later(-30 * DAY)
    assert runs.ask(2, 100).let_in
    runs.ledger.leave_queue(runs.leases[2], runs.chunk(2).id)
    runs.take_over(1)
    assert not runs.ask(2, 100).ahead
    assert not runs.ask(1, 60).let_in
    runs.ledger.leave_queue(runs.leases[2], runs.chunk(2).id)
    assert runs.ask(1, 60).let_in


def test_a_place_is_given_up_but_not_by_a_predecessor(runs: Runs, clock: Clock) -> None:
    """Who leaves the line holds nobody up; who woke up too late takes no successor's place."""
    assert runs.ask(0, 60).let_in
    before = runs.leases[1]
    assert not runs.ask(1, 60).let_in
    clock.later(LEASE + 1)
    for run in (0, 1, 2):
        runs.take_over(run)
    assert runs.ask(0, 60).let_in
    assert not runs.ask(1, 60).let_in
    runs.ledger.leave_queue(before, runs.chunk(1).id)
    assert runs.ask(2, 10).ahead == 1
    runs.ledger.leave_queue(runs.leases[1], runs.chunk(1).id)
    assert runs.ask(2, 10).let_in
    with pytest.raises(LeaseError):
        runs.ledger.ask_room(before, runs.chunk(1), QUEUE, 1, None)


def test_what_was_sent_keeps_its_place(runs: Runs) -> None:
    """A create of unknown fate takes up room, whoever gives up."""
    assert runs.ask(0, 60).let_in
    runs.intend(0)
    runs.ledger.leave_queue(runs.leases[0], runs.chunk(0).id)
    assert not runs.ask(1, 60).let_in


def test_a_refusal_tells_all_runs_what_the_queue_holds(runs: Runs) -> None:
    """The limit outlives the process; the lower one of it and the settings' holds."""
    assert runs.ask(0, 60, stated=None).let_in
    runs.send(0)
    assert runs.ask(1, 60, stated=None).let_in
    runs.send(1)
    room = runs.refuse(1, 80)
    assert (room.taken, room.limit) == (60, 80)
    assert not runs.ask(1, 60, stated=None).let_in
    again = Ledger(runs.ledger.url.render_as_string(hide_password=False))
    found = again.ask_room(runs.leases[2], runs.chunk(2), QUEUE, 30, 1000)
    assert (found.let_in, found.limit) == (False, 80)
    again.close()
    assert runs.ask(2, 30, stated=20).limit == 20


def test_one_that_an_older_version_sent_may_be_refused(runs: Runs) -> None:
    """It has no place in any line until then, and waits like another one from then on."""
    assert runs.ask(0, 50, stated=None).let_in
    runs.send(0)
    runs.send(1)
    runs.refuse(1, 80)
    assert not runs.ask(1, 40, stated=None).let_in
    runs.end(0)
    assert runs.ask(1, 40, stated=None).let_in


def test_one_that_was_refused_waits_until_something_ended(runs: Runs) -> None:
    """If there was less room than the ledger thought, it is not sent again at once."""
    assert runs.ask(0, 50, stated=None).let_in
    runs.send(0)
    assert runs.ask(1, 40, stated=None).let_in
    runs.send(1)
    runs.refuse(1, 100)
    assert not runs.ask(1, 40, stated=None).let_in
    assert runs.ask(1, 10, stated=None).let_in  # but a part of it is tried
    runs.ledger.leave_queue(runs.leases[1], runs.chunk(1).id)
    runs.end(0)
    assert runs.ask(1, 40, stated=None).let_in


def test_others_than_the_ledgers_runs_fill_the_queue(runs: Runs, clock: Clock) -> None:
    """A chunk that let go is tried again after its time, which nobody puts off, and not before."""
    assert runs.ask(0, 60, stated=None).let_in
    runs.send(0)
    runs.refuse(0, 100)
    runs.ledger.keep_places(runs.ids[0], 600)
    runs.ledger.release_lease(runs.leases[0])
    for _ in range(3):
        assert [one.may_go for one in runs.ledger.standings()] == [frozenset()]
        clock.later(190)
        runs.ledger.keep_places(runs.ids[0], 180)
    clock.later(31)
    assert [one.may_go for one in runs.ledger.standings()] == [{runs.ids[0]}]
    runs.ledger.keep_places(runs.ids[0], 600)
    runs.take_over(1)
    assert runs.ask(1, 60, stated=None).ahead == 1
    runs.ledger.unkeep_places(runs.ids[0])
    assert runs.ask(1, 60, stated=None).let_in


def test_after_a_day_one_chunk_tries_whether_the_limit_holds(runs: Runs, clock: Clock) -> None:
    """It alone goes beyond it; once it runs, the limit is forgotten; if refused, it holds again."""
    assert runs.ask(0, 50, stated=None).let_in
    runs.send(0)
    runs.ledger.refuse_room(runs.leases[0], runs.chunk(0), QUEUE, 60)
    runs.end(0)
    clock.later(DAY + 60)
    for run in range(3):
        runs.take_over(run)
    assert runs.ask(0, 60, 1, stated=None).let_in
    assert not runs.ask(0, 60, 2, stated=70).let_in  # the settings hold all the same
    runs.ledger.leave_queue(runs.leases[0], runs.chunk(0, 2).id)
    assert runs.ask(1, 60, stated=None).let_in
    assert not runs.ask(2, 60, stated=None).let_in
    batch_id = runs.send(1)
    assert not runs.ask(2, 60, stated=None).let_in
    runs.ledger.record_look(batch_id, "validating", None, ended=False)
    assert not runs.ask(2, 60, stated=None).let_in
    runs.ledger.record_look(batch_id, "in_progress", 0, ended=False)
    room = runs.ask(2, 60, stated=None)
    assert (room.let_in, room.limit) == (True, None)
    runs.send(2)
    runs.refuse(2, 130)
    assert not runs.ask(2, 60, stated=None).let_in


def test_a_chunk_that_would_be_split_tries_whether_the_limit_holds(
    runs: Runs, clock: Clock
) -> None:
    """It finds an empty queue and no limit after a day, but for one that the settings state."""
    assert runs.ask(0, 50, stated=None).let_in
    runs.send(0)
    runs.ledger.refuse_room(runs.leases[0], runs.chunk(0), QUEUE, 20)
    runs.end(0)
    assert (runs.ask(1, 500, stated=None).let_in, runs.ask(1, 500, stated=None).limit) == (True, 20)
    runs.ledger.leave_queue(runs.leases[1], runs.chunk(1).id)
    clock.later(DAY + 60)
    for run in (1, 2):
        runs.take_over(run)
    assert runs.ask(1, 500, stated=10).limit == 10
    room = runs.ask(1, 500, stated=100)
    assert (room.let_in, room.limit) == (True, 100)
    room = runs.ask(1, 100, stated=100)  # as much as may be tried of it
    assert (room.let_in, room.limit) == (True, 100)
    assert runs.ask(2, 100, stated=None).limit == 20
    runs.ledger.record_look(runs.send(1), "in_progress", 0, ended=False)
    assert runs.ask(2, 100, stated=None).limit is None


def test_a_limit_that_was_told_while_a_clock_was_ahead_is_tried(runs: Runs, clock: Clock) -> None:
    """Nobody knows when that was, so one chunk goes beyond it, as after a day."""
    clock.later(30 * DAY)
    runs.take_over(0)
    assert runs.ask(0, 50, stated=None).let_in
    runs.send(0)
    runs.ledger.refuse_room(runs.leases[0], runs.chunk(0), QUEUE, 60)
    runs.end(0)
    runs.ledger.release_lease(runs.leases[0])
    clock.later(-30 * DAY)
    assert runs.ask(1, 60, stated=None).let_in
    assert runs.ask(2, 60, stated=None).let_in
    assert not runs.ask(1, 60, 1, stated=None).let_in


def test_queues_of_other_models_and_accounts_are_apart(runs: Runs) -> None:
    """What one holds takes nothing from another."""
    assert runs.ask(0, 100).let_in
    for queue in (Queue("account", "other"), Queue("another", "m")):
        lease, chunk = runs.leases[1], runs.chunk(1)
        assert runs.ledger.ask_room(lease, chunk, queue, 100, 100).let_in


class Line(RuleBasedStateMachine):
    """Runs that ask, send, end, die and come back in any order; what is there is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = now_us()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(store, "now_us", lambda: self.clock)
        self.patch.setattr("batchata_tasks.ledger.leases.is_dead", lambda _holder: False)
        self.runs = Runs(f"sqlite:///{Path(self.folder.name) / 'ledger.db'}")
        self.alive = {0, 1, 2}
        self.since: dict[tuple[int, int], int] = {}  # of each that asked, whoever died since
        self.waiting: dict[tuple[int, int], int] = {}  # amounts
        self.let_in: dict[tuple[int, int], int] = {}
        self.there: dict[tuple[int, int], int] = {}
        self.done = set[tuple[int, int]]()

    def teardown(self) -> None:
        self.runs.ledger.close()
        self.patch.undo()
        self.folder.cleanup()

    @rule(run=st.integers(0, 2), number=st.integers(0, CHUNKS - 1), amount=st.integers(1, 120))
    def ask(self, run: int, number: int, amount: int) -> None:
        which = run, number
        if run not in self.alive or which in self.there or which in self.done:
            return
        self.clock += 1
        amount = self.let_in.get(which, self.waiting.get(which, amount))
        room = self.runs.ask(run, amount, number)
        self.waiting.setdefault(which, amount)
        since = self.since.setdefault(which, self.clock)
        if not room.let_in:
            return
        if which not in self.let_in:
            taken = sum(self.let_in.values()) + sum(self.there.values())
            assert taken + amount <= 100 or taken == 0
            for other, wanted in self.waiting.items():
                if self.since[other] < since and other[0] in self.alive:
                    assert taken + amount + wanted <= 100, "it took the room of one ahead"
        del self.waiting[which]
        self.let_in[which] = amount

    @precondition(lambda self: self.let_in)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.let_in)))
        self.runs.send(*which)
        self.there[which] = self.let_in.pop(which)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.there)))
        self.runs.end(*which)
        del self.there[which]
        self.done.add(which)

    @rule(run=st.integers(0, 2))
    def die(self, run: int) -> None:
        """Its lease runs out; those that live renew theirs."""
        self.alive.discard(run)
        self.clock += (LEASE + 1) * 1_000_000
        # what a dead run was let in for, and did not send, is asked for anew
        self.let_in = {which: a for which, a in self.let_in.items() if which[0] in self.alive}
        for one in self.alive:
            self.runs.ledger.renew_lease(self.runs.leases[one], LEASE)

    @rule(run=st.integers(0, 2))
    def come_back(self, run: int) -> None:
        if run not in self.alive:
            self.runs.take_over(run)
            self.alive.add(run)
            self.waiting = {w: v for w, v in self.waiting.items() if w[0] != run}

    @invariant()
    def no_more_is_there_than_the_queue_holds(self) -> None:
        amounts = [*self.there.values(), *self.let_in.values()]
        assert sum(amounts) <= 100 or len(amounts) == 1

    @invariant()
    def somebody_may_go(self) -> None:
        """If nothing is inside, the line moves: nobody waits for ever."""
        if self.there or self.let_in:
            return
        waiting = [which for which in self.waiting if which[0] in self.alive]
        rooms = [self.runs.ledger.room_for(self.runs.chunk(*one).id, QUEUE) for one in waiting]
        assert not waiting or any(room is not None and room.let_in for room in rooms)


# shrinking a failure would take minutes, and its thirty steps can be read as they are
Line.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, phases=[Phase.reuse, Phase.generate]
)
TestLine = Line.TestCase


def test_places_of_landed_chunks_are_cleared_away(runs: Runs) -> None:
    """The table holds what is open; years of batches leave nothing there."""
    assert runs.ask(0, 10).let_in
    runs.send(0)
    runs.end(0)
    runs.land(0)
    assert runs.chunk(0).state == ChunkState.COLLECTED
    assert runs.ask(1, 10).let_in
    assert runs.ledger.room_for(runs.chunk(0).id, QUEUE) is None
