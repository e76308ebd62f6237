"""Races: threads and processes that share a ledger, and a server that goes away."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from sqlalchemy import text

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import LeaseError, LedgerError
from batchata_tasks.execution.guard import Verdict, guard
from batchata_tasks.ledger import (
    Chunk,
    Intent,
    Lease,
    Ledger,
    OutcomeTotals,
    RemainingBudget,
    runs,
)
from batchata_tasks.planning.limits import SpendingLimits
from batchata_tasks.types.ids import chunk_token
from tests.support.chunks import planned_chunk
from tests.support.commands import python_at_once
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

    from tests.support.ledgers import Databases
    from tests.support.postgres import Server

T = TypeVar("T")
RUN: dict[str, Any] = {"name": "n", "spec": "{}", "spec_digest": "s" * 64}
LONG = 3600.0
MANY = 8


def empty(url: str) -> None:
    """Make an empty ledger."""
    Ledger(url).close()


class Place:
    """A ledger with one dataset, run and chunk for each name.

    Every thread may have a connection of its own.
    """

    def __init__(self, url: str, names: int) -> None:
        self.url = url
        self.ledgers = [Ledger(url) for _ in range(2)]
        self.ledger = self.ledgers[0]
        self.datasets = [
            self.ledger.dataset_id(f"file:///data{number}", None) for number in range(names)
        ]
        self.leases = [self.ledger.acquire_lease(dataset, LONG) for dataset in self.datasets]
        self.runs = [self.ledger.begin_run(lease, RUN) for lease in self.leases]

    def chunks(self, run: int, number: int, **values: Any) -> list[Chunk]:
        """Plan this number of chunks of ten rows for a run."""
        chunks = [
            planned_chunk(
                chunk_token(self.runs[run], 1, start, "batch"),
                self.runs[run],
                self.datasets[run],
                range(start, start + 10),
                **values,
            )
            for start in range(0, 10 * number, 10)
        ]
        self.ledger.fix_plan(self.leases[run], self.runs[run], {}, chunks)
        return chunks

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()


@pytest.fixture
def place(databases: Databases) -> Iterator[Place]:
    """Return two datasets of a ledger, each with an open run."""
    url, _ = databases.copy(empty)
    made = Place(url, 2)
    yield made
    made.close()


def at_once(calls: list[Callable[[], T]]) -> list[T | Exception]:
    """Make all calls at one moment; return what each returned or raised."""
    gate = threading.Barrier(len(calls))

    def make(call: Callable[[], T]) -> T | Exception:
        gate.wait()
        try:
            return call()
        except (LeaseError, LedgerError) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def while_open(ledger: Ledger, first: Callable[[Connection], object], second: Callable[[], T]) -> T:
    """Make the second call during the first's open transaction; return the second's result.

    The first has written by then. A second call that does not wait decides without the first, which
    the tests below see from its result.
    """
    written, through = threading.Event(), threading.Event()

    def body(connection: Connection) -> None:
        try:
            first(connection)
        finally:
            written.set()
        through.wait(0.3)  # far more than a call takes that waits for nobody

    def after() -> T:
        written.wait()
        try:
            return second()
        finally:
            through.set()

    with ThreadPoolExecutor(2) as pool:
        holder, follower = pool.submit(ledger.transact, body, reading=False), pool.submit(after)
        holder.result()
        return follower.result()


def inside(method: Any, ledger: Ledger, *args: Any) -> Callable[[Connection], Any]:
    """Return a method of the ledger as the body of a transaction that another holds open."""
    return lambda connection: method.__wrapped__(ledger, connection, *args)


# --- money ----------------------------------------------------------------------------------------


def test_threads_cannot_reserve_more_than_the_limit(place: Place) -> None:
    """Of eight at once over two connections, as many as fit get money.

    The others learn what remains.
    """
    chunks = place.chunks(0, MANY)
    outcomes = at_once(
        [
            lambda one=one, n=n: place.ledgers[n % 2].reserve(place.leases[0], one, 170)
            for n, one in enumerate(chunks)
        ]
    )
    assert sorted(map(str, outcomes)) == sorted(["None"] * 3 + [str(RemainingBudget(20, None))] * 5)
    assert place.ledger.money(place.runs[0]) == (0, 150)


def test_processes_cannot_reserve_more_than_the_limit(place: Place) -> None:
    """Four processes each try every chunk of one run, each in another order."""
    chunks = place.chunks(0, 12, bound=10)
    lease = (place.leases[0].dataset_id, place.leases[0].fence, "")
    code = f"""
from batchata_tasks.ledger import Lease, Ledger
ledger, lease, turn = Ledger({place.url!r}), Lease(*{lease!r}), TURN
chunks = ledger.chunks({place.runs[0]!r})
for one in chunks[turn * 3:] + chunks[:turn * 3]:
    ledger.reserve(lease, one, 75)
