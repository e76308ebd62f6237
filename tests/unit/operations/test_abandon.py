"""`batchata reconcile --abandon`: batches that do not end are given up, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import AlreadyRunningError, SpecError
from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState, Ledger
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.status import undecided
from tests.support.books import all_chunks, billed, check_money, money, opened
from tests.support.jobs import sent
from tests.support.operations import cancel, reconcile
from tests.support.stuck import add_rows, left_overdue, limited, stick, told
from tests.support.table import Table
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.in_turn

ROWS = 4


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")


def abandon(batch: str) -> None:
    assert reconcile(ReconcileRequest(abandon=(batch,))).abandoned == [batch]


def adopt(batch: str) -> None:
    chunk = chunk_of(batch)
    assert reconcile(ReconcileRequest(adopt={chunk: batch})).adopted == {chunk: batch}


def chunk_of(batch: str) -> str:
    return next(chunk.id for chunk in all_chunks() if chunk.batch_id == batch)


def check_books(table: Table) -> None:
    """Check that the money adds up, and is no less than the provider's bill."""
    sums = money(table)
    assert sums.settled == sums.dataset + sums.superseded + sums.overhead
    assert sums.settled + sums.reserved >= billed(table)


def test_an_abandoned_batch_frees_its_rows_and_its_bound_counts_as_spent(table: Table) -> None:
    """The next run sends the rows once more, and the first batch's bound is overhead."""
    batch = left_overdue(table)
    bound = all_chunks()[0].bound
    (told_of,) = [text for what, text in reconcile().lines() if what == "Overdue"]
    assert f"`batchata reconcile --abandon {batch}`" in told_of
    assert f": batch {batch} has not ended" in told_of
    cancelled = cancel(table.spec())
    assert (cancelled.overdue, cancelled.reserved_usd) == ((batch,), exact(bound))
    assert dollars(bound) in dict(cancelled.lines())["Reserved"]
    abandon(batch)
    assert (money(table).reserved, money(table).overhead) == (0, bound)
    check_books(table)
    receipt = table.run()
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": ROWS})
    assert table.ledger()["requests_accepted"] == 2 * ROWS
    assert table.run().plan["up_to_date"] == ROWS
    assert len(table.rows()) == ROWS
    check_books(table)
    abandon(batch)  # again, which changes nothing
    assert in_state(ChunkState.ABANDONED) == [chunk_of(batch)]


def test_late_results_are_told_and_land_where_there_is_no_newer_answer(table: Table) -> None:
    """An adopted batch lands the rows that were not sent again; no key comes twice.

    The money becomes what was billed, and what surplus answers cost stays overhead.
    """
    batch = left_overdue(table)
    abandon(batch)
    assert reconcile().late == {}
    assert table.run(limit=1).outcomes == {"succeeded": 1}
    table.emulator.control.finish(batch)
    report = reconcile()
    assert report.late == {chunk_of(batch): batch}
    assert any(f"--adopt {chunk_of(batch)}={batch}" in text for _, text in report.lines())
    adopt(batch)
    (told_of,) = undecided(table.spec(), Settings())
    assert "which was abandoned, has ended and was taken back" in told_of
    assert told_of.endswith("The next run lands them.")
    assert cancel(table.spec()).overdue == ()
    check_books(table)
    receipt = table.run()
    assert (receipt.exit_code, receipt.outcomes) == (0, {})
    assert receipt.plan["up_to_date"] == ROWS
    assert len({row["_batch_id"] for row in table.rows()}) == 2
    table.check_answers()
    sums = money(table)
    assert (sums.reserved, sums.settled) == (0, billed(table))
    assert sums.overhead > 0
    check_books(table)
    assert (reconcile().late, table.ledger()["requests_accepted"]) == ({}, ROWS + 1)


def test_late_results_of_which_all_rows_were_sent_again_are_only_paid(table: Table) -> None:
    """Each row's newer answer stays, and the late batch is settled as it was billed."""
    batch = left_overdue(table)
    abandon(batch)
    table.run()
    before = table.rows()
    table.emulator.control.finish(batch)
    adopt(batch)
    table.run()
    assert table.rows() == before
    sums = money(table)
    assert (sums.reserved, sums.settled) == (0, billed(table))
    check_books(table)


def test_a_batch_that_is_taken_back_before_its_rows_were_sent_again_lands_whole(
    table: Table,
) -> None:
    """Then it is as if it had never been given up."""
    batch = left_overdue(table)
    abandon(batch)
    table.emulator.control.finish(batch)
    adopt(batch)
    assert table.run().plan["up_to_date"] == ROWS
    check_money(table)
    table.check_answers()


