"""A held dataset: who holds it, how long that is sure, and how a run that is left gets to know."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import AlreadyRunningError, LeaseError, WrongLedgerError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import (
    InterruptedRunError,
    hold_dataset,
    require_owner,
)
from batchata_tasks.ledger import opened_ledger
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Return the folder of a dataset that is not there yet."""
    return str(tmp_path / "out")


def test_one_at_a_time(output: str) -> None:
    """A second run is refused while the first holds the dataset, and not after it."""
    with (
        hold_dataset(output, Settings()) as first,
        pytest.raises(AlreadyRunningError),
        hold_dataset(output, Settings()),
    ):
        pytest.fail("it was held twice")
    with hold_dataset(output, Settings()) as second:
        assert second.lease.fence > first.lease.fence


def test_a_dataset_that_is_given_back_is_free_at_once(output: str) -> None:
    """A process that ends gives it back from another thread: it sends nothing from then on."""
    with hold_dataset(output, Settings()) as first:
        first.require_lease()
        first.give_back()
        with pytest.raises(LeaseError, match="sends nothing"):
            first.require_lease()
        with pytest.raises(InterruptedRunError):
            first.raise_if_left()
        with hold_dataset(output, Settings()) as second:
            assert second.lease.lost is None


def test_the_first_run_makes_the_dataset_its_ledgers(output: str, tmp_path: Path) -> None:
    """The folder names its ledger; another ledger is refused, and changes nothing."""
    with hold_dataset(output, Settings()) as held:
        owner = held.folder.owner()
    assert owner == {
        "format": 2,
        "spec": None,
        "dataset_id": held.lease.dataset_id,
        "ledger_id": held.ledger.id,
    }
    other = Settings(ledger_url=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(WrongLedgerError), hold_dataset(output, other):
        pytest.fail("it was held by another ledger")
    assert held.folder.owner() == owner


def test_a_run_that_another_ledger_replaced_lands_and_sends_nothing(output: str) -> None:
    """Whoever rebuilt the ledger meanwhile owns the dataset, though the old lease goes on."""
    with hold_dataset(output, Settings()) as held:
        with held.landing_alone():
            require_owner(held.folder, held.ledger)
        held.folder.write_owner(held.lease.dataset_id, "another ledger")
        with pytest.raises(WrongLedgerError), held.landing_alone():
            pytest.fail("it landed")
        with pytest.raises(WrongLedgerError):
            require_owner(held.folder, held.ledger)


def test_the_lease_is_given_back_after_an_error(output: str) -> None:
    """An error of the run is raised as it is, and the dataset is free again."""
    with pytest.raises(ZeroDivisionError), hold_dataset(output, Settings()):
        _ = 1 / 0
    with hold_dataset(output, Settings()):
        pass


def test_the_lease_is_renewed_as_long_as_the_run_goes_on(output: str) -> None:
    """A run that takes longer than its lease holds the dataset all the time."""
    settings = Settings(lease_seconds=1.2)
    with hold_dataset(output, settings) as held:
        first = held.held_until
        until(lambda: held.held_until > first + 1.2)
        held.require_lease()
        held.ledger.check_lease(held.lease)


def test_a_lost_lease_ends_the_run(output: str) -> None:
    """A run whose lease went to another one is told in its next wait.

    An error that it meets by then is reported as the loss of the lease, which explains it.
    """
    settings = Settings(lease_seconds=1.2)

    def lose_it_and_fail() -> None:
        with (
            hold_dataset(output, settings) as held,
            opened_ledger(settings.ledger_url) as other,
        ):
            other.release_lease(held.lease)
            other.acquire_lease(held.lease.dataset_id, 60)
            with pytest.raises(LeaseError):
                held.sleep(60)
            message = "a file that is gone"
            raise FileNotFoundError(message)

    with pytest.raises(LeaseError):
        lose_it_and_fail()


def test_a_run_that_is_left_begins_nothing_more(output: str) -> None:
    """Its waits end at once, and whoever asks before something new is told."""
    with hold_dataset(output, Settings()) as held:
        held.raise_if_left()
        threading.Timer(0.1, held.stop.set).start()
        began = time.monotonic()
        with pytest.raises(InterruptedRunError):
            held.sleep(600)
        assert time.monotonic() - began < 300
        with pytest.raises(InterruptedRunError):
            held.raise_if_left()


def test_nothing_is_sure_once_the_dataset_is_let_go(output: str) -> None:
    """A thread that nobody waited for may not send any more, however young the lease is."""
    with hold_dataset(output, Settings()) as held:
        held.require_lease()
    with pytest.raises(LeaseError):
        held.require_lease()
    with pytest.raises(InterruptedRunError):
        held.raise_if_left()