"""
    processes = python_at_once([code.replace("TURN", str(turn)) for turn in range(4)])
    assert [process.returncode for process in processes] == [0] * 4
    assert len(chunks) == 12
    assert place.ledger.money(place.runs[0]) == (0, 70)


def test_guards_at_once_share_one_limit(place: Place) -> None:
    """Eight threads guard chunks of rows at five each.

    They are split to what fits, spend stays within the limit, and the limit is used.
    """
    chunks = place.chunks(0, MANY)

    def columns(one: Chunk) -> tuple[list[int], list[int]]:
        return [5] * one.rows, [10] * one.rows

    outcomes = at_once(
        [
            lambda one=one: guard(
                place.ledger, place.leases[0], one, SpendingLimits(123), 80, columns
            )
            for one in chunks
        ]
    )
    verdicts = [one[0] if isinstance(one, tuple) else one for one in outcomes]
    assert {Verdict.SEND, Verdict.WAIT} >= set(verdicts)
    sent, in_flight = place.ledger.money(place.runs[0])
    assert (sent, in_flight) == (0, 120)
    listed = place.ledger.chunks(place.runs[0])
    assert [row for one in listed for row in range(one.start, one.stop)] == list(range(80))


def test_who_reserves_second_sees_the_first(place: Place) -> None:
    """A second reservation waits for the first: its money is not given away twice."""
    one, other = place.chunks(0, 2)
    left = while_open(
        place.ledger,
        inside(Ledger.reserve, place.ledger, place.leases[0], one, 60),
        lambda: place.ledgers[1].reserve(place.leases[0], other, 60),
    )
    assert left == RemainingBudget(10, None)


def test_settling_while_others_reserve(place: Place) -> None:
    """Freed money is given out once and spent money stays spent, in any order of threads."""
    chunks = place.chunks(0, MANY)
    for one in chunks[:3]:
        place.ledger.reserve(place.leases[0], one, 150)
    calls: list[Callable[[], Any]] = [
        lambda one=one: place.ledgers[0].collect(
            place.leases[0], one, {"succeeded": OutcomeTotals(10, cost=20)}, 0
        )
        for one in chunks[:3]
    ]
    calls += [
        lambda one=one: place.ledgers[1].reserve(place.leases[0], one, 150) for one in chunks[3:]
    ]
    at_once(calls)
    settled, in_flight = place.ledger.money(place.runs[0])
    assert settled == 60
    assert in_flight in (0, 50)


# --- leases and names -----------------------------------------------------------------------------


def test_one_taker_gets_the_lease(place: Place) -> None:
    """Of eight that want a free dataset, one gets it; its fence is the next."""
    dataset = place.ledger.dataset_id("file:///free", None)
    outcomes = at_once(
        [lambda n=n: place.ledgers[n % 2].acquire_lease(dataset, LONG) for n in range(MANY)]
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["AlreadyRunningError"] * 7 + ["Lease"]
    assert [one.fence for one in outcomes if isinstance(one, Lease)] == [1]


def test_a_lease_that_is_being_taken_is_waited_for(place: Place) -> None:
    """The second taker sees the first, even if the first has not committed yet."""
    dataset = place.ledger.dataset_id("file:///free", None)
    with pytest.raises(LeaseError, match="another run holds this dataset"):
        while_open(
            place.ledger,
            inside(Ledger.acquire_lease, place.ledger, dataset, LONG),
            lambda: place.ledgers[1].acquire_lease(dataset, LONG),
        )


def test_an_old_holder_cannot_slip_in_while_its_lease_goes(place: Place) -> None:
    """A write that began before the takeover, and waited for it, is refused."""
    one, *_ = place.chunks(0, 1)
    place.ledger.renew_lease(place.leases[0], 0)
    with pytest.raises(LeaseError, match="lost its hold"):
        while_open(
            place.ledger,
            inside(Ledger.acquire_lease, place.ledger, place.datasets[0], LONG),
            lambda: place.ledgers[1].reserve(place.leases[0], one, None),
        )


def test_a_place_gets_one_dataset_id(place: Place) -> None:
    """First runs of one new folder agree on its id."""
    outcomes = at_once(
        [lambda n=n: place.ledgers[n % 2].dataset_id("file:///new", None) for n in range(MANY)]
    )
    assert len(set(outcomes)) == 1
    url = "file:///newer"
    named: list[str] = []
    second = while_open(
        place.ledger,
        lambda connection: named.append(
            inside(Ledger.dataset_id, place.ledger, url, None)(connection)
        ),
        lambda: place.ledgers[1].dataset_id(url, None),
    )
    assert [second] == named


def test_the_first_stop_stays_of_many(place: Place) -> None:
    """The first request gives the reason; the others change nothing."""
    while_open(
        place.ledger,
        inside(Ledger.request_stop, place.ledger, place.runs[0], "cancel"),
        lambda: place.ledgers[1].request_stop(place.runs[0], "time_limit"),
    )
    assert place.ledger.stop_reason(place.runs[0]) == "cancel"


# --- intents --------------------------------------------------------------------------------------


def intent(place: Place, one: Chunk, account: str = "account") -> Intent:
    return Intent(one.id, account, one.rows, 1, now_us())


def test_of_equal_creates_of_two_datasets_one_waits(place: Place) -> None:
    """They conflict by account, in any dataset: two of one size could not be told apart."""
    for round_ in range(5):
        pairs = [
            (place.leases[number], place.chunks(number, round_ + 1)[-1]) for number in range(2)
        ]
        outcomes = at_once(
            [
                lambda n=n, p=pair: place.ledgers[n].record_intent(p[0], intent(place, p[1]))
                for n, pair in enumerate(pairs)
            ]
        )
        assert sorted(map(str, outcomes)) == ["False", "True"]
        lease, one = pairs[outcomes.index(True)]
        place.ledger.record_batch(lease, one, f"batch-{round_}", "account", "in_progress")


def test_an_intent_that_is_being_written_is_waited_for(place: Place) -> None:
    """The second sees the first, though they lock different datasets.

    Creates of another account wait for nobody.
    """
    one, other = place.chunks(0, 1)[0], place.chunks(1, 1)[0]
    written = while_open(
        place.ledger,
        inside(Ledger.record_intent, place.ledger, place.leases[0], intent(place, one)),
        lambda: place.ledgers[1].record_intent(place.leases[1], intent(place, other)),
    )
    assert written is False
    assert place.ledgers[1].record_intent(place.leases[1], intent(place, other, "another"))


def test_one_of_many_moves_a_chunk(place: Place) -> None:
    """Eight withdraw, hold or record one unclear chunk: one succeeds, the others are refused."""
    (one,) = place.chunks(0, 1)
    lease = place.leases[0]
    assert place.ledger.record_intent(lease, intent(place, one))
    calls: list[Callable[[], Any]] = []
    for ledger in place.ledgers:
        calls += [
            lambda ledger=ledger: ledger.withdraw_intent(lease, one.id),
            lambda ledger=ledger: ledger.hold(lease, one.id),
            lambda ledger=ledger: ledger.record_batch(lease, one, "b", "account", "in_progress"),
            lambda ledger=ledger: ledger.record_batch(lease, one, "c", "account", "in_progress"),
        ]
    assert sorted(type(found).__name__ for found in at_once(calls)) == ["LedgerError"] * 7 + [
        "NoneType"
    ]


# --- the server's clock, and a server that goes away ----------------------------------------------


@pytest.fixture
def remote(postgres: Server) -> Iterator[Place]:
    """Return a place on a Postgres that the test may stop and start."""
    name = postgres.create()
    made = Place(postgres.url(name), 1)
    yield made
    made.close()
    postgres.start()  # if a test failed while it was away
    postgres.drop(name)


@pytest.mark.parametrize("hours", [-30, 30])
def test_leases_go_by_the_servers_clock(
    remote: Place, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A machine whose clock is a day off does not take over a held dataset.

    Nor does it lose its own, or keep it too long.
    """
    wrong = time.time_ns() + hours * 3600 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: wrong)
    with pytest.raises(LeaseError, match=r"start again in 3[56]\d\d s"):
        remote.ledgers[1].acquire_lease(remote.datasets[0], LONG)
    remote.ledger.check_lease(remote.leases[0])
    remote.ledger.renew_lease(remote.leases[0], LONG)
    monkeypatch.undo()
    remote.ledger.check_lease(remote.leases[0])
    monkeypatch.setattr("time.time_ns", lambda: wrong)
    remote.ledger.renew_lease(remote.leases[0], 0)
    assert remote.ledgers[1].acquire_lease(remote.datasets[0], LONG).fence == 2


