"""What became of a create: certain refusals are few, and an id in the answer is the batch.

Each case is a server, or something between us and it, that somebody has met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.cancel import request_cancel
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.providers import provider_type
from tests.support.books import all_chunks, check_money, money, run_with, stopping_at
from tests.support.operations import preview, reconcile
from tests.support.stuck import told
from tests.support.unclear import in_state, leave_in_doubt

if TYPE_CHECKING:
    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 5
UNCLEAR_STATUSES = (402, 405, 406, 408, 409, 410, 411, 418, 425, 431, 451, 499, 500, 502, 504, 529)
PAGES = (400, 401, 403, 404, 413, 422, 429, 503)  # of something in between
SHAPES = (
    "capitals",
    "iso_times",
    "ms_times",
    "float_times",
    "no_times",
    "blank",
    "text_counts",
    "no_counts",
    "no_metadata",
    "errors_list",
)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.4")


def check_once(table: Table, creates: int = 1) -> None:
    """Check that every row was accepted once, landed once, and was paid for once."""
    book = table.ledger()
    assert book["accepted_twice"]["number"] == 0
    assert book["requests_accepted"] == ROWS
    assert len(table.emulator.control.ledger()["creates"]) == creates
    assert len(table.rows()) == ROWS
    table.check_answers()
    check_money(table)


def accepted(table: Table) -> int:
    return int(table.ledger()["batches_accepted"])


# --- what is certain ------------------------------------------------------------------------------


@pytest.mark.sampled(6)
@pytest.mark.parametrize("status", UNCLEAR_STATUSES)
def test_a_status_that_leaves_it_open_is_looked_up(table: Table, status: int) -> None:
    """A batch that was accepted and answered with such a status is adopted, never sent again."""
    table.emulator.control.faults(kind="http_error_after", status=status, nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("status", PAGES)
def test_a_page_of_something_in_between_proves_nothing(table: Table, status: int) -> None:
    """What a proxy says of a create that it passed on is not what the API says."""
    table.emulator.control.faults(kind="http_error_after", status=status, html=True, nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("kind", ["drop_mid_answer", "garbled_answer", "bare_create"])
def test_an_answer_that_says_little_is_looked_up_or_is_the_batch(table: Table, kind: str) -> None:
    """Half an answer, one that is no JSON, and one with hardly more than an id: one create."""
    table.emulator.control.faults(kind=kind, nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("style", SHAPES)
def test_batches_of_another_shape_land(table: Table, style: str) -> None:
    """All that is not needed may be absent, blank, or of another type: at once, and looked up."""
    table.emulator.control.faults(kind="odd_objects", style=style)
    table.emulator.control.faults(kind="drop_after", nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_an_answer_with_an_id_is_the_batch_where_lists_are_empty(table: Table) -> None:
    """A gateway that leaves out all but the id, and lists nothing, is sent one batch."""
    table.emulator.control.faults(kind="bare_create")
    table.emulator.control.faults(kind="list_empty")
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- trouble of the account that leaves a create open ---------------------------------------------

NO_CREDIT = [
    {"status": 402, "message": "Your credit balance is too low."},
    {"status": 402},
    {"status": 402, "empty": True},
    {
        "status": 409,
        "body": '{"type": "error", "error": {"type": "billing_error", "message": "Pay first."}}',
    },
]


def no_credit(table: Table, **more: Any) -> None:
    """Let creates be refused since the account has no credit, with a status that says little."""
    answer = {**NO_CREDIT[0], **more}
    table.emulator.control.faults(kind="http_error", route="create", **answer)


@pytest.mark.parametrize("answer", NO_CREDIT)
def test_a_create_without_credit_is_not_repeated_at_once(
    table: Table, answer: dict[str, Any]
) -> None:
    """Once a list proves that nothing was accepted, the run ends with the provider's words.

    Nothing is held, and the same command goes on once the credit is there.
    """
    table.emulator.control.faults(kind="http_error", route="create", **answer)
    with pytest.raises(TerminalError, match=f"HTTP {answer['status']}.*add credit"):
        table.run()
    assert len(table.emulator.control.ledger()["creates"]) == 1
    ((chunk,), sums) = all_chunks(), money(table)
    assert (chunk.state, chunk.resends, sums.reserved) == (ChunkState.PLANNED, 1, 0)
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table, creates=2)


def test_billing_trouble_of_a_key_names_the_remedy(table: Table) -> None:
    """A 403 is about the key, unless its words are about money: that is mended elsewhere."""
    error = {"type": "billing_error", "message": "billing inactive", "code": "billing_not_active"}
    body = orjson.dumps({"type": "error", "error": error}).decode()
    table.emulator.control.faults(kind="http_error", route="create", status=403, body=body)
    with pytest.raises(CredentialsError, match=r"billing inactive.*add credit") as refused:
        table.run()
    assert "check the key" not in str(refused.value)


def test_a_create_without_credit_is_sent_twice_at_most(table: Table) -> None:
    """The next start has its one re-send; after that its rows wait for a person."""
    no_credit(table)
    with pytest.raises(TerminalError, match="add credit"):
        table.run()
    for _ in range(2):
        receipt = table.run()
        assert (receipt.exit_code, len(table.emulator.control.ledger()["creates"])) == (
            3 if receipt.held_rows else 0,
            2,
        )
    assert [chunk.state for chunk in all_chunks()] == [ChunkState.HELD]


def test_a_create_without_credit_that_was_accepted_is_adopted(table: Table) -> None:
    """Whatever the answer said: what the list shows is there, and is paid for once."""
    table.emulator.control.faults(kind="http_error_after", nth=1, **NO_CREDIT[0])
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


def test_a_create_without_credit_is_held_where_lists_prove_nothing(table: Table) -> None:
    """Nobody knows whether it was accepted, so its rows wait for a person."""
    table.emulator.control.faults(kind="lists_unproven")
    no_credit(table)
    receipt = table.run()
    assert (receipt.held_rows, receipt.exit_code) == (ROWS, 3)
    assert len(table.emulator.control.ledger()["creates"]) == 1


def test_a_create_without_credit_whose_process_died_is_sent_by_the_next_start(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its absence is proven later: it is sent then, once."""
    no_credit(table, nth=1)
    for call in range(2, 12):  # the first list goes before the create
        table.emulator.control.faults(kind="http_error", route="list", status=500, nth=call)
    with monkeypatch.context() as hasty:
        hasty.setenv("BATCHATA_PATIENCE", "0")
        with pytest.raises(TransientError):
            table.run()
    table.emulator.control.clear_faults()
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table, creates=2)


