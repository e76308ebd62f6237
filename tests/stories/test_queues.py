"""Room in a provider's queue: all runs of a ledger share it, wait in one line, and say so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator.openai.rules import LineError
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.ledger import ChunkState, StopReason, opened_ledger, tables
from batchata_tasks.operations.flow_runs import NoFlowRuns, Waiters
from batchata_tasks.operations.watch import watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.status import runs_in_the_way, runs_overview
from tests.support.books import all_chunks, check_money, run_with, stopping_at
from tests.support.operations import preview
from tests.support.queued import per_row
from tests.support.table import MODELS, Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.spec.enrichment import EnrichmentSpec

ROWS = 12
# times: the tokens of rows are a guess before a batch of the spec has ended
_GUESS = 2.5


def run(
    spec: EnrichmentSpec, notes: list[str] | None = None, after: float | None = None
) -> Receipt:
    """Run a spec; given `after`, let go of it after so many seconds of waiting."""
    progress = None if notes is None else LineProgress(notes.append)
    letting_go = LettingGo() if after is None else LettingGo(after)
    return run_prepared(prepare_run(spec, Settings()), progress=progress, letting_go=letting_go)


def stated(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """State what queues hold."""
    path = folder / "queues.toml"
    path.write_text(text)
    monkeypatch.setenv("BATCHATA_QUEUES", str(path))


def one_at_a_time(table: Table, monkeypatch: pytest.MonkeyPatch) -> int:
    """State that the queue holds the rows of a table once, and not twice; return how much it is."""
    room = per_row(table) * ROWS * 9 // 10
    stated(monkeypatch, table.folder, f"[openai]\nenqueued_tokens = {room}\n")
    return room


def refused(table: Table) -> int:
    return int(table.ledger()["batches_refused"])


def another(table: Table, name: str, **changes: object) -> EnrichmentSpec:
    """Return the spec of another dataset, by the same table."""
    return table.spec(name=name, output=str(table.folder / name), **changes)


def test_a_stated_limit_is_kept_without_a_refusal(
    openai: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Six batches, of which two fit at a time, all go; the provider refuses none of them."""
    room = int(per_row(openai) * 4 * _GUESS)
    openai.emulator.control.limits(openai_enqueued_tokens=room)
    openai.emulator.control.progress("reads", 3)
    stated(monkeypatch, tmp_path, f'[openai."{MODELS["openai"]}"]\nenqueued_tokens = {room}\n')
    notes = list[str]()
    receipt = run(openai.spec(items_per_batch=2, max_parallel_batches=6), notes)
    assert receipt.outcomes == {"succeeded": ROWS}
    assert (refused(openai), receipt.batches) == (0, 6)
    assert any(
        note.startswith("waiting for room in the provider's queue: ")
        and " tokens enqueued by 1 run" in note
        for note in notes
    )
    openai.check_answers()
    check_money(openai)


