"""The ledger decides who may send, what was sent and what it may cost.

Two connections see the same.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import HeldError, LeaseError, LedgerError
from batchata_tasks.ledger import (
    Chunk,
    ChunkState,
    Intent,
    Lease,
    Ledger,
    OpenWork,
    OutcomeTotals,
    RemainingBudget,
    new_id,
)
from tests.support.chunks import planned_chunk
from tests.support.commands import python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.ledgers import Databases


RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}
LONG = 3600.0


def chunk(run_id: str, dataset_id: str, number: int = 0, **values: Any) -> Chunk:
    start = number * 10
    rows = range(start, start + 10)
    return planned_chunk(f"{run_id[:8]}-{number}", run_id, dataset_id, rows, **values)


def prepare(url: str) -> tuple[str, Lease, str]:
    """Make the ledger of a desk; return its dataset, lease and run."""
    ledger = Ledger(url)
    dataset = ledger.dataset_id("file:///data", None)
    lease = ledger.acquire_lease(dataset, LONG)
    run = ledger.begin_run(lease, RUN)
    ledger.fix_plan(
        lease, run, {"requests": 40}, [chunk(run, dataset, number) for number in range(4)]
    )
    ledger.close()
    return dataset, lease, run


class Desk:
    """A ledger with a dataset, a lease and an open run of four chunks, and a second connection."""

    def __init__(self, databases: Databases) -> None:
        self.url, (self.dataset, self.lease, self.run) = databases.copy(prepare)
        self.ledger, self.other = Ledger(self.url), Ledger(self.url)
        self.chunks = [chunk(self.run, self.dataset, number) for number in range(4)]

    def close(self) -> None:
        self.ledger.close()
        self.other.close()

    def intent(self, one: Chunk, **values: Any) -> Intent:
        return replace(Intent(one.id, "account", one.rows, self.lease.fence, now_us()), **values)

    def bring(self, one: Chunk, state: str) -> Chunk:
        """Bring a planned chunk into a state, by the steps of a run."""
        steps: dict[str, Callable[[], object]] = {
            ChunkState.UNCLEAR: lambda: self.ledger.record_intent(
                self.lease, self.intent(one, requests=1000 + one.start)
            ),
            ChunkState.SUBMITTED: lambda: self.ledger.record_batch(
                self.lease, one, f"batch-{one.id}", "account", "in_progress"
            ),
            ChunkState.COLLECTED: lambda: self.ledger.collect(
                self.lease, one, {"succeeded": OutcomeTotals(10, 1, 1, 0, 5)}, 0
            ),
            ChunkState.LANDED: lambda: self.ledger.land(self.lease, one.id, 0),
        }
        if state == ChunkState.DROPPED:
            self.ledger.close_run(self.lease, self.run, "done")
        elif state == ChunkState.HELD:
            self.bring(one, ChunkState.UNCLEAR)
            self.ledger.hold(self.lease, one.id)
        elif state != ChunkState.PLANNED:
            for name, step in steps.items():
                step()
                if name == state:
                    break
        chunk = self.ledger.chunk(one.id)
        assert chunk.state == state
        return chunk


@pytest.fixture
def desk(databases: Databases) -> Iterator[Desk]:
    """Return a desk in a database of its own, of each kind."""
    made = Desk(databases)
    yield made
    made.close()


# --- the ledger itself ----------------------------------------------------------------------------


def test_a_ledger_keeps_its_id(desk: Desk) -> None:
    """Every connection to one database is the same ledger; another database is another."""
    assert desk.ledger.id == desk.other.id
    assert len(desk.ledger.id) == 40


def test_writes_are_durable_on_return(desk: Desk) -> None:
    """Each commit is on disk before it is reported; SQLite lets readers through meanwhile (WAL)."""
    queries = (
        ["PRAGMA synchronous", "PRAGMA journal_mode"]
        if desk.ledger.is_sqlite
        else ["SHOW synchronous_commit", "SHOW transaction_isolation"]
    )
    values = [
        desk.ledger.transact(
            lambda connection, one=one: connection.execute(text(one)).scalar(), reading=True
        )
        for one in queries
    ]
    assert values == ([2, "wal"] if desk.ledger.is_sqlite else ["on", "read committed"])


# --- datasets and leases --------------------------------------------------------------------------


def test_a_dataset_has_one_id(desk: Desk) -> None:
    """The same folder is the same dataset, another folder another one."""
    assert desk.other.dataset_id("file:///data", None) == desk.dataset
    assert desk.other.dataset_id("file:///data", desk.dataset) == desk.dataset
    assert desk.other.dataset_id("file:///else", None) != desk.dataset


def test_a_moved_dataset_keeps_its_id(desk: Desk) -> None:
    """A dataset's folder names the dataset.

    Paid answers stay known after a move, and a new dataset at the old place is new.
    """
    assert desk.ledger.dataset_id("file:///moved", desk.dataset) == desk.dataset
    assert desk.other.dataset_id("file:///moved", None) == desk.dataset
    assert desk.other.dataset_id("file:///data", None) != desk.dataset


def test_a_dataset_that_replaces_another_takes_its_place(desk: Desk) -> None:
    """A folder that was swapped for another dataset's is that dataset."""
    other = desk.ledger.dataset_id("file:///else", None)
    assert desk.ledger.dataset_id("file:///data", other) == other
    assert desk.other.dataset_id("file:///data", None) == other


