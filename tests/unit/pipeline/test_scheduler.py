"""The scheduler: how many chunks are on their way at once, in which order, and how it ends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import CredentialsError, TerminalError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.contexts import active
from batchata_tasks.execution.held_dataset import InterruptedRunError, hold_dataset
from batchata_tasks.ledger import ChunkState, StopReason
from batchata_tasks.pipeline.one_chunk import ChunkSteps
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.start import start_run
from batchata_tasks.pipeline.steps import plan_step
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from tests.support.table import Table
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.planning_run import PlanningRun
    from batchata_tasks.progress.listener import Progress

CHUNKS = 6


class Way:
    """Steps that only note what they were asked for; a step may wait, or raise."""

    def __init__(self, collect: Callable[[int], None] = lambda _place: None) -> None:
        self.landed: list[str] = []
        self.most = 0
        self._at_work = 0
        self._lock = threading.Lock()
        self._collect = collect

    def steps(self) -> ChunkSteps:
        return ChunkSteps(self._small, self._submit, self._poll, self._land)

    def _small(self, _ref: RunRef, chunk_id: str) -> dict[str, Any]:
        return {"chunk": chunk_id}

    def _submit(self, _ref: RunRef, chunk_id: str) -> dict[str, Any]:
        with self._lock:
            self._at_work += 1
            self.most = max(self.most, self._at_work)
        return {"batch_id": f"batch of {chunk_id}"}

    def _poll(self, _ref: RunRef, _chunk_id: str) -> dict[str, Any]:
        return {"ended": True, "no_room": False}

    def _land(self, _ref: RunRef, chunk_id: str) -> dict[str, Any]:
        self._collect(len(self.landed))
        with self._lock:
            self._at_work -= 1
            self.landed.append(chunk_id)
        return {"outcomes": {"succeeded": 1}}


@contextmanager
def planned(
    emulator: Emulator, folder: Path, at_once: int, progress: Progress | None = None
) -> Iterator[PlanningRun]:
    """Yield a run of six chunks that is planned, and nothing more."""
    table = Table(folder, emulator, "anthropic", rows=CHUNKS)
    spec = table.spec(items_per_batch=1, max_parallel_batches=at_once)
    ready = prepare_run(spec, Settings())
    with hold_dataset(spec.output, ready.settings, progress) as held:
        run = start_run(held, ready, Options(), None)
        with active(run):
            plan_step(run.ref)
            yield run


def run_all(run: PlanningRun, way: Way) -> bool:
    chunks = run.ledger.chunks(run.run_id, (ChunkState.PLANNED,))
    return run_chunks(run, way.steps(), chunks)


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_the_spec_says_are_on_their_way_at_once(
    emulator: Emulator, tmp_path: Path, at_once: int
) -> None:
    """All land; one at a time, they go in the order of their rows."""
    with planned(emulator, tmp_path, at_once) as run:
        way = Way()
        assert run_all(run, way) is False
        ids = [chunk.id for chunk in run.ledger.chunks(run.run_id)]
    assert sorted(way.landed) == sorted(ids)
    assert way.most <= at_once
    if at_once == 1:
        assert way.landed == ids


def test_an_error_ends_the_sending_after_what_is_under_way(
    emulator: Emulator, tmp_path: Path
) -> None:
    """What is at the provider by then lands, since it is paid; the error is raised after that."""
    both, notes = threading.Barrier(2), list[str]()

    def collect(_place: int) -> None:
        if both.wait(PATIENCE) == 0:
            message = "the provider refused"
            raise TerminalError(message)
        until(lambda: any("Nothing more is sent" in note for note in notes))

    with planned(emulator, tmp_path, 2, LineProgress(notes.append)) as run:
        way = Way(collect)
        with pytest.raises(TerminalError, match="the provider refused"):
            run_all(run, way)
    assert len(way.landed) == 1


def test_a_key_that_is_refused_half_way_is_no_wrong_input(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Before anything was sent it is: that error is raised as it is."""

    def collect(_place: int) -> None:
        message = "the key was refused"
        raise CredentialsError(message)

    with planned(emulator, tmp_path, 1) as run, pytest.raises(CredentialsError):
        run_all(run, Way(collect))


def test_a_request_to_stop_lets_what_is_under_way_land(emulator: Emulator, tmp_path: Path) -> None:
    """Nothing is begun after it."""
    with planned(emulator, tmp_path, 1) as run:

        def collect(place: int) -> None:
            if place == 1:
                run.ledger.request_stop(run.run_id, StopReason.SHUTDOWN)

        way = Way(collect)
        assert run_all(run, way) is False
    assert len(way.landed) == 2


def test_a_run_that_is_left_does_not_wait_for_an_answer(emulator: Emulator, tmp_path: Path) -> None:
    """A chunk whose call is not answered keeps nobody; those after it are not begun."""
    stuck, answered = threading.Event(), threading.Event()

    def collect(_place: int) -> None:
        stuck.set()
        answered.wait(PATIENCE)

    with planned(emulator, tmp_path, 1) as run:
        way = Way(collect)
        threading.Thread(
            target=lambda: (until(stuck.is_set), run.held.stop.set(), answered.set()), daemon=True
        ).start()
        with pytest.raises(InterruptedRunError):
            run_all(run, way)
    assert len(way.landed) <= 1