def test_a_second_unclear_answer_is_not_called_absent(table: Table) -> None:
    """A chunk that is held after its one re-send was answered twice: the sentence says no less."""
    table.emulator.control.faults(kind="http_error", route="create", status=500)
    _, notes = told(table)
    (note,) = [note for note in notes if "nobody can tell" in note]
    assert "it was sent again once already, and its fate is unknown again" in note


# --- what a list proves ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list_flat", "list_repeats", "list_old_first"])
def test_lists_of_another_form_end_and_show_ours(table: Table, kind: str) -> None:
    """Without pages, with pages that never end, or the oldest first: ours is found."""
    table.emulator.control.foreign(table.provider, batches=3, requests=ROWS, ends="at_once")
    table.emulator.control.faults(kind=kind)
    table.emulator.control.faults(kind="drop_after", nth=1)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_absence_from_a_list_that_is_not_known_proves_nothing(table: Table, fault: str) -> None:
    """Where the list shows no batch that is known to exist, the rows are held, not sent again."""
    table.emulator.control.faults(kind="list_empty")
    table.emulator.control.faults(kind=fault, nth=1)
    for _ in range(2):  # the next run does not send them either
        receipt = table.run()
        assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
        assert any("batchata reconcile" in warning for warning in receipt.warnings)
        assert accepted(table) == (fault == "drop_after")
        assert len(table.emulator.control.ledger()["creates"]) == 1
    assert money(table).reserved == sum(chunk.bound or 0 for chunk in all_chunks())


def test_a_list_that_shows_a_known_batch_proves_an_absence(table: Table) -> None:
    """A list of a server that nobody knows counts once it showed a batch that surely exists."""
    assert table.run().outcomes == {"succeeded": ROWS}
    table.emulator.control.faults(kind="list_flat")
    table.emulator.control.faults(kind="drop_before", nth=1)
    receipt = table.run(prompt="{{ id }} anew: {{ text }}")
    assert receipt.outcomes == {"succeeded": ROWS}
    assert accepted(table) == 2


def test_a_chunk_is_sent_again_by_itself_once(table: Table) -> None:
    """Two creates of which nothing is known, and none in the list: a person decides."""
    table.emulator.control.faults(kind="drop_before", count=2)
    receipt = table.run()
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert len(table.emulator.control.ledger()["creates"]) == 2
    (chunk,) = in_state(ChunkState.HELD)
    reconcile(ReconcileRequest(resend=(chunk,)))
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table, creates=3)


def test_a_held_create_is_adopted_once_a_list_shows_it(table: Table) -> None:
    """Looking again, by `reconcile`, finds the batch that a list had hidden: nothing is resent."""
    table.emulator.control.faults(kind="list_empty")
    table.emulator.control.faults(kind="drop_after", nth=1)
    assert table.run().held_rows == ROWS
    table.emulator.control.clear_faults()
    (chunk,) = in_state(ChunkState.HELD)
    assert list(reconcile().adopted) == [chunk]
    table.run()
    check_once(table)