def test_a_held_dataset_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run at a time: the second learns who holds the dataset and how long to wait."""
    with pytest.raises(
        LeaseError,
        match=(
            r"^another run holds this dataset: process \d+ on \S+ \(this machine\); "
            r".*start again in 3\d\d\d s\.$"
        ),
    ):
        desk.other.acquire_lease(desk.dataset, LONG)
    desk.ledger.acquire_lease(desk.ledger.dataset_id("file:///else", None), LONG)
    here = socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(LeaseError, match=rf": process \d+ on {re.escape(here)}; "):
        desk.other.acquire_lease(desk.dataset, LONG)


def test_a_released_dataset_is_free(desk: Desk) -> None:
    """A released dataset lets the next run in at once, with a higher fence."""
    desk.ledger.release_lease(desk.lease)
    assert desk.other.acquire_lease(desk.dataset, LONG).fence > desk.lease.fence


def test_an_expired_lease_is_taken_over(desk: Desk) -> None:
    """A run that did not renew its lease loses the dataset; a renewal in time keeps it."""
    desk.ledger.renew_lease(desk.lease, 0)
    taken = desk.other.acquire_lease(desk.dataset, LONG)
    assert taken.fence == desk.lease.fence + 1
    desk.ledger.release_lease(desk.lease)  # the old holder cannot give away what is not its own
    desk.other.check_lease(taken)


def test_a_late_holder_may_renew_while_nobody_came(desk: Desk) -> None:
    """An expired lease can be prolonged if nobody took it.

    Until then nothing may be sent under it.
    """
    desk.ledger.renew_lease(desk.lease, 0)
    with pytest.raises(LeaseError):
        desk.ledger.check_lease(desk.lease)
    desk.ledger.renew_lease(desk.lease, LONG)
    desk.ledger.check_lease(desk.lease)


def test_a_dead_process_holds_nothing(desk: Desk) -> None:
    """After a kill the next run on the same machine need not wait for the lease to end."""
    desk.ledger.release_lease(desk.lease)
    code = (
        f"from batchata_tasks.ledger import Ledger; l = Ledger({desk.url!r}); "
        f"l.acquire_lease({desk.dataset!r}, 3600, 'flow run 7')"
    )
    assert python(code).returncode == 0
    assert desk.ledger.open_work(30).lost == {desk.dataset: "flow run 7"}
    assert desk.ledger.acquire_lease(desk.dataset, LONG).fence == desk.lease.fence + 2


FENCED: dict[str, Callable[[Ledger, Lease, Chunk], object]] = {
    "check": lambda ledger, lease, one: ledger.check_lease(lease),
    "renew": lambda ledger, lease, one: ledger.renew_lease(lease, LONG),
    "begin": lambda ledger, lease, one: ledger.begin_run(lease, RUN),
    "plan": lambda ledger, lease, one: ledger.fix_plan(lease, one.run_id, {}, []),
    "close": lambda ledger, lease, one: ledger.close_run(lease, one.run_id, "done"),
    "split": lambda ledger, lease, one: ledger.split_chunk(
        lease, one, replace(one, stop=5), replace(one, id="t", start=5)
    ),
    "reserve": lambda ledger, lease, one: ledger.reserve(lease, one, None),
    "intent": lambda ledger, lease, one: ledger.record_intent(
        lease, Intent(one.id, "a", 1, lease.fence, 1)
    ),
    "round": lambda ledger, lease, one: ledger.add_round(lease, [replace(one, id="r", round=2)]),
    "withdraw": lambda ledger, lease, one: ledger.withdraw_intent(lease, one.id),
    "batch": lambda ledger, lease, one: ledger.record_batch(
        lease, one, "b-new", "account", "in_progress"
    ),
    "return": lambda ledger, lease, one: ledger.return_chunk(lease, one.id),
    "hold": lambda ledger, lease, one: ledger.hold(lease, one.id),
    "adopt": lambda ledger, lease, one: ledger.adopt_held(lease, one, "b-new", "account", "ended"),
    "drop": lambda ledger, lease, one: ledger.drop_held(lease, one.id),
    "collect": lambda ledger, lease, one: ledger.collect(lease, one, {}, 0),
    "land": lambda ledger, lease, one: ledger.land(lease, one.id, 0),
}


# the states from which those calls would go through
BEFORE = {
    "land": ChunkState.COLLECTED,
    "withdraw": ChunkState.UNCLEAR,
    "batch": ChunkState.UNCLEAR,
    "hold": ChunkState.UNCLEAR,
    "return": ChunkState.SUBMITTED,
    "adopt": ChunkState.HELD,
    "drop": ChunkState.HELD,
}
HOWS = [
    (call, how)
    for call in FENCED
    for how in ("taken over", "released", "expired")
    if call != "renew" or how == "taken over"
]


@pytest.mark.in_turn
@pytest.mark.parametrize(("call", "how"), HOWS)
def test_an_old_holder_is_refused(desk: Desk, call: str, how: str) -> None:
    """A holder whose lease went to another can neither plan, reserve, send nor commit.

    It changes nothing.
    """
    one = desk.bring(desk.chunks[0], BEFORE.get(call, ChunkState.PLANNED))
    if how == "released":
        desk.ledger.release_lease(desk.lease)
    else:
        desk.ledger.renew_lease(desk.lease, 0)
    if how == "taken over":
        desk.other.acquire_lease(desk.dataset, LONG)
    before = (
        desk.other.chunks(desk.run),
        desk.other.run(desk.run),
        desk.other.money(desk.run),
        len(desk.other.runs_of(None, 99)),
    )
    with pytest.raises(LeaseError, match="this run lost its hold on the dataset"):
        FENCED[call](desk.ledger, desk.lease, one)
    assert (
        desk.other.chunks(desk.run),
        desk.other.run(desk.run),
        desk.other.money(desk.run),
        len(desk.other.runs_of(None, 99)),
    ) == before


# --- runs and chunks ------------------------------------------------------------------------------


def test_a_runs_life(desk: Desk) -> None:
    """A run is planning, open, then closed, for both connections alike.

    A dataset's open run is found until it is closed.
    """
    desk.ledger.close_run(desk.lease, desk.run, "completed")
    assert desk.other.open_run(desk.dataset) is None
    run = desk.ledger.begin_run(desk.lease, {**RUN, "cost_limit": 10**18, "retry_failed": 1})
    found = desk.other.open_run(desk.dataset)
    assert found is not None
    assert (found.id, found.state, found.cost_limit, found.retry_failed, found.finished_at) == (
        run,
        "planning",
        10**18,
        1,
        None,
    )
    desk.ledger.fix_plan(desk.lease, run, {"requests": 0}, [])
    assert (desk.other.run(run).state, desk.other.run(run).plan) == ("open", '{"requests": 0}')
    desk.ledger.close_run(desk.lease, run, "failed")
    ended = desk.other.run(run)
    assert (ended.state, ended.result, ended.error) == ("closed", "failed", None)
    assert ended.finished_at >= ended.started_at
    assert [row.id for row in desk.other.runs_of(desk.dataset, 5)] == [run, desk.run]
    assert [row.id for row in desk.other.runs_of(None, 1)] == [run]
    assert desk.other.runs_of("another", 5) == []


def test_an_unknown_run_or_chunk_is_an_error(desk: Desk) -> None:
    """An unknown run or chunk is an error, without a traceback of the database's library."""
    for ask in (desk.ledger.run, desk.ledger.chunk, desk.ledger.intent):
        with pytest.raises(LedgerError):
            ask("nobody")


