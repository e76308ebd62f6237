"""Nothing that a process opens to reach a provider stays open after its use."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks import AnthropicProvider, Batch, Job, OpenAIProvider
from batchata_tasks.common.errors import AlreadyRunningError, BatchataError, InputError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import InterruptedRunError, hold_dataset
from batchata_tasks.operations.reconcile import reconcile
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import silent
from batchata_tasks.providers import provider_type
from batchata_tasks.reports.plan import preview
from tests.support.table import MODELS, Table
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.in_turn

ROWS = 3

TIMES = 5


class Adapters:
    """The adapters that were made, and those that were closed since."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.closed = 0, 0
        for name in MODELS:
            adapter = provider_type(name)
            make, close = adapter.__init__, adapter.close

            def made(one: Any, make: Callable[[Any], None] = make) -> None:
                make(one)
                self.made += 1

            def closed(one: Any, close: Callable[[Any], None] = close) -> None:
                close(one)
                self.closed += 1

            monkeypatch.setattr(adapter, "__init__", made)
            monkeypatch.setattr(adapter, "close", closed)


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> Adapters:
    """Count the adapters that the test makes."""
    return Adapters(monkeypatch)


def in_use() -> tuple[int, int]:
    """Return how many files and sockets this process has open, and its threads."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208 - a count


def test_many_runs_in_a_process_leave_nothing_open(
    table: Table, adapters: Adapters, tmp_path: Path
) -> None:
    """Runs, plans, batches of jobs and reconciliations close what they opened."""

    def round_of_all(number: int) -> None:
        table.run(output=str(tmp_path / f"out{number}"))
        preview(table.spec(), Settings())
        reconcile(Settings())
        job = Job("a", MODELS[table.provider], prompt="hello", max_tokens=32)
        batch = Batch(results_dir=str(tmp_path / f"jobs{number}")).add_job(**job.to_dict())
        batch.run(wait=True)

    round_of_all(0)
    before = in_use()
    for number in range(1, TIMES + 1):
        round_of_all(number)
    files, threads = in_use()
    assert files <= before[0] + 2
    assert threads <= before[1] + 1
    assert adapters.made == adapters.closed > 0


def test_what_a_refused_run_opened_is_closed(table: Table, adapters: Adapters) -> None:
    """A dataset that another run holds, a spec that is wrong: nothing stays open either."""
    with hold_dataset(str(table.output), Settings()), pytest.raises(AlreadyRunningError):
        table.run()
    with pytest.raises(InputError):
        preview(table.spec(where="{{ nothing }}", on_null="error"), Settings())
    assert adapters.made == adapters.closed > 0


def test_a_call_under_way_is_not_cut_off(
    table: Table, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is left closes nothing that one of its threads may still use for a create."""
    monkeypatch.setattr("batchata_tasks.pipeline.scheduler._JOIN_SECONDS", 0.1)
    creating, answered = threading.Event(), threading.Event()
    create = provider_type(table.provider).create

    def slow(*words: Any) -> Any:
        creating.set()
        answered.wait(PATIENCE)
        return create(*words)

    monkeypatch.setattr(provider_type(table.provider), "create", slow)
    progress = silent()

    def leave() -> None:
        creating.wait(PATIENCE)
        assert progress.handle is not None
        progress.handle.abandon()

    leaving = threading.Thread(target=leave)
    leaving.start()
    with pytest.raises(InterruptedRunError):
        enrich(table.spec(), progress=progress)
    leaving.join()
    assert adapters.made > adapters.closed == 0
    answered.set()
    until(lambda: all(thread.name != "chunk" for thread in threading.enumerate()))


def test_a_provider_by_itself_is_closed_by_its_user(table: Table, adapters: Adapters) -> None:
    """A `with` block, or `close`, ends it; what it opens for another endpoint is closed at once."""
    kind = AnthropicProvider if table.provider == "anthropic" else OpenAIProvider
    with kind() as provider:
        assert provider.create_batch([Job("a", MODELS[table.provider], prompt="hello")])
    assert (adapters.made, adapters.closed) == (1, 1)
    with pytest.raises((RuntimeError, BatchataError)):
        provider.look("batch_1")
