"""Where a state file leads: the folder of its run, a moved one, another ledger, a link."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchata_tasks import Batch, SpecError, StateManager
from batchata_tasks.common.errors import WrongLedgerError
from tests.support.jobs import CLAUDE, sent
from tests.support.waiting import until

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator

FILE = "state.json"


@pytest.fixture(autouse=True)
def here(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test."""
    del emulator
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def with_jobs(batch: Batch, number: int = 2) -> Batch:
    """Add jobs, and the state file."""
    batch.set_default_params(model=CLAUDE, max_tokens=50).set_state(FILE)
    for place in range(number):
        batch.add_job(prompt=f"text {place}", id=str(place))
    return batch


@pytest.mark.parametrize("jobs", [0, 4])
def test_the_file_alone_leads_to_its_open_batches(emulator: Emulator, jobs: int) -> None:
    """A run stops while batches are open; the next Batch names the state file, but no folder.

    It lands them in their own folder, and pays for nothing twice.
    """
    emulator.control.progress("reads", 10**6)
    run = with_jobs(Batch("res", items_per_batch=2), 4).run(wait=False)
    until(lambda: run.status()["batches"].get("submitted") == 2)
    run.shutdown(wait_for_active=False)
    emulator.control.progress("immediate")
    again = with_jobs(Batch(), jobs).run()
    assert sent(emulator) == 4
    assert all(result.is_success() for result in again.results().values())
    assert (len(again.results()), again.to_arrow().num_rows) == (4, 4)
    assert not Path("batch_results").exists()


def test_the_file_alone_keeps_the_limits_of_its_run(emulator: Emulator) -> None:
    """Without jobs the run is carried on, with its cost limit, its time limit and its batch size.

    A limit that the next Batch sets itself counts instead.
    """
    for folder in ("kept", "raised"):
        emulator.control.progress("reads", 10**6)
        limited = Batch(folder, items_per_batch=1, max_parallel_batches=1, raw_files=False)
        limited.add_cost_limit(0.00008).add_time_limit(hours=1)
        run = with_jobs(limited, 6).set_state(f"{folder}.json").run(wait=False)
        until(lambda run=run: run.status()["batches"].get("submitted") == 1)
        run.shutdown(wait_for_active=False)
        emulator.control.progress("immediate")
    kept = Batch().set_state("kept.json").run()
    assert kept.receipt is not None
    assert kept.receipt.cost_limit_usd is not None
    limit = Decimal(kept.receipt.cost_limit_usd)
    assert (kept.receipt.continued, limit) == (True, Decimal("0.00008"))
    assert (kept.config.time_limit_seconds, kept.config.raw_files) == (3600, False)
    raised = Batch().set_state("raised.json").add_cost_limit(1.0).run()
    assert raised.receipt is not None
    assert (raised.receipt.result, raised.config.cost_limit_usd) == ("succeeded", 1)
    assert raised.config.items_per_batch == 1


@pytest.mark.parametrize("jobs", [0, 3])
def test_another_folder_than_that_of_the_state_is_refused(
    emulator: Emulator, here: Path, jobs: int
) -> None:
    """The sentence names both folders; nothing is sent, and the file still names its run."""
    with_jobs(Batch("res")).run()
    before = Path(FILE).read_text()
    for reuse in (True, False):
        for dry in (True, False):
            batch = with_jobs(Batch("batch_results"), jobs).set_state(FILE, reuse_state=reuse)
            with pytest.raises(SpecError, match="set results_dir to the former") as refused:
                batch.run(dry_run=dry)
            assert f"{here / 'res'}, but" in str(refused.value)
            assert str(here / "batch_results") in str(refused.value)
    assert (sent(emulator), Path(FILE).read_text()) == (2, before)
    assert not Path("batch_results").exists()