def test_a_restarted_server_is_not_noticed(remote: Place, postgres: Server) -> None:
    """Connections that a restart ended are replaced before they are used."""
    (one,) = remote.chunks(0, 1)
    postgres.stop()
    postgres.start()
    assert remote.ledger.reserve(remote.leases[0], one, 50) is None
    assert remote.ledgers[1].money(remote.runs[0]) == (0, 50)


def test_a_server_that_is_away_is_waited_for(remote: Place, postgres: Server) -> None:
    """A call while it restarts comes through when it is back."""
    (one,) = remote.chunks(0, 1)
    postgres.stop()
    with ThreadPoolExecutor(1) as pool:
        reserved = pool.submit(remote.ledger.reserve, remote.leases[0], one, 50)
        time.sleep(0.3)
        assert not reserved.done()
        postgres.start()
        assert reserved.result(PATIENCE) is None
    assert remote.ledger.money(remote.runs[0]) == (0, 50)


def test_a_server_that_stays_away_is_told(remote: Place, postgres: Server) -> None:
    """When patience is over: one sentence that names the server."""
    impatient = Ledger(remote.url, patience=0.2)
    postgres.stop()
    try:
        with pytest.raises(LedgerError, match="cannot be used: Connection refused") as caught:
            impatient.money(remote.runs[0])
        assert "\n" not in str(caught.value)
    finally:
        impatient.close()
        postgres.start()