def test_what_is_held_stays_reserved_in_a_limit(openai: Table) -> None:
    """An undecided create counts as spent: what it may cost is not spent on other rows."""
    openai.emulator.control.faults(kind="list_empty")
    openai.emulator.control.faults(kind="drop_after", nth=1)
    bound = usd(preview(openai.spec()).summary.bound or 0)
    budget = {"name": "held", "limit_usd": float(bound) * 1.05, "period": "total"}
    assert openai.run(budget=budget).held_rows == ROWS
    openai.values.extend(
        {"id": f"new{i}", "text": f"text of row {i}", "note": ""} for i in range(ROWS)
    )
    openai.write()
    receipt = openai.run(budget=budget)
    assert receipt.exit_code == 4
    assert receipt.unsent_rows == ROWS
    openai.emulator.control.clear_faults()
    reconcile()
    openai.run(budget=budget)
    assert len(openai.rows()) == 2 * ROWS


# --- whose batches --------------------------------------------------------------------------------


def _scope(provider: str) -> tuple[str, str, str]:
    if provider == "openai":
        return "OPENAI_PROJECT_ID", "proj_a", "proj_b"
    return "ANTHROPIC_CUSTOM_HEADERS", "anthropic-workspace-id: a", "anthropic-workspace-id: b"


@pytest.mark.parametrize("create", ["answered", "lost"])
def test_another_scope_of_the_same_key_sends_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch, create: str
) -> None:
    """A batch that was sent under other settings is not gone: they are named, nothing is sent."""
    variable, one, other = _scope(table.provider)
    monkeypatch.setenv(variable, one)
    if create == "answered":
        table.emulator.control.faults(kind="projects")
    if create == "lost":
        leave_in_doubt(table, monkeypatch, add="projects")
    else:
        dies = stopping_at("poll", lambda chunk: True, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_with(table, dies)
    monkeypatch.setenv(variable, other)
    with pytest.raises(BatchataError) as refused:
        table.run()
    assert variable in str(refused.value)
    if table.provider == "openai":
        assert one in str(refused.value)
    assert accepted(table) == 1
    monkeypatch.setenv(variable, one)
    assert table.run().outcomes == {"succeeded": ROWS}
    check_once(table)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404])
def test_a_file_that_is_not_ready_is_waited_for(
    openai: Table, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The create goes out again for the same file: one upload, one batch."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "5")
    openai.emulator.control.faults(kind="file_not_ready", status=status, count=1)
    assert openai.run().outcomes == {"succeeded": ROWS}
    check_once(openai, creates=2)


def test_refused_creates_leave_no_uploads_behind(openai: Table) -> None:
    """However often a run is started: the file of a refused create is deleted."""
    openai.emulator.control.faults(kind="file_not_ready")
    for _ in range(2):
        with pytest.raises(BatchataError):
            openai.run()
    files: list[dict[str, Any]] = openai.emulator.control.ledger()["openai"]["files"]
    assert [file for file in files if not file.get("deleted")] == []
    openai.emulator.control.clear_faults()
    assert openai.run().outcomes == {"succeeded": ROWS}
    check_once(openai, creates=len(openai.emulator.control.ledger()["creates"]))


# --- what reconcile says --------------------------------------------------------------------------


def test_a_second_batch_of_a_chunk_is_told_as_such(table: Table) -> None:
    """Requests that were accepted twice, whoever sent them again, are reported as that."""
    assert table.run().outcomes == {"succeeded": ROWS}
    (chunk,) = all_chunks()
    provider = provider_type(table.provider)()
    path = table.output / "_batchata/requests" / f"{chunk.id}.jsonl"
    provider.create(path, provider.upload(path), chunk.id, lambda: None)
    (stray,) = reconcile().strays
    assert stray.twice == chunk.id
    assert any(label == "Sent twice" for label, _ in reconcile().lines())


def test_reconcile_says_when_a_held_create_was_never_accepted(table: Table) -> None:
    """Once a list shows others of the account, and not this one, a person is told to resend."""
    table.emulator.control.faults(kind="list_empty")
    table.emulator.control.faults(kind="drop_before", nth=1)
    assert table.run().held_rows == ROWS
    table.emulator.control.clear_faults()
    (doubt,) = reconcile().doubts
    assert "--resend" in doubt.note


def test_a_cancelled_run_that_may_let_go_waits_for_the_proof(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process counts the time of the proof anew: one that let go would never have it.

    A pass of `watch`, which waits for nothing, leaves it to whoever does.
    """
    leave_in_doubt(table, monkeypatch, "drop_before")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "1")
    request_cancel(table.spec(), Settings())
    with pytest.raises(SuspendedRunError):
        run_prepared(prepare_run(table.spec(), Settings()), letting_go=LettingGo(0))
    ready = prepare_run(table.spec(), Settings())
    assert run_prepared(ready, letting_go=LettingGo(0.1)).result == "cancelled"
    assert accepted(table) == 0