def test_a_file_that_names_another_run_by_now_is_not_written_over(emulator: Emulator) -> None:
    """Two runs over two folders are checked before either begins: the second is refused."""
    late = with_jobs(Batch("late")).run(dry_run=True)
    with_jobs(Batch("res")).run()
    before = Path(FILE).read_text()
    with pytest.raises(SpecError, match="set results_dir to the former"):
        late.wait()
    assert (sent(emulator), Path(FILE).read_text()) == (2, before)


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_or_copied_dataset_is_the_same(emulator: Emulator, copied: bool) -> None:
    """The folder may have another name by now: its run is the state's, with jobs and without."""
    with_jobs(Batch("res")).run()
    if copied:
        shutil.copytree("res", "elsewhere")
        shutil.rmtree("res")
    else:
        shutil.move("res", "elsewhere")
    for jobs in (0, 2):
        assert len(with_jobs(Batch("elsewhere"), jobs).run().results()) == 2
    # the ledger knows by now where it is
    assert len(with_jobs(Batch(), 0).run().results()) == 2
    state = StateManager(FILE).load()
    assert state is not None
    assert len(state.completed_results) == 2
    assert sent(emulator) == 2
    assert not Path("res").exists()
    assert not Path("batch_results").exists()


def test_the_default_folder_may_be_the_moved_one(emulator: Emulator) -> None:
    """The dataset was moved to where a Batch looks by default: there it is found."""
    with_jobs(Batch("res")).run()
    shutil.move("res", "batch_results")
    assert len(with_jobs(Batch(), 0).run().results()) == 2
    assert (sent(emulator), Path("res").exists()) == (2, False)


def test_a_replaced_dataset_is_not_taken_for_the_states(emulator: Emulator) -> None:
    """Another dataset lies in the folder of the state's run by now: nothing is sent there."""
    with_jobs(Batch("res")).run()
    Batch("other").add_job(prompt="x", model=CLAUDE, max_tokens=50).run()
    shutil.rmtree("res")
    shutil.move("other", "res")
    Batch("res").add_job(prompt="x", model=CLAUDE, max_tokens=50).run()
    for batch in (Batch(), Batch("res")):
        with pytest.raises(SpecError, match="whose dataset is no longer in"):
            with_jobs(batch).run()
    assert sent(emulator) == 3


def test_paths_hold_where_the_working_folder_changes(
    emulator: Emulator, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program changes it while its run goes on, or starts in another one the next day."""
    emulator.control.progress("reads", 10**6)
    run = with_jobs(Batch("res")).run(dry_run=True)
    (here / "sub").mkdir()
    monkeypatch.chdir("sub")
    run.start()
    emulator.control.progress("immediate")
    run.wait()
    assert len(run.results()) == 2
    assert {path.name for path in here.iterdir()} == {"res", FILE, "sub"}
    again = Batch().set_state(here / FILE).run()
    assert len(again.results()) == len(Batch("../res").set_state(here / FILE).run().results()) == 2
    with pytest.raises(SpecError, match="set results_dir to the former"):
        Batch("res").set_state(here / FILE).run()
    assert (sent(emulator), list((here / "sub").iterdir())) == (2, [])


def test_a_ledger_without_the_states_run_is_named(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Batch without jobs says that this ledger is not the one, and which setting names it."""
    with_jobs(Batch("res")).run()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{tmp_path / 'another.db'}")
    with pytest.raises(
        WrongLedgerError, match=r"another\.db does not have; set BATCHATA_LEDGER_URL"
    ):
        with_jobs(Batch(), 0).run()
    assert sent(emulator) == 2


def test_a_missing_jobs_file_says_what_to_do(emulator: Emulator) -> None:
    """The sentence names the remedies; adding the same jobs is one of them."""
    with_jobs(Batch("res")).run()
    shutil.rmtree("res/_batchata/jobs")
    for use in (StateManager(FILE).load, StateManager(FILE).jobs, with_jobs(Batch(), 0).run):
        with pytest.raises(SpecError, match="or add the same jobs with add_job"):
            use()
    assert len(with_jobs(Batch()).run().results()) == 2
    assert sent(emulator) == 2


def test_a_link_to_a_state_file_stays_a_link(here: Path) -> None:
    """What is written goes to the file to which it leads, also if that is not there yet."""
    Path(FILE).symlink_to("there/real.json")
    with_jobs(Batch("res")).run()
    assert (Path(FILE).is_symlink(), Path("there/real.json").is_file()) == (True, True)
    assert len(with_jobs(Batch(), 0).run().results()) == 2
    StateManager(here / FILE).clear()
    assert (Path(FILE).exists(), Path("there/real.json").exists()) == (False, False)
