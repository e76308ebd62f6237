"""Batches that are sent with the credentials of a block belong to its account from then on.

Blocks are kept in memory here; `test_prefect_blocks.py` has them on a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks import Batch
from batchata_tasks.common.errors import (
    CredentialsError,
    OtherAccountError,
    SpecError,
    TerminalError,
)
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.operations.rebuild import rebuild_in
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.operations.watch import watch
from batchata_tasks.pipeline.enrich import enrich, run_prepared
from batchata_tasks.planning.prepare import prepare_run
from tests.support.jobs import CLAUDE, GPT, sent
from tests.support.operations import cancel, preview, reconcile, runs_overview
from tests.support.table import Table
from tests.support.unclear import leave_in_doubt

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.spec.enrichment import EnrichmentSpec
    from tests.support.block_store import BlockStore

ROWS = 6
RESEARCH, SALES = "acct:research:key-1", "acct:sales:key-1"


@pytest.fixture(autouse=True)
def _another_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment have the key of another account, to which nothing is sent by mistake."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "acct:environment:key")
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.1")


def accounts(table: Table) -> list[str]:
    """Return the accounts of the batches that were sent, in the order of sending."""
    return [batch["account"] for batch in table.ledger()["batches"]]


def let_go(spec: EnrichmentSpec) -> None:
    """Send what there is, and leave the batches open."""
    with pytest.raises(SuspendedRunError):
        run_prepared(prepare_run(spec, Settings()), letting_go=LettingGo(0))


def open_with(table: Table, block: str | None, **changes: Any) -> EnrichmentSpec:
    """Send the table with a block, and leave its batch open while others are sent."""
    spec = table.spec(credentials=block, **changes)
    table.emulator.control.progress("reads", 10**6)
    let_go(spec)
    return spec


def test_a_run_uses_the_account_of_the_block_that_its_spec_names(
    table: Table, block_store: BlockStore
) -> None:
    """Not that of the environment, whose key may be unset; the receipt is as ever."""
    block_store.save("research", RESEARCH)
    assert table.run(credentials="research").outcomes == {"succeeded": ROWS}
    assert accounts(table) == ["research"]
    table.check_answers()


def test_no_key_is_needed_in_the_environment(
    table: Table, block_store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor an address: those of a block are enough, for a plan, a run, and a look afterwards."""
    for name in ("ANTHROPIC", "OPENAI"):
        monkeypatch.delenv(f"{name}_API_KEY")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:9")
    block_store.save("research", RESEARCH)
    spec = table.spec(credentials="research")
    assert preview(spec).in_the_way == ()
    assert enrich(spec).outcomes == {"succeeded": ROWS}
    report = reconcile()
    assert not [note for note in report.notes if note.startswith(table.provider)]
    assert sum(report.known.values()) == 1


