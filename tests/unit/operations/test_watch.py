"""One look at every open batch: who is resumed, what lands, and when nothing is done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError, hold_dataset
from batchata_tasks.ledger import ChunkState, RunPhase, StopReason, opened_ledger
from batchata_tasks.operations.cancel import cancel, request_cancel
from batchata_tasks.operations.flow_runs import Fate, FlowRuns, NoFlowRuns, Waiters
from batchata_tasks.operations.watch import WatchReport, watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import PlanSummary
from tests.support.jobs import sent
from tests.support.table import Table, open_batches
from tests.support.unclear import in_state, leave_in_doubt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.progress.snapshot import Snapshot
    from batchata_tasks.spec.enrichment import EnrichmentSpec

pytestmark = pytest.mark.in_turn


@dataclass
class Suspended:
    """Flow runs of which one waits for each run, until it is resumed."""

    kind: str = "suspended"
    is_there: bool = True
    repeated: bool = True
    resumed: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    silent: list[str] = field(default_factory=list[str])
    fate: Fate = Fate.LEFT
    can_resume: bool = True
    others: list[str] = field(default_factory=list[str])  # runs that the ledger may not know
    unseen: set[str] | None = None  # as the sign says it
    waiting: int | None = None  # likewise
    shown: list[tuple[str, Snapshot]] = field(default_factory=list[tuple[str, "Snapshot"]])
    told: list[tuple[str | None, Receipt]] = field(
        default_factory=list[tuple[str | None, "Receipt"]]
    )
    logged: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        assert ledger_id
        runs = [*runs, *self.others]
        return {run: Waiters(**{self.kind: (f"flow run of {run}", "another")}) for run in runs}

    def resume(self, flow_run_id: str) -> bool:
        self.resumed.append(flow_run_id)
        return self.can_resume

    def take_up(self, work: str) -> Fate:
        self.lost.append(work)
        return self.fate

    def leave_sign(self, ledger_id: str, unseen: Iterable[str], waiting: int) -> None:
        assert ledger_id
        self.unseen, self.waiting = set(unseen), waiting

    def show(self, work: str, name: str, snapshot: Snapshot) -> None:
        assert name == "table"
        self.shown.append((work, snapshot))

    def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
        assert key == ["id"]
        assert ended is (receipt.result == "cancelled")
        self.told.append((work, receipt))

    def log(self, work: str, text: str) -> None:
        self.logged.append((work, text))

    def take_up_lost(self, at_work: Collection[str]) -> list[str]:
        assert set(self.lost).isdisjoint(at_work)
        return self.silent

    def cancelled(self, works: Collection[str]) -> set[str]:
        del works
        return set()


class Cancelled(NoFlowRuns):
    """Flow runs of which one was cancelled by a person."""

    def __init__(self, work: str) -> None:
        self._work = work

    def cancelled(self, works: Collection[str]) -> set[str]:
        return {self._work} & set(works)


class Told(NoFlowRuns):
    """Notes what is told of runs, and on whose pages."""

    is_there = True

    def __init__(self) -> None:
        self.told = list[tuple[str | None, "Receipt"]]()
        self.logged = list[tuple[str, str]]()
        self.shown = list[tuple[str, "Snapshot"]]()

    def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
        assert key == ["id"]
        assert ended is (receipt.result == "cancelled")
        self.told.append((work, receipt))

    def log(self, work: str, text: str) -> None:
        self.logged.append((work, text))

    def show(self, work: str, name: str, snapshot: Snapshot) -> None:
        assert name == "table"
        self.shown.append((work, snapshot))


def let_go(spec: EnrichmentSpec, work: str | None = None) -> str:
    """Send what there is, let go, and return the run's id."""
    with pytest.raises(SuspendedRunError) as error:
        run_prepared(prepare_run(spec, Settings()), run=work, letting_go=LettingGo(0))
    return error.value.run_id


