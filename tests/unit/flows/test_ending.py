"""Steps of a run whose process is told to end."""

from __future__ import annotations

import os
import signal
import threading
from contextvars import copy_context
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal

from batchata_tasks.execution.held_dataset import InterruptedRunError
from batchata_tasks.flows import ending, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator


class Known(ending._Ending):
    """The end of a flow run of which the server was asked already."""

    def __init__(self, *, cancelled: bool) -> None:
        self._lock, self._known = threading.Lock(), cancelled


@ending.ends_in_order
def interrupted() -> dict[str, Any]:
    message = "the run was stopped"
    raise InterruptedRunError(message)


def ended(*, cancelled: bool) -> dict[str, Any] | State[Any]:
    """Do a step that is interrupted since a person cancelled the run, or its worker ends."""
    context = copy_context()
    context.run(ending._ENDING.set, Known(cancelled=cancelled))
    return context.run(interrupted)


@pytest.fixture(autouse=True)
def _signals_as_a_flow_run_has_them() -> Iterator[None]:
    """Let a signal to end be raised, as Prefect's engine does."""

    def end(number: int, _frame: object) -> None:
        raise TerminationSignal(number)

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_second_signal_keeps_nothing_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person may cancel twice, and a worker may end meanwhile: no step is called crashed."""

    class Slow(Known):
        def is_cancelled(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().is_cancelled()

    monkeypatch.setattr(ending, "_Ending", lambda: Slow(cancelled=True))
    told, steps = list[str](), list[State[Any]]()

    @ending.ends_in_order
    def planned() -> dict[str, Any]:
        raise TerminationSignal(signal.SIGTERM)

    def tell() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        told.append("it")

    def work() -> None:
        with ending.cancellable(tell):
            state = planned()
            assert isinstance(state, State)
            steps.append(state)
            ending.value_of(state)

    with pytest.raises(TerminationSignal):
        work()
    assert steps[0].is_cancelled()
    assert told == ["it"]


def test_a_step_that_a_cancel_ended_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not failed, nothing of it is kept in the cache, and its run ends as it was told."""
    kept = SimpleNamespace(write_on_commit=True)
    monkeypatch.setattr(ending, "get_transaction", lambda: kept)
    state = ended(cancelled=True)
    assert isinstance(state, State)
    assert state.is_cancelled()
    assert not kept.write_on_commit
    with pytest.raises(TerminationSignal):
        ending.value_of(state)


def test_a_step_that_a_worker_ended_has_failed() -> None:
    """Nobody cancelled it, and the next run lands its batch: it says so."""
    with pytest.raises(InterruptedRunError):
        ended(cancelled=False)


def test_a_signal_that_makes_prefect_stumble_is_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may come just as a task run is made, which ends in another error: the run is stopped."""
    monkeypatch.setattr(ending, "_Ending", lambda: Known(cancelled=True))
    stopped = list[str]()

    stumbled = ValueError("Task run is not set")
    stumbled.__context__ = TerminationSignal(signal.SIGTERM)
    with pytest.raises(TerminationSignal), ending.cancellable(lambda: stopped.append("it")):
        raise stumbled
    assert stopped == ["it"]
    with pytest.raises(KeyError), ending.cancellable(lambda: stopped.append("again")):
        raise KeyError
    assert stopped == ["it"]


@pytest.mark.parametrize("task", [tasks.chunk, tasks.read])
def test_what_workers_do_can_be_sent_to_them(task: Any) -> None:
    """A task that refers to what lives in one process alone would silently be done by that."""
    assert cloudpickle.dumps(task)