def test_a_block_says_all_of_the_account(
    openai: Table, block_store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its organization and project are used; what it leaves empty is not the environment's."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-environment")
    openai.emulator.control.faults(kind="projects", provider="openai")
    block_store.save("research", RESEARCH, project="proj-research")
    assert openai.run(credentials="research").outcomes == {"succeeded": ROWS}
    assert accounts(openai) == ["research/proj-research"]


def test_open_batches_stay_with_their_account(table: Table, block_store: BlockStore) -> None:
    """A spec that names another block lands them with their own, and sends the rest with it."""
    block_store.save("research", RESEARCH)
    block_store.save("sales", SALES)
    open_with(table, "research", limit=4)
    table.emulator.control.progress("immediate")
    receipt = table.run(credentials="sales")
    assert (receipt.outcomes, len(table.rows())) == ({"succeeded": 2}, ROWS)
    assert accounts(table) == ["research", "sales"]
    assert sent(table.emulator) == ROWS


@pytest.mark.parametrize("later", [None, "sales"])
def test_whoever_comes_by_uses_the_batchs_own_account(
    table: Table, block_store: BlockStore, later: str | None
) -> None:
    """A cancel of a spec that names another block by now, or none, cancels the open batch."""
    block_store.save("research", RESEARCH)
    block_store.save("sales", SALES)
    spec = open_with(table, "research")
    done = cancel(spec.model_copy(update={"credentials": later}))
    assert (done.result, done.overdue, done.at_work) == ("cancelled", (), None)
    assert table.ledger()["batches"][0]["status"] in ("ended", "cancelled")


def test_watch_looks_at_each_batch_with_its_own_account(
    emulator: Emulator, block_store: BlockStore, tmp_path: Path
) -> None:
    """Runs of two blocks and of the environment are seen in one pass, and land in the next."""
    block_store.save("research", RESEARCH)
    block_store.save("sales", SALES)
    for block in ("research", "sales", None):
        (tmp_path / str(block)).mkdir()
        open_with(Table(tmp_path / str(block), emulator, "openai", ROWS), block)
    report = watch(Settings())
    assert (report.batches, report.ended, report.notes) == (3, 0, [])
    emulator.control.progress("immediate")
    report = watch(Settings())
    assert (report.ended, len(report.landed), report.notes) == (3, 3, [])
    assert sent(emulator) == 3 * ROWS


def test_a_new_key_of_the_same_account_goes_on(table: Table, block_store: BlockStore) -> None:
    """A block whose key was rotated still finds the batches of the old one, also for `watch`."""
    block_store.save("research", RESEARCH)
    spec = open_with(table, "research")
    block_store.save("research", "acct:research:key-2")
    report = watch(Settings())
    assert (report.batches, report.ended, report.notes) == (1, 0, [])
    with pytest.raises(SuspendedRunError):
        run_prepared(prepare_run(spec, Settings()), letting_go=LettingGo(0))
    table.emulator.control.progress("immediate")
    assert len(watch(Settings()).landed) == 1
    assert enrich(spec).outcomes == {"succeeded": ROWS}
    assert sent(table.emulator) == ROWS


def test_a_block_that_is_missing_is_named_before_anything_is_sent(
    table: Table, block_store: BlockStore
) -> None:
    """One sentence says so; a plan says the same."""
    spec = table.spec(credentials="research")
    for attempt in (preview, enrich):
        with pytest.raises(CredentialsError, match="the block 'research' is not on the Prefect"):
            attempt(spec)
    assert sent(table.emulator) == 0


def test_a_block_that_was_deleted_loses_nothing(table: Table, block_store: BlockStore) -> None:
    """A run, a plan and `watch` name block and batch, send nothing, and go on once it is back."""
    block_store.save("research", RESEARCH)
    block_store.save("sales", SALES)
    open_with(table, "research", limit=4)
    table.emulator.control.progress("immediate")
    block_store.delete("research")
    (batch,) = table.ledger()["batches"]
    with pytest.raises(TerminalError, match=f"'research' is not on.* Batch {batch['id']} was"):
        table.run(credentials="sales")
    assert any("'research' is not" in text for text in watch(Settings()).notes)
    assert "'research' is not" in str(runs_overview(None)[0]["to_set"])
    (problem,) = preview(table.spec(credentials="sales")).in_the_way
    assert "'research' is not" in problem
    assert sent(table.emulator) == 4
    block_store.save("research", RESEARCH)
    table.run(credentials="sales")
    assert (len(table.rows()), sent(table.emulator)) == (ROWS, ROWS)


def test_a_block_of_another_account_by_now_is_told(table: Table, block_store: BlockStore) -> None:
    """What has to be set is named; the batch stays recorded, and its rows are not sent again."""
    block_store.save("research", RESEARCH)
    spec = open_with(table, "research")
    block_store.save("research", SALES)
    for attempt in (enrich, cancel):
        with pytest.raises(OtherAccountError, match="set `api_key` of the block 'research' to"):
            attempt(spec)
    assert "this process does not see them" in watch(Settings()).notes[0]
    assert "block 'research'" in reconcile().elsewhere[0].change
    assert sent(table.emulator) == ROWS
    block_store.save("research", RESEARCH)
    cancel(spec)
    assert accounts(table) == ["research"]


def test_reconcile_asks_the_accounts_of_blocks(table: Table, block_store: BlockStore) -> None:
    """A batch in doubt is found, adopted and given up in the account that it was sent to."""
    block_store.save("research", RESEARCH)
    open_with(table, "research", limit=2)
    report = reconcile()
    assert report.elsewhere == report.strays == []
    (batch,) = table.ledger()["batches"]
    report = reconcile(ReconcileRequest(abandon=(batch["id"],)))
    assert (report.abandoned, report.notes) == ([batch["id"]], [])
    assert table.ledger()["batches"][0]["status"] != "in_progress"


def test_a_batch_in_doubt_is_looked_for_in_its_own_account(
    table: Table, block_store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create whose answer was lost is adopted by the next run, which names another block."""
    block_store.save("research", RESEARCH)
    block_store.save("sales", SALES)
    leave_in_doubt(table, monkeypatch, credentials="research")
    table.run(credentials="sales")
    assert accounts(table) == ["research"]
    assert (len(table.rows()), sent(table.emulator)) == (ROWS, ROWS)


def test_a_rebuilt_ledger_knows_the_block(
    table: Table, block_store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the folder names it, so that an open batch is found with it and lands."""
    block_store.save("research", RESEARCH)
    spec = open_with(table, "research")
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{tmp_path / 'new.db'}")
    assert rebuild_in(str(table.output), Settings()).open_chunks == 1
    table.emulator.control.progress("immediate")
    enrich(spec)
    assert (len(table.rows()), accounts(table)) == (ROWS, ["research"])
    assert sent(table.emulator) == ROWS


def test_a_third_provider_has_no_blocks(house: str, tmp_path: Path, emulator: Emulator) -> None:
    """Its key is the environment's: a block is refused before anything is sent."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    with pytest.raises(SpecError, match=r"credentials: there are blocks for .* none for house"):
        prepare_run(table.spec(model=house, credentials="research"), Settings())


def test_a_batch_of_jobs_uses_a_block(
    emulator: Emulator, block_store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches go to the block's accounts, also by the state file alone."""
    monkeypatch.chdir(tmp_path)
    block_store.save("research", RESEARCH)
    batch = Batch("out", credentials="research").set_state("state.json")
    for model in (CLAUDE, GPT):
        batch.add_job(id=model, prompt="p", model=model, max_tokens=50)
    emulator.control.faults(kind="request_error", times=1)
    batch.run()
    again = Batch(retry_failed=True).set_state("state.json").run()
    assert all(result.is_success() for result in again.results().values())
    books = emulator.control.ledger()
    sent_by = [one["account"] for name in ("anthropic", "openai") for one in books[name]["batches"]]
    assert len(sent_by) >= 2
    assert set(sent_by) == {"research"}


def test_a_key_is_no_name_of_a_block() -> None:
    """A key that is given for a block's name is refused, and not repeated."""
    with pytest.raises(SpecError, match="credentials: write the name of a block") as caught:
        Batch(credentials="sk-ant-CANARY")
    assert "CANARY" not in str(caught.value)
