"""Beginning a run: when a dead one is carried on, and when a new one begins in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import HeldError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.contexts import active
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.ledger import ChunkState, Intent
from batchata_tasks.pipeline.start import refresh_mark, rows_in_flight, start_run, unfinished_run
from batchata_tasks.pipeline.steps import plan_step
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from tests.support.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.held_dataset import OwnDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.pipeline.planning_run import PlanningRun

ROWS = 4


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table for Anthropic: nothing is sent in these tests."""
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


@pytest.fixture
def held(table: Table) -> Iterator[OwnDataset]:
    """Hold the table's dataset."""
    with hold_dataset(str(table.output), Settings()) as dataset:
        yield dataset


def start(
    held: OwnDataset, table: Table, options: Options | None = None, **changes: Any
) -> PlanningRun:
    ready = prepare_run(table.spec(**changes), Settings())
    return start_run(held, ready, options or Options(), None)


def planned(held: OwnDataset, table: Table, **changes: Any) -> PlanningRun:
    """Begin a run and plan it; then nothing more happens, as if it had died."""
    run = start(held, table, **changes)
    with active(run):
        plan_step(run.ref)
    return run


def unfinished(
    held: OwnDataset, table: Table, options: Options | None = None, **changes: Any
) -> RunContext | None:
    """Return the run that has to be landed before a run of this spec can begin."""
    ready = prepare_run(table.spec(**changes), Settings())
    return unfinished_run(held, ready, options or Options(), None)


def test_a_dead_run_of_the_same_spec_is_carried_on(held: OwnDataset, table: Table) -> None:
    """Its plan stands: the ledger has no second run."""
    dead = planned(held, table)
    assert unfinished(held, table) is None
    again = start(held, table)
    assert (again.run_id, again.continued) == (dead.run_id, True)
    assert again.plan().requests == ROWS


def test_a_run_that_died_while_it_planned_is_dropped(held: OwnDataset, table: Table) -> None:
    """Nothing was sent, so the next run plans anew, and the dead one is closed."""
    dead = start(held, table)
    again = start(held, table)
    assert again.run_id != dead.run_id
    assert not again.continued
    assert held.ledger.run(dead.run_id).result == "abandoned"


@pytest.mark.parametrize("change", [{"prompt": "Other: {{ text }}"}, {"max_tokens": 100}])
def test_a_dead_run_of_another_spec_is_landed_first(
    held: OwnDataset, table: Table, change: dict[str, Any]
) -> None:
    """It lands under its own spec, and sends nothing more."""
    dead = planned(held, table)
    old = unfinished(held, table, **change)
    assert old is not None
    assert (old.run_id, old.sends, old.continued) == (dead.run_id, False, True)
    assert old.spec == dead.spec


def test_a_run_that_asks_for_more_does_not_carry_on_one_that_sends_less(
    held: OwnDataset, table: Table
) -> None:
    """A plan without `--refresh` or `--retry-failed` lacks rows that are wanted now."""
    planned(held, table)
    assert unfinished(held, table, Options(refresh_mark(refresh=True))) is not None
    assert unfinished(held, table, Options(retry_failed=True)) is not None


def test_a_plan_that_is_lost_is_not_carried_on(held: OwnDataset, table: Table) -> None:
    """The files of a plan were deleted: what it sent is landed, and the rest planned anew."""
    dead = planned(held, table)
    held.folder.drop_run_folder(dead.run_id)
    old = unfinished(held, table)
    assert old is not None
    assert old.run_id == dead.run_id


def test_rows_of_other_runs_in_flight_are_not_planned_again(held: OwnDataset, table: Table) -> None:
    """Their keys are read from the manifests; a held chunk without one stops the planning."""
    run = planned(held, table)
    (chunk,) = held.ledger.chunks(run.run_id, (ChunkState.PLANNED,))
    arguments = (held.folder, held.ledger, held.lease.dataset_id, "another run", ["id"])
    assert list(rows_in_flight(*arguments)) == []
    held.ledger.reserve(held.lease, chunk, None)
    intent = Intent(chunk.id, "account", chunk.rows, held.lease.fence, now_us(), None, 0)
    held.ledger.record_intent(held.lease, intent)
    held.ledger.hold(held.lease, chunk.id)
    with pytest.raises(HeldError, match="which ones they are is lost"):
        list(rows_in_flight(*arguments))