def test_fixing_a_plan_replaces_its_chunks(desk: Desk) -> None:
    """A new plan replaces the old one; other runs' chunks stay."""
    other = desk.ledger.begin_run(desk.lease, RUN)
    desk.ledger.fix_plan(desk.lease, other, {}, [chunk(other, desk.dataset)])
    anew = [chunk(desk.run, desk.dataset, 7), chunk(desk.run, desk.dataset, 6)]
    desk.ledger.fix_plan(desk.lease, desk.run, {}, iter(anew))
    assert desk.other.chunks(desk.run) == anew[::-1]
    assert desk.other.chunks(other) == [chunk(other, desk.dataset)]


def test_a_chunk_comes_back_as_it_was(desk: Desk) -> None:
    """Every field, unknown price included; chunks are listed by round, then by their rows."""
    unpriced = chunk(desk.run, desk.dataset, 0, bound=None, kind="local", id="u")
    second = chunk(desk.run, desk.dataset, 0, round=2, id="r2")
    desk.ledger.fix_plan(desk.lease, desk.run, {}, [second, *desk.chunks[::-1], unpriced])
    assert desk.other.chunk("u") == unpriced
    assert [c.start for c in desk.other.chunks(desk.run)] == [0, 0, 10, 20, 30, 0]
    assert desk.other.chunks(desk.run)[-1] == second
    assert desk.chunks[1].rows == 10