def passed(flow_runs: FlowRuns | None = None, gathered: float = 600) -> WatchReport:
    return watch(Settings(), flow_runs, gathered=gathered)


@pytest.mark.parametrize("repeated", [True, False])
def test_a_single_pass_is_no_sign_that_somebody_watches(*, repeated: bool) -> None:
    """Only passes that come again and again tell so, runs and people."""
    flow_runs = Suspended(repeated=repeated)
    passed(flow_runs)
    with opened_ledger(Settings().ledger_url) as ledger:
        assert (flow_runs.unseen, ledger.watched_at() is not None) == (
            (set(), True) if repeated else (None, False)
        )


def finish_one(table: Table) -> None:
    """Let the batch end that was sent first."""
    table.emulator.control.finish(table.ledger()["batches"][0]["id"])


@pytest.fixture(params=["anthropic", "openai"])
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: object) -> Table:
    """Return a table of nine rows."""
    return Table(tmp_path, emulator, request.param, rows=9)  # pyright: ignore[reportArgumentType]


def test_an_idle_minute_asks_nobody(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing is open, no provider is asked, nor is a key needed."""
    assert emulator
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name)
    assert passed() == WatchReport()
    assert passed().in_words() == "no batch is open"


def test_a_sign_tells_how_many_still_wait(table: Table) -> None:
    """Of two flow runs that wait for a run, the one that was resumed does not wait any more."""
    waiting = Suspended()
    with open_batches(table.emulator):
        let_go(table.spec())
        passed(waiting)
        assert waiting.waiting == 2
    passed(waiting)
    assert (len(waiting.resumed), waiting.waiting) == (1, 1)


def test_ended_batches_wait_for_the_others(table: Table) -> None:
    """One of three that ended is not landed before the time is over; all that ended are at once."""
    waiting = Suspended()
    with open_batches(table.emulator):
        run_id = let_go(table.spec(items_per_batch=3))
        assert (passed(waiting).ended, waiting.resumed) == (0, [])
        finish_one(table)
        assert (passed(waiting).ended, waiting.resumed) == (1, [])
        report = passed(waiting, gathered=0)
        assert report.resumed == waiting.resumed == [f"flow run of {run_id}"]  # one suffices
    assert passed(waiting).ended == 3
    assert len(waiting.resumed) == 2
    assert sent(table.emulator) == 9


def test_news_of_batches_are_shown(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that sees a batch as no pass did before shows its run; another one shows nothing.

    But each quarter of an hour shows that somebody looks.
    """
    waiting = Suspended()
    monkeypatch.setattr("batchata_tasks.operations.watch.now_us", lambda: 899 * 10**6)
    with open_batches(table.emulator):
        run_id = let_go(table.spec(items_per_batch=3))
        passed(waiting)
        before = len(waiting.shown)
        finish_one(table)
        for _ in range(2):
            passed(waiting)
    ((flow_run, snapshot),) = waiting.shown[before:]
    assert flow_run == f"flow run of {run_id}"
    assert (snapshot.total, snapshot.landed, snapshot.run_id) == (9, 0, run_id)
    assert [batch.number for batch in snapshot.batches] == [1, 2, 3]
    statuses = [batch.status for batch in snapshot.batches]
    assert len(set(statuses)) == 2
    assert waiting.resumed == []
    monkeypatch.setattr("batchata_tasks.operations.watch.now_us", lambda: 900 * 10**6)
    with open_batches(table.emulator):
        passed(waiting)
    assert len(waiting.shown) == before + 2


def test_room_for_what_is_unsent_is_used_at_once(table: Table) -> None:
    """If batches wait to be sent, one that ended makes room for the next: nothing is gathered."""
    waiting = Suspended()
    with open_batches(table.emulator):
        let_go(table.spec(items_per_batch=3, max_parallel_batches=2))
        finish_one(table)
        assert len(passed(waiting).resumed) == 1


def test_many_batches_are_looked_at_by_one_call(table: Table) -> None:
    """Nine open batches are one call of the provider; those that ended are not asked for again."""
    with open_batches(table.emulator):
        let_go(table.spec(items_per_batch=1))
        report = passed(Suspended())
        assert (report.batches, report.calls) == (9, 1)
    assert passed(Suspended()).ended == 9
    report = passed(Suspended())
    assert (report.ended, report.calls) == (9, 0)


def test_what_nobody_waits_for_lands(table: Table) -> None:
    """A run without a flow run is landed by `watch` itself; the next start sends nothing again."""
    spec = table.spec(items_per_batch=3)
    with open_batches(table.emulator):
        run_id = let_go(spec)
        finish_one(table)
        assert passed().landed == []
        assert passed(gathered=0).landed == [run_id]
        assert len(table.rows()) == 3
    assert passed().landed == [run_id]
    assert len(table.rows()) == 9
    assert passed() == WatchReport()
    receipt = run_prepared(prepare_run(spec, Settings()))
    assert (receipt.outcomes, sent(table.emulator)) == ({"succeeded": 9}, 9)
    table.check_answers()


def test_what_lands_here_is_told(table: Table) -> None:
    """Each time, with the run so far, which is open; nothing else is, and nothing twice."""
    told = Told()
    with open_batches(table.emulator):
        let_go(table.spec(items_per_batch=3), "flow run 7")
        passed(told)
        assert told.told == []
        finish_one(table)
        passed(told, gathered=0)
        ((work, receipt),) = told.told
        assert (work, receipt.result) == ("flow run 7", "open")
        assert (receipt.outcomes, receipt.continued) == ({"succeeded": 3}, False)
        assert told.shown[-1][1].landed == 3
    passed(told)
    passed(told)
    assert [receipt.outcomes["succeeded"] for _, receipt in told.told] == [3, 9]
    assert (told.shown[-1][0], told.shown[-1][1].landed) == ("flow run 7", 9)


def test_the_end_of_what_was_cancelled_is_told(table: Table) -> None:
    """Once its batches have ended; its page shows before that that they are being cancelled."""
    cancelled = Suspended("cancelled")
    with open_batches(table.emulator):
        run_id = let_go(table.spec(items_per_batch=3))
        finish_one(table)
        passed(cancelled)
        assert cancelled.told == []
        assert (cancelled.shown[-1][0], cancelled.shown[-1][1].landed) == (
            f"flow run of {run_id}",
            3,
        )
    for _ in range(2):
        passed(cancelled)
    text = "`watch` asked the provider to cancel 2 batches."
    assert cancelled.logged == [(f"flow run of {run_id}", text)]
    ((work, receipt),) = cancelled.told
    assert (work, receipt.result) == (f"flow run of {run_id}", "cancelled")
    assert sum(receipt.outcomes.values()) == 9
    assert not receipt.continued
    assert cancelled.shown[-1][1].landed == 9


@pytest.mark.parametrize("failure", [TransientError("the server is busy"), KeyboardInterrupt()])
def test_what_could_not_be_told_is_told_by_the_next_pass(
    table: Table, failure: BaseException
) -> None:
    """The server did not take the end of a run, or the pass was killed at that moment."""

    class Failing(Suspended):
        def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
            del work, receipt, key, ended
            raise failure

    with open_batches(table.emulator):
        run_id = let_go(table.spec())
        passed(Suspended("cancelled"))
    with suppress(KeyboardInterrupt):
        assert "the server is busy" in str(passed(Failing("cancelled")).notes)
    with opened_ledger(Settings().ledger_url) as ledger:
        assert ledger.run(run_id).state == RunPhase.CLOSED
    with suppress(KeyboardInterrupt):
        assert "the server is busy" in str(passed(Failing()).notes)
    passed()  # a pass without a server has nobody to tell
    later = Suspended()
    for _ in range(2):
        passed(later)
    ((work, receipt),) = later.told
    assert (work, receipt.result) == (f"flow run of {run_id}", "cancelled")
    assert sum(receipt.outcomes.values()) == 9
    assert [(work, shown.landed) for work, shown in later.shown] == [(f"flow run of {run_id}", 9)]


def test_a_pass_that_dies_once_a_run_has_ended_is_made_up_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a run has ended, and that this is still to be told, is one entry of the ledger."""

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with open_batches(table.emulator):
        run_id = let_go(table.spec())
        passed(Suspended("cancelled"))
    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.pipeline.finish.discard_uploads", die)
        with pytest.raises(KeyboardInterrupt):
            passed(Suspended("cancelled"))
    later = Suspended()
    for _ in range(2):
        passed(later)
    ((work, receipt),) = later.told
    assert (work, receipt.result) == (f"flow run of {run_id}", "cancelled")
    assert sum(receipt.outcomes.values()) == 9


def test_the_end_of_what_a_command_cancelled_is_told(table: Table) -> None:
    """The page of the flow run that let go of it has the receipt, whoever ended the run."""
    spec = table.spec()
    with open_batches(table.emulator):
        let_go(spec, "flow run 7")
    cancel(spec, Settings())
    told = Told()
    for _ in range(2):
        passed(told)
    ((work, receipt),) = told.told
    assert (work, receipt.result, receipt.continued) == ("flow run 7", "cancelled", False)


def test_what_a_run_tells_itself_at_its_end_is_not_told_as_it_was_before(table: Table) -> None:
    """A pass could not tell what it landed, and the run has ended by itself since."""

    class Failing(Told):
        def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
            del work, receipt, key, ended
            message = "the server is busy"
            raise TransientError(message)

    spec = table.spec(items_per_batch=3)
    with open_batches(table.emulator):
        let_go(spec, "flow run 7")
        finish_one(table)
        assert passed(Failing(), gathered=0).landed
    run_prepared(prepare_run(spec, Settings()), run="flow run 8")
    later = Told()
    passed(later)
    assert later.told == []


def test_the_end_is_told_on_the_page_of_the_run_that_let_go_last(table: Table) -> None:
    """Two flow runs had the run in turn, and were cancelled: people look at the one that waits."""
    cancelled = Suspended("cancelled")
    with open_batches(table.emulator):
        spec = table.spec()
        run_id = let_go(spec, "flow run that sent it")
        with pytest.raises(SuspendedRunError):
            run_prepared(prepare_run(spec, Settings()), run="another", letting_go=LettingGo(0))
        passed(cancelled)
    passed(cancelled)
    assert [work for work, _ in cancelled.told] == ["another"]
    with opened_ledger(Settings().ledger_url) as ledger:
        assert ledger.run(run_id).state == RunPhase.CLOSED


def test_a_limit_that_stopped_what_lands_here_is_told(table: Table) -> None:
    """The run stays open, and is no success: its result is the limit that was reached."""
    told = Told()
    with open_batches(table.emulator):
        run_id = let_go(table.spec(items_per_batch=3, time_limit="1h"))
        with opened_ledger(Settings().ledger_url) as ledger:
            ledger.request_stop(run_id, StopReason.TIME_LIMIT)
        passed(told)
    passed(told)
    assert told.told[-1][1].result == "time_limit_reached"


def test_what_nobody_can_resume_lands(table: Table) -> None:
    """If a suspended flow run cannot be started again (its deployment is gone), it lands here."""
    with open_batches(table.emulator):
        run_id = let_go(table.spec())
    report = passed(Suspended(can_resume=False))
    assert (report.resumed, report.landed) == ([], [run_id])
    assert len(table.rows()) == 9


@pytest.mark.parametrize("kind", ["under_way", "held"])
def test_a_run_at_work_is_left_alone(table: Table, kind: str) -> None:
    """What a flow run is about to do, or a process does at this moment, nobody else does."""
    spec = table.spec()
    with open_batches(table.emulator):
        let_go(spec)
    if kind == "under_way":
        report = passed(Suspended(kind))
    else:
        with hold_dataset(spec.output, Settings()):
            report = passed()
    assert (report.ended, report.landed, report.resumed) == (1, [], [])


def test_what_a_person_cancelled_is_cancelled_at_the_provider(table: Table) -> None:
    """Its batches are asked to cancel once, what ran is landed, and the run has ended then."""
    cancelled = Suspended("cancelled")
    with open_batches(table.emulator):
        run_id = let_go(table.spec(items_per_batch=3))
        table.emulator.control.finish(table.ledger()["batches"][0]["id"])
        assert passed(cancelled).cancelled == [run_id]
        states = {batch["status"] for batch in table.ledger()["batches"]}
        assert states <= {"ended", "canceling", "canceled", "completed", "cancelling", "cancelled"}
        assert len(table.rows()) == 3
        with opened_ledger(Settings().ledger_url) as ledger:
            assert ledger.run(run_id).stop == StopReason.CANCEL
    passed(cancelled)
    with opened_ledger(Settings().ledger_url) as ledger:
        run = ledger.run(run_id)
    assert (run.state, run.result) == (RunPhase.CLOSED, "cancelled")
    assert len(table.rows()) == 9


def test_a_time_limit_ends_a_wait_once(table: Table) -> None:
    """The run is resumed to cancel its batches, and then not again before they ended."""
    waiting = Suspended()
    with open_batches(table.emulator):
        spec = table.spec(items_per_batch=3, time_limit="1h")
        table.emulator.control.faults(kind="cancel_ignored")
        let_go(spec)
        with opened_ledger(Settings().ledger_url) as ledger:
            run = ledger.runs_of(None, 1)[0]
            ledger.request_stop(run.id, StopReason.TIME_LIMIT)
        assert len(passed(waiting).resumed) == 1
        let_go(spec)
        assert passed(waiting, gathered=0).resumed == []


def test_a_key_that_is_missing_stops_nobody(
    table: Table, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that cannot be looked at are told, and everything else goes on."""
    with open_batches(emulator):
        let_go(table.spec())
    monkeypatch.delenv(f"{table.provider.upper()}_API_KEY")
    report = passed()
    assert (report.batches, report.ended, report.landed) == (1, 0, [])
    assert len(report.notes) == 1
    assert f"{table.provider} is not asked" in report.notes[0]


@pytest.mark.parametrize("lacks", ["key", "account", "right key", "folder", "run"])
def test_a_run_that_cannot_be_seen_waits_in_its_own_process(
    table: Table, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Without its account's key, its folder or its ledger, a run is resumed, and the sign says so.

    Else it would stay suspended until its batches were overdue, or for ever.
    """
    spec, waiting = table.spec(), Suspended()
    key = f"{table.provider.upper()}_API_KEY"
    with open_batches(table.emulator):
        run_id = let_go(spec)
        passed(waiting)
        assert (waiting.resumed, waiting.unseen) == ([], set())
        if lacks == "key":
            monkeypatch.delenv(key)
        elif lacks == "account":
            monkeypatch.setenv(key, "acct:another-team:key")
        elif lacks == "right key":
            table.emulator.control.faults(kind="http_error", route="get", status=401, count=9)
        elif lacks == "folder":
            waiting.others = [run_id]
            Path(spec.output).rename(Path(spec.output).with_name("elsewhere"))
        else:
            waiting.others, run_id = ["of-another-copy"], "of-another-copy"
        passed(waiting)
    assert waiting.resumed == [f"flow run of {run_id}"]
    assert waiting.unseen == {run_id}


@pytest.mark.parametrize("rows", [2, 9])
def test_another_accounts_batches_do_not_hide_ones_own(
    table: Table, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A provider may refuse to show them (403); all others are looked at in the same pass.

    Many of them cost a few calls a minute, and not one each.
    """
    key = f"{table.provider.upper()}_API_KEY"
    with open_batches(table.emulator):
        own = let_go(table.spec())
        table.emulator.control.finish(table.ledger()["batches"][0]["id"])
        with monkeypatch.context() as other:
            other.setenv(key, "acct:another-team:key")
            changes = {"name": "other", "output": f"{table.output}-other", "limit": rows}
            let_go(table.spec(**changes, items_per_batch=1))
        # the account's own batch is looked at first
        table.emulator.control.faults(kind="http_error", route="get", status=403, nth=2, count=99)
        waiting = Suspended()
        report = passed(waiting)
    assert f"flow run of {own}" in waiting.resumed
    assert own not in (waiting.unseen or ())
    assert report.calls <= 5


@pytest.mark.parametrize("damaged", ["owner.json", "intents"])
def test_a_damaged_dataset_holds_up_no_other(table: Table, damaged: str) -> None:
    """What cannot be read is told, with its name; the batches of the others land."""
    bad, good = f"{table.output}-bad", f"{table.output}-good"
    with open_batches(table.emulator):
        let_go(table.spec(name="bad", output=bad))
        run_id = let_go(table.spec(name="good", output=good))
    place = Path(bad) / "_batchata" / damaged
    for file in [place] if place.is_file() else place.glob("*.json"):
        file.write_text("{")
    report = passed(gathered=0)
    assert report.landed == [run_id]
    (note,) = report.notes
    assert note.startswith("bad: ")
    assert "is damaged" in note


def test_a_pass_waits_for_no_create_of_unknown_fate(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled run whose create may be accepted yet is asked for again by the next pass."""
    with open_batches(table.emulator):
        run_id = let_go(table.spec())
    leave_in_doubt(table, monkeypatch, "drop_before", name="bad", output=f"{table.output}-bad")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "900")
    with opened_ledger(Settings().ledger_url) as ledger:
        (unclear,) = ledger.chunks_in((ChunkState.UNCLEAR,))
        ledger.request_stop(unclear.run_id, StopReason.CANCEL)
    assert passed(gathered=0).landed == [run_id]
    assert in_state(ChunkState.UNCLEAR) == [unclear.id]
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0")
    passed()
    assert in_state(ChunkState.UNCLEAR) == []


def test_a_run_that_has_ended_is_no_longer_waited_for(table: Table) -> None:
    """A flow run whose batches another process landed is resumed, and may be suspended again."""
    with open_batches(table.emulator):
        run_id = let_go(table.spec())
    run_prepared(prepare_run(table.spec(), Settings()))
    waiting = Suspended(others=[run_id])
    passed(waiting)
    assert waiting.resumed == [f"flow run of {run_id}"]
    assert waiting.unseen == set()


def test_a_cancel_that_a_process_could_not_tell_is_seen_to(table: Table) -> None:
    """The last flow run at work on a dataset was cancelled, and ended before the ledger heard.

    Neither a pass of `watch` in between, nor the cancel of an earlier flow run, changes that.
    """
    spec = table.spec(items_per_batch=3)
    with open_batches(table.emulator):
        let_go(spec, "flow run 1")
        run_id = let_go(spec, "flow run 2")
        table.emulator.control.finish(table.ledger()["batches"][0]["id"])
        assert passed(Cancelled("flow run 1"), gathered=0).landed == [run_id]
        assert passed(Cancelled("flow run 2")).cancelled == [run_id]
        assert sent(table.emulator) == 9


def test_who_is_cancelled_stops_no_run_of_others(table: Table) -> None:
    """It may have waited for the dataset, and another flow run let go of it at that moment."""
    spec = table.spec()
    with open_batches(table.emulator):
        run_id = let_go(spec, "flow run 1")
        assert request_cancel(spec, Settings(), "flow run 2") is None
        assert passed().cancelled == []
        asked = request_cancel(spec, Settings(), "flow run 1")
        assert asked is not None
        assert (asked.run_id, asked.batches) == (run_id, 1)
        assert passed().cancelled == [run_id]


def test_who_went_on_with_a_cancelled_run_is_left_alone(table: Table) -> None:
    """A person who starts it by hand, or another flow run, takes it over from the cancelled one."""
    spec = table.spec(items_per_batch=3)
    with open_batches(table.emulator):
        let_go(spec, "flow run 1")
        let_go(spec)
        assert passed(Cancelled("flow run 1")).cancelled == []
        with hold_dataset(spec.output, Settings(), None, "flow run 1"):
            assert passed(Cancelled("flow run 1")).cancelled == []


@pytest.mark.parametrize("sent_some", [True, False])
def test_a_run_that_was_cancelled_at_work_is_ended(table: Table, *, sent_some: bool) -> None:
    """Whoever cancels a run that is at work leaves its end to `watch`, also if nothing was sent."""
    spec = table.spec()
    with open_batches(table.emulator):
        if sent_some:
            run_id = let_go(spec)
        else:
            ready = prepare_run(spec, Settings())
            with hold_dataset(spec.output, Settings()) as held:
                run_id = held.ledger.begin_run(held.lease, {**ready.record, "retry_failed": 0})
                held.ledger.fix_plan(held.lease, run_id, PlanSummary().to_json(), [])
        with hold_dataset(spec.output, Settings()):
            request_cancel(spec, Settings())  # somebody is at work: it is not theirs
        assert passed().cancelled == []
        request_cancel(spec, Settings())
        assert passed().cancelled == [run_id]
    passed()
    with opened_ledger(Settings().ledger_url) as ledger:
        run = ledger.run(run_id)
    assert (run.state, run.result) == (RunPhase.CLOSED, "cancelled")


@pytest.mark.parametrize("fate", list(Fate))
def test_a_lost_process_is_taken_up(table: Table, fate: Fate) -> None:
    """The flow run of a process whose lease ran out is started again, once the server agrees.

    If a person cancelled it before, its run is ended; a process without a flow run is left alone.
    """
    spec, lost = table.spec(), Suspended("under_way", fate=fate)
    with open_batches(table.emulator):
        run_id = let_go(spec)
    with opened_ledger(Settings().ledger_url) as ledger:
        dataset_id = ledger.run(run_id).dataset_id
        ledger.acquire_lease(dataset_id, -60, "flow run 7")
        report = passed(lost)
        assert lost.lost == ["flow run 7"]
        assert report.taken_up == (["flow run 7"] if fate is Fate.STARTED else [])
        cancelled = StopReason.CANCEL if fate is Fate.CANCELLED else None
        assert ledger.run(run_id).stop == cancelled
        ledger.acquire_lease(dataset_id, 60, "flow run 8")
        passed(lost)
    assert lost.lost == ["flow run 7"]


def test_a_lost_flow_run_without_a_dataset_is_taken_up(emulator: Emulator) -> None:
    """It died before it held one, or after: the server alone can tell, and the report names it."""
    assert emulator
    lost = Suspended(silent=["flow run 9"])
    assert passed(lost).taken_up == ["flow run 9"]


def test_batches_are_seen_to_if_lost_flow_runs_cannot_be(table: Table) -> None:
    """What the server refuses there is noted, and what ended lands all the same."""

    class Refusing(Suspended):
        def take_up_lost(self, at_work: Collection[str]) -> list[str]:
            assert at_work == frozenset()
            message = "the server is busy"
            raise TransientError(message)

    with open_batches(table.emulator):
        run_id = let_go(table.spec())
    report = passed(Refusing(can_resume=False))
    assert report.landed == [run_id]
    assert report.notes == ["Lost flow runs are not taken up: the server is busy"]