def test_a_stated_limit_of_requests_is_kept_without_a_refusal(
    anthropic: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Anthropic's queue is counted in requests, of all models: no create is answered 429."""
    anthropic.emulator.control.limits(anthropic_queued_requests=5)
    anthropic.emulator.control.progress("reads", 3)
    stated(monkeypatch, tmp_path, "[anthropic]\nqueued_requests = 5\n")
    receipt = run(anthropic.spec(items_per_batch=2, max_parallel_batches=6))
    assert receipt.outcomes == {"succeeded": ROWS}
    creates = anthropic.emulator.control.ledger()["creates"]
    assert [seen["status"] for seen in creates] == [200] * 6
    check_money(anthropic)


def test_what_a_refusal_told_is_known_to_later_runs(openai: Table) -> None:
    """One refusal teaches the ledger: the run after that waits in line, and none of it fails."""
    room = int(per_row(openai) * 4 * _GUESS)
    openai.emulator.control.limits(openai_enqueued_tokens=room)
    openai.emulator.control.progress("reads", 3)
    first = run(openai.spec(items_per_batch=6, max_parallel_batches=3))
    assert first.outcomes == {"succeeded": ROWS}
    before = refused(openai)
    assert before >= 1
    second = run(another(openai, "second").model_copy(update={"items_per_batch": 2}))
    assert (second.outcomes, refused(openai)) == ({"succeeded": ROWS}, before)


def test_a_chunk_that_is_far_too_large_is_split_before_it_is_sent(
    openai: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its parts are as large as the queue; only a rest that might fit is tried; all land once."""
    run(openai.spec(limit=2))  # shows what a row has
    room = per_row(openai) * 2
    openai.emulator.control.limits(openai_enqueued_tokens=room)
    stated(monkeypatch, tmp_path, f"[openai]\nenqueued_tokens = {room}\n")
    receipt = run(openai.spec())
    assert receipt.outcomes == {"succeeded": ROWS - 2}
    assert refused(openai) <= 1
    assert len(openai.rows()) == ROWS
    assert openai.ledger()["accepted_twice"]["number"] == 0
    check_money(openai)


def _told(monkeypatch: pytest.MonkeyPatch, told: int) -> None:
    """Let the emulator's refusals tell this limit."""
    text = f"Enqueued token limit reached. Limit: {told} enqueued tokens."
    error = LineError("token_limit_exceeded", text, None)
    monkeypatch.setattr("batchata_tasks.emulator.openai.api.over_limit", lambda *_a, **_k: error)


def test_a_limit_below_a_single_request_splits_nothing_to_single_rows(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be what a queue holds: the chunk is halved, as after a refusal that tells none."""
    _told(monkeypatch, 1)
    openai.emulator.control.faults(kind="token_limit", count=1)
    receipt = run(openai.spec())
    assert (receipt.outcomes, receipt.batches) == ({"succeeded": ROWS}, 2)
    assert run(another(openai, "second")).batches == 1


def test_after_a_day_a_whole_chunk_tries_whether_the_limit_holds(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that would be split by it; once its batch ran, the limit is forgotten."""
    run(openai.spec(limit=2))  # shows what a row has
    _told(monkeypatch, per_row(openai) * 2)
    openai.emulator.control.faults(kind="token_limit", count=1)
    assert run(another(openai, "first")).batches > 2
    with opened_ledger(Settings().ledger_url) as ledger, ledger.engine.begin() as connection:
        connection.execute(update(tables.queue_limits).values(told_at=1))
    for name in ("second", "third"):
        assert run(another(openai, name)).batches == 1


def test_the_batch_of_a_dead_run_is_looked_at_by_who_waits_for_it(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run died with its batch in the queue; another one sees that it ended, and goes on."""
    one_at_a_time(openai, monkeypatch)
    with open_batches(openai.emulator), pytest.raises(KeyboardInterrupt):
        run_with(
            openai, stopping_at("submit", lambda _chunk: True, KeyboardInterrupt(), after=True)
        )
    (chunk,) = all_chunks()
    assert chunk.state == ChunkState.SUBMITTED
    assert run(another(openai, "second")).outcomes == {"succeeded": ROWS}
    assert run(openai.spec()).outcomes == {"succeeded": ROWS}


def test_a_time_limit_ends_the_wait(openai: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits without end: what is unsent is dropped, and its place in line is free."""
    one_at_a_time(openai, monkeypatch)
    with open_batches(openai.emulator):
        with pytest.raises(SuspendedRunError):
            run(openai.spec(), after=0)
        receipt = run(another(openai, "second").model_copy(update={"time_limit": "1s"}))
        assert (receipt.result, receipt.unsent_rows) == ("time_limit_reached", ROWS)
        with opened_ledger(Settings().ledger_url) as ledger:
            assert ledger.standings() == []


# --- without a process ----------------------------------------------------------------------------


@dataclass
class FlowRuns(NoFlowRuns):
    """Flow runs that are suspended, one for each run, and those that were resumed."""

    resumed: list[str] = field(default_factory=list[str])
    can_resume: bool = True

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        assert ledger_id
        return {run: Waiters((run,)) for run in runs}

    def resume(self, flow_run_id: str) -> bool:
        self.resumed.append(flow_run_id)
        return self.can_resume


def test_a_suspended_run_goes_on_once_another_runs_batch_made_room(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no money meanwhile, `watch` resumes it when it is its turn, and `status` tells."""
    room = one_at_a_time(openai, monkeypatch)
    flow_runs, limited = FlowRuns(), {"cost_limit_usd": 1}
    with open_batches(openai.emulator):
        with pytest.raises(SuspendedRunError):
            run(openai.spec(), after=0)
        ids = list[str]()
        for name in ("second", "third"):
            spec = another(openai, name).model_copy(update=limited)
            with pytest.raises(
                SuspendedRunError, match=r"^waiting for room in the provider's queue for 1 batch$"
            ) as error:
                run(spec, after=0)
            ids.append(error.value.run_id)
        with opened_ledger(Settings().ledger_url) as ledger:
            assert [ledger.money(run_id) for run_id in ids] == [(0, 0), (0, 0)]
        report = watch(Settings(), flow_runs)
        assert (report.resumed, report.landed) == ([], [])
        (text,) = [text for text in runs_in_the_way(_runs()) if text.startswith("second: ")]
        assert text.startswith("second: 1 batch waits for room in the provider's queue (gpt-6-luna")
        assert text.endswith(f" of {room:,} tokens enqueued by 1 run).")
        openai.emulator.control.finish(openai.ledger()["batches"][0]["id"])
        watch(Settings(), flow_runs, gathered=0)
        assert flow_runs.resumed[1:] == [ids[0]]  # who has waited longest, and it alone
        flow_runs.resumed.clear()
        with pytest.raises(SuspendedRunError, match="waiting for 1 of 1 batch"):
            run(another(openai, "second").model_copy(update=limited), after=0)
        watch(Settings(), flow_runs, gathered=0)
        assert ids[1] not in flow_runs.resumed
    receipt = run(another(openai, "second").model_copy(update=limited))
    assert (receipt.continued, receipt.outcomes) == (True, {"succeeded": ROWS})
    watch(Settings(), flow_runs, gathered=0)
    assert ids[1] in flow_runs.resumed
    assert run(another(openai, "third").model_copy(update=limited)).outcomes == {"succeeded": ROWS}


def _runs() -> list[dict[str, object]]:
    return runs_overview(None, Settings())


def test_nobody_holds_the_line_whom_nobody_resumes(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `watch`, the place of a suspended run counts for some minutes only."""
    one_at_a_time(openai, monkeypatch)
    with open_batches(openai.emulator):
        with pytest.raises(SuspendedRunError):
            run(openai.spec(), after=0)
        with pytest.raises(SuspendedRunError):
            run(another(openai, "second"), after=0)
    run(openai.spec())
    with pytest.raises(SuspendedRunError):
        run(another(openai, "third"), after=0)
    _later(Settings().ledger_url)
    assert run(another(openai, "third")).outcomes == {"succeeded": ROWS}


def test_nobody_waits_behind_a_run_that_cannot_be_resumed(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its deployment is gone, say, it leaves the line once it is its turn; later it may go."""
    one_at_a_time(openai, monkeypatch)
    flow_runs = FlowRuns(can_resume=False)
    with open_batches(openai.emulator):
        with pytest.raises(SuspendedRunError):
            run(openai.spec(), after=0)
        with pytest.raises(SuspendedRunError) as error:
            run(another(openai, "second"), after=0)
    run(openai.spec())
    with pytest.raises(SuspendedRunError):
        run(another(openai, "third"), after=0)
    for _ in range(2):
        report = watch(Settings(), flow_runs)
        assert (report.resumed, error.value.run_id in flow_runs.resumed) == ([], True)
    assert run(another(openai, "third"), after=20).outcomes == {"succeeded": ROWS}
    assert run(another(openai, "second")).outcomes == {"succeeded": ROWS}


def test_who_waits_for_money_holds_up_nobody_in_line(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs of a budget one has the money, the other the place before it: both go.

    The one without money is resumed once there is some, and not for the room alone.
    """
    one_at_a_time(openai, monkeypatch)
    bound = float(preview(openai.spec()).to_json()["upper_bound_usd"])
    budget = {"name": "shared", "limit_usd": round(bound + 1e-9, 9), "period": "total"}
    first, second = (another(openai, name, budget=budget) for name in ("first", "second"))
    flow_runs, notes = FlowRuns(), list[str]()
    with ThreadPoolExecutor(2) as pool:
        with open_batches(openai.emulator):
            with pytest.raises(SuspendedRunError):
                run(openai.spec(), after=0)
            with pytest.raises(SuspendedRunError) as error:
                run(first, after=0)
            funded = pool.submit(run, second, notes, after=100)
            until(lambda: any("waiting for room" in note for note in notes))
        run(openai.spec())
        watch(Settings(), flow_runs)
        assert error.value.run_id not in flow_runs.resumed
        assert funded.result(PATIENCE).outcomes == {"succeeded": ROWS}
    watch(Settings(), flow_runs)
    assert error.value.run_id in flow_runs.resumed
    assert run(first, after=20).outcomes == {"succeeded": ROWS}


def test_a_run_lets_go_while_others_than_its_ledger_fill_the_queue(
    openai: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is resumed minutes later to try again, not each minute, and goes once there is room."""
    run(openai.spec(limit=2))  # shows what a row has
    own, flow_runs, control = Settings().ledger_url, FlowRuns(), openai.emulator.control
    control.limits(openai_enqueued_tokens=int(per_row(openai) * ROWS * _GUESS))
    control.faults(kind="stuck_finalizing", count=1)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(SuspendedRunError, match="waiting for 1 of 1 batch"):
        run(another(openai, "foreign"), after=0)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", own)
    control.limits(openai_enqueued_tokens=int(per_row(openai) * (ROWS + 2)))
    run_ids, before = list[str](), refused(openai)
    for tries in (1, 2):
        with pytest.raises(SuspendedRunError, match="room in the provider's queue") as error:
            run(another(openai, "second"), after=1)
        run_ids.append(error.value.run_id)
        assert refused(openai) == before + tries
        for _ in range(2):
            watch(Settings(), flow_runs)
        assert flow_runs.resumed == run_ids[1:]
        _later(own)
        watch(Settings(), flow_runs)
        assert flow_runs.resumed == run_ids
    control.limits(openai_enqueued_tokens=0)
    assert run(another(openai, "second"), after=20).outcomes == {"succeeded": ROWS}


def _later(ledger_url: str) -> None:
    """Let the time be over for which places are kept."""
    with opened_ledger(ledger_url) as ledger, ledger.engine.begin() as connection:
        connection.execute(update(tables.queue_places).values(kept_until=1))


def test_a_pass_tells_of_no_landing_if_nothing_landed(
    openai: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run over its time limit that only waits in line has nothing that could land."""
    one_at_a_time(openai, monkeypatch)
    with open_batches(openai.emulator):
        with pytest.raises(SuspendedRunError):
            run(openai.spec(), after=0)
        with pytest.raises(SuspendedRunError) as error:
            run(another(openai, "second"), after=0)
        with opened_ledger(Settings().ledger_url) as ledger:
            ledger.request_stop(error.value.run_id, StopReason.TIME_LIMIT)
        assert watch(Settings()).landed == []
    (landed,) = watch(Settings()).landed
    assert landed != error.value.run_id


def test_a_plan_says_what_will_wait(
    openai: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names the queue, what it holds, and what is there already."""
    assert preview(openai.spec()).queues == ()
    stated(monkeypatch, tmp_path, "[openai]\nenqueued_tokens = 300\n")
    (text,) = preview(openai.spec()).queues
    assert text.startswith("openai holds 300 tokens of gpt-6-luna at a time, and these have about")
    assert text.endswith(" turns, as batches end")
    with open_batches(openai.emulator), pytest.raises(SuspendedRunError):
        run(openai.spec(limit=2), after=0)
    (text,) = preview(another(openai, "second")).queues
    assert text.endswith(" are there, so that some wait until there is room")
    assert ("Queue", text) in preview(another(openai, "second")).lines()


def test_all_specs_of_a_small_queue_get_their_turn(emulator: Emulator, tmp_path: Path) -> None:
    """A learned limit, three specs after one another: the last one waits for nobody in vain."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    emulator.control.limits(openai_enqueued_tokens=per_row(table) * 3)
    for name in ("a", "b", "c"):
        assert run(another(table, name)).outcomes == {"succeeded": ROWS}
    assert table.ledger()["requests_accepted"] == 3 * ROWS