def cut(connection: Connection) -> None:
    """End the connection from the server's side."""
    connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_transaction_that_lost_its_connection_runs_again(remote: Place) -> None:
    """A transaction that the server undid before its commit runs again, once and whole."""
    chunks, tries = remote.chunks(0, 2), list[int]()

    def body(connection: Connection) -> str:
        tries.append(len(tries))
        inside(Ledger.reserve, remote.ledger, remote.leases[0], chunks[0], None)(connection)
        if len(tries) == 1:
            cut(connection)
        inside(Ledger.reserve, remote.ledger, remote.leases[0], chunks[1], None)(connection)
        return "done"

    assert remote.ledger.transact(body, reading=False) == "done"
    assert tries == [0, 1]
    assert remote.ledger.money(remote.runs[0]) == (0, 100)


def test_an_iterator_survives_a_second_try(remote: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is streamed into the ledger is whole, even if its transaction ran twice."""
    made, tries = remote.chunks(0, 3), list[int]()
    add = runs._add

    def losing(connection: Connection, chunks: Iterable[Chunk]) -> None:
        add(connection, chunks)
        tries.append(1)
        if len(tries) == 1:
            cut(connection)

    monkeypatch.setattr(runs, "_add", losing)
    remote.ledger.fix_plan(remote.leases[0], remote.runs[0], {}, iter(made))
    assert len(tries) == 2
    assert remote.ledger.chunks(remote.runs[0]) == made


def test_a_commit_that_nobody_confirmed_is_an_error(remote: Place, postgres: Server) -> None:
    """It may be committed or not, so it is never repeated blindly; the sentence says so."""
    (one,) = remote.chunks(0, 1)
    tries: list[int] = []

    def body(connection: Connection) -> None:
        tries.append(1)
        inside(Ledger.reserve, remote.ledger, remote.leases[0], one, None)(connection)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")

    with pytest.raises(LedgerError, match="may have taken effect or not; start the run again"):
        remote.ledger.transact(body, reading=False)
    assert tries == [1]
    assert remote.ledger.reserve(remote.leases[0], one, None) is None
    assert remote.ledger.money(remote.runs[0]) == (0, 50)


def test_a_deadlock_is_run_again(remote: Place) -> None:
    """The server ends one of two deadlocked transactions; both succeed in the end."""
    for name in ("a", "b"):
        remote.ledger.dataset_id(f"file:///{name}", None)
    gate = threading.Barrier(2, timeout=PATIENCE)
    entered: list[str] = []

    def body(connection: Connection, first: str, second: str) -> None:
        for url in (first, second):
            connection.execute(
                text("UPDATE datasets SET fence = fence + 1 WHERE url = :url"),
                {"url": f"file:///{url}"},
            )
            if url == first and entered.count(first) == 0:
                entered.append(first)
                gate.wait()

    calls = [
        lambda f=f, s=s: remote.ledger.transact(lambda c: body(c, f, s), reading=False)
        for f, s in (("a", "b"), ("b", "a"))
    ]
    assert at_once(calls) == [None, None]
    fences = remote.ledger.transact(
        lambda c: list(
            c.execute(
                text("SELECT fence FROM datasets WHERE url IN ('file:///a', 'file:///b')")
            ).scalars()
        ),
        reading=True,
    )
    assert fences == [2, 2]


def test_a_vanished_holder_of_a_lock_is_given_up(remote: Place) -> None:
    """The server ends an idle transaction, so nobody waits for its lock for ever."""
    settings = remote.ledger.transact(
        lambda c: [
            c.execute(text(f"SHOW {name}")).scalar()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        ],
        reading=True,
    )
    assert settings == ["1min", "1min"]


@pytest.mark.parametrize("role", ["off", "local"])
def test_a_server_that_confirms_too_early_is_overruled(
    remote: Place, postgres: Server, role: str
) -> None:
    """`synchronous_commit = off` is overruled: it would report commits that a crash undoes.

    The server's other settings stay.
    """
    name = remote.ledger.url.database or ""
    postgres.run(f"ALTER DATABASE {{}} SET synchronous_commit = {role}", name)
    fresh = Ledger(remote.url)
    assert fresh.transact(
        lambda c: c.execute(text("SHOW synchronous_commit")).scalar(), reading=True
    ) == ("on" if role == "off" else "local")
    fresh.close()