def test_a_plan_is_written_whole_or_not_at_all(desk: Desk) -> None:
    """A chunk list that breaks in the middle leaves the old plan."""

    def broken() -> Iterator[Chunk]:
        yield chunk(desk.run, desk.dataset, 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.ledger.fix_plan(desk.lease, desk.run, {}, broken())
    assert desk.other.chunks(desk.run) == desk.chunks


STATES = [
    ChunkState.PLANNED,
    ChunkState.UNCLEAR,
    ChunkState.SUBMITTED,
    ChunkState.COLLECTED,
    ChunkState.LANDED,
    ChunkState.HELD,
    ChunkState.DROPPED,
]
EDGES: dict[str, tuple[Callable[[Desk, Chunk], object], dict[str, str]]] = {
    "intent": (
        lambda d, c: d.ledger.record_intent(d.lease, d.intent(c)),
        {ChunkState.PLANNED: ChunkState.UNCLEAR},
    ),
    "withdraw": (
        lambda d, c: d.ledger.withdraw_intent(d.lease, c.id),
        {ChunkState.UNCLEAR: ChunkState.PLANNED},
    ),
    "batch": (
        lambda d, c: d.ledger.record_batch(d.lease, c, "b-new", "account", "in_progress"),
        {ChunkState.UNCLEAR: ChunkState.SUBMITTED},
    ),
    "collect": (
        lambda d, c: d.ledger.collect(d.lease, c, {}, 0),
        {
            ChunkState.PLANNED: ChunkState.COLLECTED,
            ChunkState.SUBMITTED: ChunkState.COLLECTED,
            ChunkState.COLLECTED: ChunkState.COLLECTED,
        },
    ),
    "land": (
        lambda d, c: d.ledger.land(d.lease, c.id, 0),
        {ChunkState.COLLECTED: ChunkState.LANDED},
    ),
    "return": (
        lambda d, c: d.ledger.return_chunk(d.lease, c.id),
        {ChunkState.SUBMITTED: ChunkState.PLANNED},
    ),
    "hold": (lambda d, c: d.ledger.hold(d.lease, c.id), {ChunkState.UNCLEAR: ChunkState.HELD}),
    "adopt": (
        lambda d, c: d.ledger.adopt_held(d.lease, c, "b-new", "account", "ended"),
        {ChunkState.HELD: ChunkState.SUBMITTED},
    ),
    "drop": (lambda d, c: d.ledger.drop_held(d.lease, c.id), {ChunkState.HELD: ChunkState.PLANNED}),
    "split": (
        lambda d, c: d.ledger.split_chunk(
            d.lease, c, replace(c, stop=c.start + 1), replace(c, id="tail", start=c.start + 1)
        ),
        {ChunkState.PLANNED: ChunkState.PLANNED},
    ),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("edge", EDGES)
def test_chunks_move_along_their_life_alone(desk: Desk, edge: str, state: str) -> None:
    """A chunk takes each step only from the states that allow it; others are refused.

    A refused step changes nothing.
    """
    call, allowed = EDGES[edge]
    one = desk.bring(desk.chunks[0], state)
    before = desk.other.chunks(desk.run)
    if state in allowed:
        call(desk, one)
        assert desk.other.chunk(one.id).state == allowed[state]
        assert [c for c in desk.other.chunks(desk.run) if c.start >= 10] == [
            c for c in before if c.start >= 10
        ]
        return
    with pytest.raises(LedgerError):
        call(desk, one)
    assert desk.other.chunks(desk.run) == before


@pytest.mark.parametrize("state", [state for state in STATES if state != ChunkState.DROPPED])
def test_closing_a_run_drops_what_was_never_sent(desk: Desk, state: str) -> None:
    """Planned chunks are dropped; chunks at the provider, or landed, stay as they are."""
    one = desk.bring(desk.chunks[0], state)
    desk.ledger.close_run(desk.lease, desk.run, "cost_limit")
    states = {c.id: c.state for c in desk.other.chunks(desk.run)}
    assert states == {
        one.id: ChunkState.DROPPED if state == ChunkState.PLANNED else state,
        **{c.id: ChunkState.DROPPED for c in desk.chunks[1:]},
    }


def test_a_split_chunk_is_its_two_parts(desk: Desk) -> None:
    """Head and tail replace the whole."""
    whole = desk.chunks[1]
    head = replace(whole, stop=13, bytes=30, bound=15)
    tail = replace(whole, id="tail", start=13, bytes=70, bound=35)
    desk.ledger.split_chunk(desk.lease, whole, head, tail)
    assert desk.other.chunks(desk.run) == [desk.chunks[0], head, tail, *desk.chunks[2:]]


@pytest.mark.parametrize("reserved", [True, False])
def test_money_of_a_split_chunk_is_split(desk: Desk, reserved: bool) -> None:
    """The parts of a split chunk share its reservation, if it has one."""
    whole, other = desk.chunks[1:3]
    desk.ledger.reserve(desk.lease, other, None)
    if reserved:
        desk.ledger.reserve(desk.lease, whole, None)
    head = replace(whole, stop=13, bytes=30, bound=15)
    tail = replace(whole, id="tail", start=13, bytes=70, bound=35)
    desk.ledger.split_chunk(desk.lease, whole, head, tail)
    assert desk.other.money(desk.run) == (0, 100 if reserved else 50)
    desk.ledger.collect(desk.lease, tail, {"succeeded": OutcomeTotals(7, cost=5)}, 0)
    assert desk.other.money(desk.run) == ((5, 65) if reserved else (0, 50))


def test_the_next_round_is_added_to_the_run(desk: Desk) -> None:
    """Its chunks follow those of the first round, which stay.

    Writing them twice is an error, and they are there once.
    """
    again = [
        replace(chunk(desk.run, desk.dataset, number), id=f"second-{number}", round=2)
        for number in range(2)
    ]
    desk.ledger.add_round(desk.lease, iter(again))
    assert desk.other.chunks(desk.run) == [*desk.chunks, *again]
    with pytest.raises(LedgerError):
        desk.ledger.add_round(desk.lease, [replace(again[0], id="third"), again[1]])
    assert desk.other.chunks(desk.run) == [*desk.chunks, *again]
    desk.ledger.add_round(desk.lease, [])
    assert desk.other.run(desk.run).state == "open"


def test_the_first_reason_to_stop_stays(desk: Desk) -> None:
    """Anybody may ask a run to stop, without its lease.

    A second reason changes nothing, and other runs go on.
    """
    other = desk.ledger.begin_run(desk.lease, RUN)
    assert desk.other.stop_reason(desk.run) is None
    desk.other.request_stop(desk.run, "time_limit")
    desk.ledger.request_stop(desk.run, "cancel")
    assert desk.ledger.stop_reason(desk.run) == desk.other.stop_reason(desk.run) == "time_limit"
    assert desk.other.stop_reason(other) is None


def test_chunks_are_asked_for_by_state(desk: Desk) -> None:
    """A run gets the chunks that are still to do; the planner gets other runs' unlanded rows."""
    for one, state in zip(
        desk.chunks,
        (ChunkState.UNCLEAR, ChunkState.SUBMITTED, ChunkState.COLLECTED, ChunkState.LANDED),
        strict=True,
    ):
        desk.bring(one, state)
    assert [
        c.start for c in desk.other.chunks(desk.run, (ChunkState.UNCLEAR, ChunkState.LANDED))
    ] == [0, 30]
    assert desk.other.chunks(desk.run, ()) == []
    assert sorted(c.start for c in desk.other.unfinished_chunks(desk.dataset, "another")) == [
        0,
        10,
        20,
    ]
    assert desk.other.unfinished_chunks(desk.dataset, desk.run) == []
    assert desk.other.unfinished_chunks("another", "another") == []


# --- sending --------------------------------------------------------------------------------------


def test_an_intent_comes_back_as_it_was(desk: Desk) -> None:
    """An intent has the account and the fence of what was about to be sent.

    Once it is withdrawn, a second takes its place.
    """
    one = desk.chunks[0]
    for sent_at in (5, 6):
        intent = Intent(
            one.id, "acct", 10, desk.lease.fence, sent_at, "file-1" if sent_at == 6 else None
        )
        assert desk.ledger.record_intent(desk.lease, intent)
        assert desk.other.intent(one.id) == intent
        desk.ledger.withdraw_intent(desk.lease, one.id, intent)


@pytest.mark.parametrize(
    ("account", "requests", "state", "allowed"),
    [
        ("account", 10, ChunkState.UNCLEAR, False),
        ("account", 11, ChunkState.UNCLEAR, True),
        ("another", 10, ChunkState.UNCLEAR, True),
        ("account", 10, ChunkState.SUBMITTED, True),
        ("account", 10, ChunkState.PLANNED, True),
    ],
)
def test_two_creates_in_doubt_differ_in_size(
    desk: Desk, account: str, requests: int, state: str, allowed: bool
) -> None:
    """Two unclear creates of one account must differ in size, so the second of one size waits.

    A list without names could not tell them apart.
    """
    rival, one = desk.chunks[:2]
    assert desk.ledger.record_intent(desk.lease, desk.intent(rival))
    if state == ChunkState.SUBMITTED:
        desk.ledger.record_batch(desk.lease, rival, "b", "account", "in_progress")
    elif state == ChunkState.PLANNED:
        desk.ledger.withdraw_intent(desk.lease, rival.id)
    assert (
        desk.other.record_intent(desk.lease, desk.intent(one, account=account, requests=requests))
        is allowed
    )
    assert desk.other.chunk(one.id).state == (ChunkState.UNCLEAR if allowed else ChunkState.PLANNED)
    if not allowed:  # it need not wait where each batch says of which create it is
        assert desk.other.record_intent(desk.lease, desk.intent(one), named=True)


def test_a_chunk_in_doubt_is_sent_by_nobody_else(desk: Desk) -> None:
    """One process at a time sends a chunk: an intent is written again once it was withdrawn.

    A late process can neither send by its old intent nor withdraw the new one.
    """
    first, second = (desk.intent(desk.chunks[0], sent_at=at) for at in (1, 2))
    assert desk.ledger.record_intent(desk.lease, first)
    with pytest.raises(LedgerError, match="in none of the states"):
        desk.other.record_intent(desk.lease, second)
    desk.other.withdraw_intent(desk.lease, first.chunk_id)
    assert desk.other.record_intent(desk.lease, second)
    with pytest.raises(LeaseError, match="another process"):
        desk.ledger.check_intent(desk.lease, first)
    desk.ledger.check_intent(desk.lease, second)
    with pytest.raises(LedgerError, match="sent by another process"):
        desk.ledger.withdraw_intent(desk.lease, first.chunk_id, first)
    desk.other.withdraw_intent(desk.lease, second.chunk_id, second)
    assert desk.ledger.chunk(first.chunk_id).state == ChunkState.PLANNED


def test_how_long_a_lease_holds_is_read(desk: Desk) -> None:
    """Another process reads the seconds; it is refused once the lease is gone."""
    assert 0 < desk.other.lease_left(desk.lease) <= LONG
    desk.ledger.release_lease(desk.lease)
    with pytest.raises(LeaseError):
        desk.other.lease_left(desk.lease)
    successor = desk.ledger.acquire_lease(desk.lease.dataset_id, LONG)
    with pytest.raises(LeaseError):
        desk.other.lease_left(desk.lease)
    desk.ledger.renew_lease(successor, 0)
    time.sleep(0.001)
    with pytest.raises(LeaseError):
        desk.other.lease_left(successor)
    with pytest.raises(LeaseError, match="lost its hold"):
        desk.other.check_intent(successor, desk.intent(desk.chunks[0]))


def test_batches_are_known(desk: Desk) -> None:
    """A batch id belongs to one chunk; each status read is stored; unknown ids are strangers."""
    one = desk.bring(desk.chunks[0], ChunkState.SUBMITTED)
    assert one.batch_id == f"batch-{one.id}"
    assert desk.other.known_batches([one.batch_id, "stranger"]) == {one.batch_id}
    assert desk.other.known_batches([]) == set()
    desk.ledger.record_look(one.batch_id, "ended", 10, ended=True)
    (row,) = desk.other.batches_of(desk.run)
    assert (row.batch_id, row.status, row.requests_done, row.start, row.stop, row.state) == (
        one.batch_id,
        "ended",
        10,
        0,
        10,
        ChunkState.SUBMITTED,
    )
    assert row.ended_at >= row.looked_at >= row.submitted_at


def test_a_batch_gets_the_id_under_which_it_is_found(desk: Desk) -> None:
    """A chunk waits for it under the new id; what waits no more, or for another, is refused."""
    one = desk.bring(desk.chunks[0], ChunkState.SUBMITTED)
    assert desk.ledger.is_missing(one)
    desk.ledger.rename_batch(desk.lease, one.id, one.batch_id or "", "batch-1")
    renamed = desk.other.chunk(one.id)
    assert (renamed.batch_id, renamed.state) == ("batch-1", ChunkState.SUBMITTED)
    assert desk.other.known_as(["batch-1", one.batch_id or ""])["batch-1"].chunk_id == one.id
    with pytest.raises(LedgerError, match="does not wait"):
        desk.ledger.rename_batch(desk.lease, one.id, one.batch_id or "", "batch-2")
    desk.ledger.record_look("batch-1", "ended", 10, ended=True)
    assert not desk.ledger.is_missing(renamed)


def test_any_number_of_names_is_asked_for(desk: Desk) -> None:
    """An account may have more batches, and a dataset more chunks, than one statement takes."""
    one = desk.bring(desk.chunks[0], ChunkState.LANDED)
    names = [f"no-{number}" for number in range(100_000)]
    batches = [*names, f"batch-{one.id}", *names[:1000], f"batch-{one.id}"]
    assert desk.ledger.known_batches(iter(batches)) == {f"batch-{one.id}"}
    chunks = [*names[:2000], one.id, *names[:2000], one.id]
    assert desk.ledger.outcomes(desk.run, chunks) == desk.ledger.outcomes(desk.run)
    assert desk.ledger.outcomes(desk.run, []) == {}
    desk.ledger.reopen_landed(desk.lease, chunks)
    assert desk.ledger.chunk(one.id).state == ChunkState.COLLECTED


def test_a_returned_chunk_is_sent_again(desk: Desk) -> None:
    """A chunk of which nothing ran keeps its money, loses its batch id and is sent again.

    The batch stays known.
    """
    one = desk.chunks[0]
    desk.ledger.reserve(desk.lease, one, 50)
    batch_id = desk.bring(one, ChunkState.SUBMITTED).batch_id
    desk.ledger.return_chunk(desk.lease, one.id)
    assert desk.other.chunk(one.id) == one
    assert desk.other.money(desk.run) == (0, 50)
    assert desk.other.known_batches([batch_id or ""]) == {batch_id}
    assert desk.ledger.record_intent(desk.lease, desk.intent(one))
    desk.ledger.record_batch(desk.lease, one, "again", "account", "in_progress")
    assert desk.other.chunk(one.id).batch_id == "again"
    assert len(desk.other.batches_of(desk.run)) == 2


def test_a_held_chunk_keeps_its_rows_and_money(desk: Desk) -> None:
    """A held chunk is not sent, and planners see its rows in flight.

    Its bound stays reserved, also after its run is closed.
    """
    one = desk.chunks[0]
    desk.ledger.reserve(desk.lease, one, 50)
    desk.bring(one, ChunkState.HELD)
    desk.ledger.close_run(desk.lease, desk.run, "completed")
    assert [held.id for held in desk.other.unfinished_chunks(desk.dataset, "another")] == [one.id]
    assert [held.id for held in desk.other.chunks_in((ChunkState.HELD,))] == [one.id]
    assert desk.other.money(desk.run) == (0, 50)
    with pytest.raises(LedgerError):
        desk.ledger.record_intent(desk.lease, desk.intent(one))


def test_a_held_chunk_is_no_rival(desk: Desk) -> None:
    """It was given up as undecidable, so creates of its size continue."""
    one, other = desk.chunks[:2]
    assert desk.ledger.record_intent(desk.lease, desk.intent(one))
    desk.ledger.hold(desk.lease, one.id)
    assert desk.ledger.record_intent(desk.lease, desk.intent(other))


def test_a_held_chunk_is_adopted(desk: Desk) -> None:
    """A person names the batch of a held chunk.

    It is at the provider, its money stays reserved, and its run is open again.
    """
    one = desk.chunks[0]
    desk.ledger.reserve(desk.lease, one, 50)
    desk.bring(one, ChunkState.HELD)
    desk.ledger.close_run(desk.lease, desk.run, "completed")
    desk.ledger.adopt_held(desk.lease, one, "found", "account", "ended")
    adopted, run = desk.other.chunk(one.id), desk.other.open_run(desk.dataset)
    assert (adopted.state, adopted.batch_id) == (ChunkState.SUBMITTED, "found")
    assert run is not None
    assert run.id == desk.run
    assert desk.other.money(desk.run) == (0, 50)
    desk.ledger.collect(desk.lease, one, {"succeeded": OutcomeTotals(10, cost=7)}, 0)
    assert desk.other.money(desk.run) == (7, 0)


def test_a_batch_that_is_anothers_is_not_adopted(desk: Desk) -> None:
    """The chunk stays held and its run closed: the adoption is whole or not at all."""
    one, other = desk.chunks[:2]
    batch_id = desk.bring(other, ChunkState.SUBMITTED).batch_id or ""
    desk.bring(one, ChunkState.HELD)
    desk.ledger.close_run(desk.lease, desk.run, "completed")
    with pytest.raises(HeldError, match="BATCHATA_LEDGER_URL"):
        desk.ledger.adopt_held(desk.lease, one, batch_id, "account", "ended")
    assert desk.other.chunk(one.id).state == ChunkState.HELD
    assert desk.other.open_run(desk.dataset) is None


def test_a_held_chunk_of_an_open_run_is_sent_by_it(desk: Desk) -> None:
    """A person says that it was never accepted, and its run is open.

    The run sends it under the reservation that it has.
    """
    desk.ledger.reserve(desk.lease, desk.chunks[0], None)
    desk.bring(desk.chunks[0], ChunkState.HELD)
    desk.ledger.drop_held(desk.lease, desk.chunks[0].id)
    assert desk.other.chunk(desk.chunks[0].id).state == ChunkState.PLANNED
    assert desk.other.money(desk.run) == (0, desk.chunks[0].bound)


def test_a_held_chunk_is_dropped(desk: Desk) -> None:
    """A person says that it was never accepted, and its run has ended.

    Its rows may be planned again and its money is free; others' is not.
    """
    one, other = desk.chunks[:2]
    for each in (one, other):
        desk.ledger.reserve(desk.lease, each, None)
    desk.bring(one, ChunkState.HELD)
    desk.bring(other, ChunkState.LANDED)
    desk.ledger.close_run(desk.lease, desk.run, "some_rows_failed")
    desk.ledger.drop_held(desk.lease, one.id)
    assert desk.other.chunk(one.id).state == ChunkState.DROPPED
    assert desk.other.unfinished_chunks(desk.dataset, "another") == []
    assert desk.other.money(desk.run)[1] == 0


def test_no_batch_is_adopted_twice(desk: Desk) -> None:
    """Two chunks cannot claim one batch; the second stays unclear, and the remedy is told.

    A server that counts its batches, or two such servers, give one id to two batches.
    """
    for one in desk.chunks[:2]:
        desk.bring(one, ChunkState.UNCLEAR)
    desk.ledger.record_batch(desk.lease, desk.chunks[0], "same", "account", "in_progress")
    with pytest.raises(HeldError, match="BATCHATA_LEDGER_URL"):
        desk.other.record_batch(desk.lease, desk.chunks[1], "same", "account", "in_progress")
    assert desk.other.chunk(desk.chunks[1].id).state == ChunkState.UNCLEAR


# --- money ----------------------------------------------------------------------------------------


def test_reserving_at_the_edge_of_the_limit(desk: Desk) -> None:
    """A reservation up to the limit succeeds; one beyond it learns what remains.

    A reservation is made once.
    """
    first, second = desk.chunks[:2]
    assert desk.ledger.reserve(desk.lease, first, 100) is None
    assert desk.other.reserve(desk.lease, first, 100) is None
    assert desk.other.reserve(desk.lease, second, 99) == RemainingBudget(49, None)
    assert desk.other.money(desk.run) == (0, 50)
    assert desk.other.reserve(desk.lease, second, 100) is None
    assert desk.ledger.reserve(desk.lease, desk.chunks[2], 100) == RemainingBudget(0, None)
    assert desk.ledger.reserve(desk.lease, desk.chunks[2], None) is None
    assert desk.ledger.money(desk.run) == (0, 150)


def test_an_unpriced_chunk_reserves_nothing(desk: Desk) -> None:
    """Without a price there is no limit, and nothing to add up."""
    assert desk.ledger.reserve(desk.lease, replace(desk.chunks[0], bound=None), None) is None
    assert desk.ledger.money(desk.run) == (0, 0)


def test_runs_have_money_of_their_own(desk: Desk) -> None:
    """One run's reservations take nothing from another's limit."""
    other = desk.ledger.begin_run(desk.lease, RUN)
    assert desk.ledger.reserve(desk.lease, desk.chunks[0], 50) is None
    assert desk.ledger.reserve(desk.lease, chunk(other, desk.dataset), 50) is None
    assert desk.other.money(other) == desk.other.money(desk.run) == (0, 50)


def test_settling_frees_what_was_not_spent(desk: Desk) -> None:
    """Collected chunks count their cost, unknown lines included; collecting again adds nothing."""
    one = desk.chunks[0]
    desk.ledger.reserve(desk.lease, one, 60)
    desk.bring(one, ChunkState.SUBMITTED)
    assert desk.ledger.reserve(desk.lease, desk.chunks[1], 60) == RemainingBudget(10, None)
    tallies = {"succeeded": OutcomeTotals(8, 80, 8, 3, 7), "expired": OutcomeTotals(2)}
    for _ in range(2):
        desk.ledger.collect(desk.lease, one, tallies, overhead=1)
    assert desk.other.money(desk.run) == (8, 0)
    assert desk.other.outcomes(desk.run) == tallies
    assert desk.ledger.reserve(desk.lease, desk.chunks[1], 60) is None


def test_what_was_sent_is_not_released(desk: Desk) -> None:
    """Spent money stays spent, and money of a running batch stays reserved.

    The reservation of an unsent chunk is released.
    """
    for one in desk.chunks[:3]:
        desk.ledger.reserve(desk.lease, one, None)
    desk.bring(desk.chunks[0], ChunkState.COLLECTED)
    desk.bring(desk.chunks[1], ChunkState.SUBMITTED)
    desk.ledger.release_unsent(desk.lease, desk.run)
    assert desk.other.money(desk.run) == (5, desk.chunks[1].bound)


def test_outcomes_add_up_over_chunks(desk: Desk) -> None:
    """Rows, tokens and money of a run are the sums of its chunks."""
    desk.ledger.collect(
        desk.lease,
        desk.chunks[0],
        {"succeeded": OutcomeTotals(9, 90, 9, 1, 10), "invalid": OutcomeTotals(1, 10, 1, 0, 2)},
        0,
    )
    desk.ledger.collect(
        desk.lease, desk.chunks[1], {"succeeded": OutcomeTotals(10, 100, 10, 2, 20)}, 0
    )
    assert desk.other.outcomes(desk.run) == {
        "succeeded": OutcomeTotals(19, 190, 19, 3, 30),
        "invalid": OutcomeTotals(1, 10, 1, 0, 2),
    }
    assert desk.other.outcomes("another") == {}


@pytest.mark.parametrize(
    ("left", "right", "cost"),
    [(None, None, None), (None, 5, 5), (5, None, 5), (2, 3, 5), (0, None, 0)],
)
def test_an_unknown_cost_is_not_zero(left: int | None, right: int | None, cost: int | None) -> None:
    """The sum of tallies without a price has none, either."""
    assert (OutcomeTotals(1, cost=left) + OutcomeTotals(2, cost=right)) == OutcomeTotals(
        3, cost=cost
    )


def test_threads_that_reserve_at_once_cannot_overshoot(desk: Desk) -> None:
    """Twelve chunks ask at the same moment, over two connections.

    As many get money as the limit allows.
    """
    many = [chunk(desk.run, desk.dataset, number, bound=10) for number in range(12)]
    gate = threading.Barrier(len(many))

    def ask(one: Chunk) -> RemainingBudget | None:
        gate.wait()
        return (desk.ledger if one.start % 20 else desk.other).reserve(desk.lease, one, 35)

    with ThreadPoolExecutor(len(many)) as pool:
        refusals = list(pool.map(ask, many))
    assert refusals.count(None) == 3
    assert set(refusals) == {None, RemainingBudget(5, None)}
    assert desk.other.money(desk.run) == (0, 30)


def test_a_closed_run_holds_no_money_for_what_was_never_sent(desk: Desk) -> None:
    """A chunk that was guarded and then dropped gives its money back: none is in flight."""
    desk.ledger.reserve(desk.lease, desk.chunks[0], 100)
    desk.ledger.close_run(desk.lease, desk.run, "failed")
    assert desk.other.money(desk.run) == (0, 0)


def test_a_second_batch_stops_an_open_run_alone(desk: Desk) -> None:
    """Nothing more is sent by its run, unless that was to stop for another reason, or has ended."""
    one = desk.bring(desk.chunks[0], ChunkState.SUBMITTED)
    second = desk.ledger.second_batch(one, "second")
    assert desk.ledger.count_second(desk.lease, second, stops=True)
    assert desk.other.stop_reason(desk.run) == "sent_twice"
    desk.ledger.request_stop(desk.run, "cancel")
    assert desk.ledger.count_second(desk.lease, desk.ledger.second_batch(one, "third"), stops=True)
    assert desk.other.stop_reason(desk.run) == "cancel"


def test_files_tell_their_chunks(desk: Desk) -> None:
    """A file from which one chunk was sent tells which; one that was named twice tells nothing."""
    for number, file_id in enumerate(["f", "g", "g"]):
        chunk = desk.chunks[number]
        intent = desk.intent(chunk, requests=100 + number, input_file_id=file_id)
        assert desk.ledger.record_intent(desk.lease, intent)
    assert desk.other.chunks_of_files(["f", "g", "h"]) == {"f": desk.chunks[0].id}


class Money(RuleBasedStateMachine):
    """Chunks reserve, are sent, refused, collected and landed in any order.

    Two connections take turns.
    """

    def __init__(self, databases: Databases) -> None:
        super().__init__()
        self.databases = databases

    @initialize(
        limit=st.integers(0, 120), bounds=st.lists(st.integers(0, 60), min_size=4, max_size=4)
    )
    def start(self, limit: int, bounds: list[int]) -> None:
        self.desk = Desk(self.databases)
        self.limit = limit
        self.chunks = [
            replace(one, bound=bound) for one, bound in zip(self.desk.chunks, bounds, strict=True)
        ]
        self.reserved: dict[int, int] = {}
        self.second: dict[str, int] = {}  # by batch: creates that were accepted twice
        self.settled: dict[int, int] = {}
        self.states = [ChunkState.PLANNED] * 4

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.desk.close()

    def committed(self) -> int:
        sums = (self.settled, self.reserved, self.second)
        return sum(sum(amounts.values()) for amounts in sums)

    def ledger(self, number: int) -> Ledger:
        return self.desk.ledger if number % 2 else self.desk.other

    @rule(number=st.integers(0, 3))
    def reserve(self, number: int) -> None:
        bound = self.chunks[number].bound or 0
        left = self.ledger(number).reserve(self.desk.lease, self.chunks[number], self.limit)
        if number in self.reserved or number in self.settled:
            assert left is None
        elif self.committed() + bound > self.limit:
            assert left == RemainingBudget(max(self.limit - self.committed(), 0), None)
        else:
            assert left is None
            self.reserved[number] = bound

    @rule(number=st.integers(0, 3))
    def release(self, number: int) -> None:
        self.ledger(number).release_unsent(self.desk.lease, self.desk.run)
        self.reserved = {
            number: bound
            for number, bound in self.reserved.items()
            if self.states[number] != ChunkState.PLANNED
        }

    @rule(number=st.integers(0, 3), share=st.integers(0, 100))
    def send_and_collect(self, number: int, share: int) -> None:
        if number not in self.reserved or self.states[number] != ChunkState.PLANNED:
            return
        one = self.chunks[number]
        self.desk.bring(one, ChunkState.SUBMITTED)
        cost = self.reserved.pop(number) * share // 100
        self.ledger(number).collect(
            self.desk.lease, one, {"succeeded": OutcomeTotals(10, cost=cost)}, 0
        )
        self.settled[number], self.states[number] = cost, ChunkState.COLLECTED

    @precondition(lambda self: ChunkState.COLLECTED in self.states)
    @rule()
    def land(self) -> None:
        number = self.states.index(ChunkState.COLLECTED)
        self.ledger(number).land(self.desk.lease, self.chunks[number].id, 0)
        self.states[number] = ChunkState.LANDED

    @rule(number=st.integers(0, 3), batch=st.sampled_from(["b1", "b2"]))
    def accept_twice(self, number: int, batch: str) -> None:
        """A second batch counts once, beside whatever its chunk costs, even beyond the limit."""
        if self.states[number] == ChunkState.PLANNED:
            return
        ledger, name = self.ledger(number), f"{batch} of {number}"
        second = ledger.second_batch(self.chunks[number], name)
        assert ledger.count_second(self.desk.lease, second) == (name not in self.second)
        self.second[name] = self.chunks[number].bound or 0

    @invariant()
    def spend_stays_within_the_limit(self) -> None:
        if not hasattr(self, "desk"):
            return
        sums = self.desk.other.money(self.desk.run)
        second = sum(self.second.values())
        assert sums == (sum(self.settled.values()) + second, sum(self.reserved.values()))
        assert sum(sums) - second <= self.limit
        totals = self.desk.other.run_totals(self.desk.run)
        assert (totals.settled, totals.overhead) == (sums[0], second)
        assert self.desk.other.second_batches(self.desk.run) == len(self.second)
        everything = self.desk.other.spending(0)
        assert sum(one.money.settled for one in everything) == sums[0]
        assert sum(one.sent for one in everything) == (
            sum(state != ChunkState.PLANNED for state in self.states) + len(self.second)
        )


def test_money_adds_up_whatever_happens(databases: Databases) -> None:
    """In any order of steps, the ledger's sums are those of the steps.

    Settled and reserved money together never exceed the limit, but for what was accepted twice.
    """
    examples = 15 if databases.kind == "sqlite" else 5
    run_state_machine_as_test(
        lambda: Money(databases),
        settings=settings(
            deadline=None, max_examples=examples, stateful_step_count=15, derandomize=True
        ),
    )


def test_ids_are_random() -> None:
    """160 bits: no two are ever the same."""
    assert len({new_id() for _ in range(1000)}) == 1000
    assert len(new_id()) == 40


# --- what is open ---------------------------------------------------------------------------------


def test_open_work_is_what_runs_wait_for(desk: Desk) -> None:
    """Batches of open runs are listed as they were seen last, and no others."""
    for one, state in zip(
        desk.chunks, ("submitted", "submitted", "collected", "landed"), strict=True
    ):
        desk.bring(one, state)
    first, second, third, _ = (f"batch-{one.id}" for one in desk.chunks)
    desk.ledger.record_look(first, "in_progress", 3, ended=False)
    desk.ledger.record_look(third, "ended", 10, ended=True)
    work = desk.other.open_work(30)
    seen = {batch.batch_id: (batch.status, batch.done) for batch in work.batches}
    assert seen == {first: ("in_progress", 3), second: (None, None), third: ("ended", 10)}
    assert [batch.ended_at is not None for batch in work.batches] == [False, False, True]
    assert (work.cancelled, work.lost) == ({}, {})
    desk.ledger.request_stop(desk.run, "cancel")
    assert desk.other.open_work(30).cancelled == {desk.run: desk.dataset}
    desk.ledger.close_run(desk.lease, desk.run, "cancelled")
    assert desk.other.open_work(30) == OpenWork([], {}, {})


def test_lost_work_is_named_once_its_lease_ran_out(desk: Desk) -> None:
    """A process that released its dataset is not lost, nor one that renews its lease."""
    desk.ledger.release_lease(desk.lease)
    assert desk.other.open_work(30).lost == {}
    lease = desk.ledger.acquire_lease(desk.dataset, 60, "flow run 7 (of two)")
    assert desk.other.open_work(30).lost == {}
    desk.ledger.renew_lease(lease, -20)
    assert desk.other.open_work(30).lost == {}
    assert desk.other.open_work(30).at_work == {"flow run 7 (of two)"}
    assert desk.other.open_work(10).lost == {desk.dataset: "flow run 7 (of two)"}
    assert desk.other.open_work(10).at_work == frozenset()
    desk.ledger.release_lease(lease)
    desk.ledger.renew_lease(desk.ledger.acquire_lease(desk.dataset, 60), -20)
    assert desk.other.open_work(10).lost == {}  # its work has no name