def test_rows_that_a_dead_run_was_about_to_send_again_land_instead(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is taken back while a run of its rows is dead answers them: none is sent again.

    No key comes twice.
    """
    batch = left_overdue(table)
    abandon(batch)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.pipeline.steps.submit", killed)
        with pytest.raises(KeyboardInterrupt):
            table.run()
    table.emulator.control.finish(batch)
    adopt(batch)
    receipt, notes = told(table)
    assert (receipt.continued, receipt.outcomes, sent(table.emulator)) == (False, {}, ROWS)
    assert any("the unfinished run is planned anew" in text for text in notes)
    assert table.run().exit_code == 0
    assert len(table.rows()) == ROWS
    assert money(table).settled == billed(table)
    check_books(table)


@pytest.mark.parametrize("state", [ChunkState.SUBMITTED, ChunkState.OVERDUE])
def test_a_run_that_died_goes_on_without_a_batch_that_was_given_up(
    table: Table, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """The rows of a dead run's batch count as not sent; the run after that sends them."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    at = "pipeline.steps.poll" if state == ChunkState.SUBMITTED else "pipeline.enrich.finish"
    stick(table)
    with monkeypatch.context() as dying:
        dying.setattr(f"batchata_tasks.{at}", killed)
        with pytest.raises(KeyboardInterrupt):
            told(table, limited())
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    assert in_state(state) == [chunk_of(batch)]
    abandon(batch)
    receipt = table.run()
    assert (receipt.continued, receipt.held_rows, receipt.unsent_rows) == (True, 0, ROWS)
    assert receipt.exit_code == 5
    assert table.run().outcomes == {"succeeded": ROWS}
    check_books(table)


ABANDONING, ADOPTING = "batchata_tasks.operations.abandon", "batchata_tasks.ledger.Ledger"


def dying_at(monkeypatch: pytest.MonkeyPatch, place: str, act: Callable[[], object]) -> None:
    """Do something, and die instead of the call `place`, or right after a write to the ledger."""
    owner, _, name = place.rpartition(".")
    real = getattr(Ledger, name, None)

    def killed(*asked: Any, **given: Any) -> None:
        if real is not None:
            real(*asked, **given)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(f"{owner}.{name}", killed)
        with pytest.raises(KeyboardInterrupt):
            act()


@pytest.mark.parametrize("place", [f"{ABANDONING}.write_json", f"{ADOPTING}.abandon"])
def test_a_death_while_a_batch_is_given_up(
    table: Table, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The same command gives it up then, and its rows are sent again once."""
    batch = left_overdue(table)
    dying_at(monkeypatch, place, lambda: abandon(batch))
    check_books(table)
    abandon(batch)
    assert table.run().outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == 2 * ROWS
    check_books(table)


@pytest.mark.parametrize("place", [f"{ABANDONING}.note_taken_back", f"{ADOPTING}.take_back"])
def test_a_death_while_a_batch_is_taken_back(
    table: Table, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The same command takes it back; if the ledger knows already, the next run lands it."""
    batch = left_overdue(table)
    abandon(batch)
    table.run(limit=2)
    table.emulator.control.finish(batch)
    dying_at(monkeypatch, place, lambda: adopt(batch))
    check_books(table)
    if in_state(ChunkState.ABANDONED):
        adopt(batch)
    assert table.run().exit_code == 0
    assert len(table.rows()) == ROWS
    assert money(table).settled == billed(table)
    check_books(table)


@pytest.mark.parametrize("method", ["collect", "land", "give_up"])
def test_a_death_while_late_rows_land(
    table: Table, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The next run lands what an overdue batch left half landed; no key comes twice."""
    batch = left_overdue(table)
    abandon(batch)
    table.run(limit=ROWS if method == "give_up" else 1)
    table.emulator.control.finish(batch)
    adopt(batch)
    dying_at(monkeypatch, f"{ADOPTING}.{method}", table.run)
    assert table.run().exit_code == 0
    assert len(table.rows()) == ROWS
    sums = money(table)
    assert (sums.reserved, sums.settled) == (0, billed(table))
    check_books(table)


def test_a_rebuilt_ledger_leaves_overdue_and_abandoned_batches_as_they_are(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An abandoned batch stays abandoned, an overdue one overdue, with their money."""
    first = left_overdue(table)
    abandon(first)
    add_rows(table, 2)
    stick(table)
    told(table, limited())
    second = next(b["id"] for b in table.ledger()["batches"] if b["id"] != first)
    before = money(table)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'another.db'}")
    rebuilt = rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert (rebuilt.open_chunks, rebuilt.held_chunks) == (0, 1)
    assert in_state(ChunkState.ABANDONED) == [chunk_of(first)]
    assert in_state(ChunkState.OVERDUE) == [chunk_of(second)]
    assert money(table) == before
    table.emulator.control.finish(second)
    assert table.run().plan["up_to_date"] == ROWS + 2
    table.emulator.control.finish(first)
    adopt(first)
    table.run()
    assert money(table).settled == billed(table)
    check_books(table)


def test_what_cannot_be_given_up_is_refused(table: Table) -> None:
    """A batch that has landed, ended or is unknown is refused by name, and nothing changes."""
    batch = left_overdue(table)
    table.emulator.control.finish(batch)
    with pytest.raises(SpecError, match=r"it has ended .* the next run lands its rows"):
        abandon(batch)
    table.run()
    with pytest.raises(SpecError, match="its results are here"):
        abandon(batch)
    with pytest.raises(SpecError, match="no such batch"):
        abandon("batch_of_nobody")
    check_money(table)


def test_a_batch_is_not_taken_back_before_it_ends(table: Table) -> None:
    """--adopt of an abandoned batch that still runs, or of another batch, is refused."""
    batch = left_overdue(table)
    abandon(batch)
    for named, reason in ((batch, "has not ended yet"), ("batch_x", "was sent as batch")):
        with pytest.raises(SpecError, match=reason):
            reconcile(ReconcileRequest(adopt={chunk_of(batch): named}))
    assert in_state(ChunkState.ABANDONED) == [chunk_of(batch)]


def test_a_refused_abandon_cancels_nothing(table: Table) -> None:
    """While a run is at work on its dataset, its batch goes on as if nobody had asked."""
    batch, control = left_overdue(table), table.emulator.control
    (chunk,) = all_chunks()
    control.clear_faults()
    control.faults(kind="cancel_conflict")
    with opened() as ledger:
        lease = ledger.acquire_lease(chunk.dataset_id, 60)
        with pytest.raises(AlreadyRunningError):
            reconcile(ReconcileRequest(abandon=(batch,)))
        assert [rule["strikes"] for rule in control.list_faults()] == [0]
        ledger.release_lease(lease)
    abandon(batch)
    assert control.list_faults()[0]["strikes"] > 0


@pytest.fixture
def misnamed(table: Table, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    """Return a chunk, the id that its create named, and the one that its batch has.

    It was abandoned before any list showed it, and has ended.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    table.emulator.control.faults(kind="create_names_job")
    table.emulator.control.faults(kind="list_empty")
    assert table.run().held_rows == ROWS
    ((chunk, job),) = [(chunk.id, chunk.batch_id or "") for chunk in all_chunks()]
    abandon(job)
    table.emulator.control.clear_faults()
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    return chunk, job, batch


def test_a_misnamed_batch_that_was_abandoned_can_be_had(
    table: Table, misnamed: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is listed, it is told as one that ended late, and adopted under its own id."""
    chunk, job, batch = misnamed
    assert job != batch
    report = reconcile()
    assert (report.late, report.strays) == ({chunk: batch}, [])
    assert reconcile(ReconcileRequest(adopt={chunk: batch})).adopted == {chunk: batch}
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'another.db'}")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert table.run().plan["up_to_date"] == ROWS
    assert table.ledger()["requests_accepted"] == ROWS
    table.check_answers()
    check_money(table)


def test_another_batch_is_not_taken_for_a_misnamed_one(
    table: Table, misnamed: tuple[str, str, str]
) -> None:
    """A batch of other requests is refused, and so is the id that leads nowhere."""
    chunk, _, batch = misnamed
    (table.folder / "other").mkdir()
    other = Table(table.folder / "other", table.emulator, table.provider, ROWS + 1)
    other.run()
    (wrong,) = {line["id"] for line in table.ledger()["batches"]} - {batch}
    with pytest.raises(SpecError, match="another chunk's"):
        reconcile(ReconcileRequest(adopt={chunk: wrong}))
    assert in_state(ChunkState.ABANDONED) == [chunk]


@pytest.mark.parametrize("how", [{"html": True}, {"empty": True}, {"status": 403}], ids=str)
def test_results_that_are_not_there_have_not_come_late(
    table: Table, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """Of a batch that ended without results, `--abandon` tells that it was billed, no more."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.05")
    route = "results" if table.provider == "anthropic" else "content"
    kind = "http_error" if "status" in how else "garbled_answer"
    table.emulator.control.faults(kind=kind, route=route, **how)
    assert table.run().held_rows == ROWS
    (batch,) = [line["id"] for line in table.ledger()["batches"]]
    report = reconcile(ReconcileRequest(abandon=(batch,)))
    assert (report.abandoned, report.late) == ([batch], {})
    (note,) = report.notes
    assert f"batch {batch} has ended" in note
    assert "was billed" in note
    assert reconcile().late == {}
    table.emulator.control.clear_faults()
    assert reconcile().late == {chunk_of(batch): batch}
