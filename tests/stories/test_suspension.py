"""A run that lets go while its batches are at the provider, and is carried on once they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import SuspendedRunError, hold_dataset
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.plan import preview
from tests.support.jobs import sent
from tests.support.table import APIS, Table, open_batches

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.spec.enrichment import EnrichmentSpec


def started(spec: EnrichmentSpec, lets_go_after: float = 0) -> Receipt:
    return run_prepared(prepare_run(spec, Settings()), lets_go_after=lets_go_after)


@pytest.mark.parametrize("api", APIS)
def test_it_lets_go_and_is_carried_on(emulator: Emulator, tmp_path: Path, api: str) -> None:
    """While batches are open nobody holds the dataset; each row is sent once, and lands."""
    table = Table(tmp_path, emulator, api, rows=9)
    spec = table.spec(items_per_batch=3)
    with open_batches(emulator):
        for _ in range(2):
            with pytest.raises(SuspendedRunError, match=r"^waiting for 3 of 3 batches, the oldest"):
                started(spec)
            assert sent(emulator) == 9
            with hold_dataset(spec.output, Settings()):
                pass  # it is free
    receipt = started(spec)
    assert receipt.outcomes == {"succeeded": 9}
    assert receipt.continued
    assert sent(emulator) == 9


def test_batches_that_are_awaited_count_as_under_way(emulator: Emulator, tmp_path: Path) -> None:
    """No more than `max_parallel_batches` are at the provider, however often it is carried on."""
    table = Table(tmp_path, emulator, "anthropic", rows=9)
    spec = table.spec(items_per_batch=3, max_parallel_batches=2)
    with open_batches(emulator):
        for _ in range(2):
            with pytest.raises(SuspendedRunError, match=r"^waiting for 2 of 3 batches"):
                started(spec)
        assert sent(emulator) == 6
    assert started(spec, lets_go_after=60).outcomes == {"succeeded": 9}
    assert sent(emulator) == 9


def test_money_under_way_is_awaited(emulator: Emulator, tmp_path: Path) -> None:
    """What the limit leaves no room for is sent once a batch under way gave its money back."""
    table = Table(tmp_path, emulator, "anthropic", rows=4)
    spec = table.spec(items_per_batch=2)
    bound = preview(spec, Settings()).to_json()["upper_bound_usd"]
    spec = table.spec(items_per_batch=2, cost_limit_usd=float(bound) * 0.75)
    with open_batches(emulator), pytest.raises(SuspendedRunError, match=r"^waiting for 2 of 3"):
        started(spec)
    assert sent(emulator) == 3
    assert started(spec, lets_go_after=60).outcomes == {"succeeded": 4}
    assert sent(emulator) == 4
