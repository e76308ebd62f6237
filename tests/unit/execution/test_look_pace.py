"""The pace of looks is one for all runs of a ledger: after a refusal, and if much is open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import InterruptedRunError, LettingGo, SuspendedRunError
from batchata_tasks.execution.look_pace import LookPace, note_refusal
from batchata_tasks.ledger import Ledger, opened_ledger
from batchata_tasks.operations.watch import watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.providers import provider_type
from tests.support.table import Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.providers import Adapter
    from batchata_tasks.spec.enrichment import EnrichmentSpec


def looks(emulator: Emulator) -> int:
    """Return how many looks the provider refused."""
    return int(emulator.control.list_faults()[0]["strikes"])


class Waiting:
    """A run in a thread that is left at the end."""

    def __init__(self, spec: EnrichmentSpec) -> None:
        self.notes = list[str]()
        self.progress = LineProgress(self.notes.append)
        self._thread = threading.Thread(target=self._run, args=(spec,), daemon=True)
        self._thread.start()

    def _run(self, spec: EnrichmentSpec) -> None:
        with pytest.raises(InterruptedRunError):
            run_prepared(prepare_run(spec, Settings()), progress=self.progress)

    def leave(self) -> None:
        if self.progress.handle is not None:
            self.progress.handle.abandon()
        self._thread.join(PATIENCE)


@pytest.fixture
def waiting() -> Iterator[Callable[[EnrichmentSpec], Waiting]]:
    """Start runs that are left at the end of the test."""
    started = list[Waiting]()

    def start(spec: EnrichmentSpec) -> Waiting:
        started.append(Waiting(spec))
        return started[-1]

    yield start
    for one in started:
        one.leave()


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_refusal_to_one_run_is_heeded_by_all(
    emulator: Emulator,
    tmp_path: Path,
    provider: str,
    waiting: Callable[[EnrichmentSpec], Waiting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After one 429 with a Retry-After nobody looks, neither a second run nor `watch`."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "100")  # looks are ten times as patient
    first = Table(tmp_path, emulator, provider, rows=3)
    emulator.control.faults(kind="http_429", route="get", retry_after=600)
    with open_batches(emulator):
        waiting(first.spec())
        until(lambda: looks(emulator) == 1)
        second = waiting(first.spec(items_per_batch=1, output=str(tmp_path / "second")))
        until(lambda: sum("wants to be left alone for" in note for note in second.notes) == 3)
        (note,) = {note for note in second.notes if "left alone" in note}
        assert note.startswith(f"{provider} was asked too often")
        report = watch(Settings())
        assert (report.batches, report.calls) == (4, 0)
        assert [note.split(" for ")[0] for note in report.notes] == [
            f"{provider} was asked too often: it is left alone"
        ]
        assert looks(emulator) == 1


def test_a_pause_ends(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a run looks at nothing, and lets go all the same; then the batch lands."""
    table = Table(tmp_path, emulator, "openai", rows=3)
    with opened_ledger(Settings().ledger_url) as ledger:
        account = provider_type("openai")().account(ledger.id)
        ledger.pause_looks(account, 600)
    with pytest.raises(SuspendedRunError):
        run_prepared(prepare_run(table.spec(), Settings()), letting_go=LettingGo(0))
    now = Ledger.clock
    monkeypatch.setattr(
        Ledger, "clock", lambda ledger, connection: now(ledger, connection) + 601_000_000
    )
    receipt = run_prepared(prepare_run(table.spec(), Settings()))
    assert receipt.outcomes == {"succeeded": 3}


class Context:
    """What the pace needs of a run."""

    def __init__(self, ledger: Ledger, provider: Adapter, settings: Settings) -> None:
        self.ledger, self.provider, self.settings = ledger, provider, settings
        self.notes = list[str]()

    def log(self, text: str) -> None:
        self.notes.append(text)


def test_the_more_is_open_the_less_often_each_is_looked_at(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ninety open batches of three runs are looked at fifty times a minute, together."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with open_batches(emulator):
        for name in ("a", "b", "c"):
            table = Table(tmp_path / name, emulator, "openai", rows=30)
            spec = table.spec(items_per_batch=1, max_parallel_batches=30)
            with pytest.raises(SuspendedRunError):
                run_prepared(prepare_run(spec, Settings()), letting_go=LettingGo(0))
        monkeypatch.delenv("BATCHATA_POLL_INTERVAL")
        with opened_ledger(Settings().ledger_url) as ledger:
            provider = provider_type("openai")()
            pace = LookPace(Context(ledger, provider, Settings()))  # pyright: ignore[reportArgumentType]
            assert pace.wait(60) == (90 * 60 / 50, False)
            assert pace.wait(300) == (300, False)
            own = Context(ledger, provider, Settings(poll_interval=2))
            assert LookPace(own).wait(60) == (2, False)  # pyright: ignore[reportArgumentType]
            now = Ledger.clock
            monkeypatch.setattr(
                Ledger, "clock", lambda one, connection: now(one, connection) + 27 * 3_600_000_000
            )
            assert pace.wait(60) == (60, False)  # by now they have ended, seen or not


def test_no_server_pauses_a_ledger_for_years(emulator: Emulator) -> None:
    """A Retry-After of more than ten minutes counts for nothing; a shorter one cuts none."""
    assert emulator
    with opened_ledger(Settings().ledger_url) as ledger:
        note_refusal(ledger, "account", TransientError("x", 10**9, 429))
        assert ledger.looks_under("account").paused == 0
        note_refusal(ledger, "account", TransientError("x", 600, 429))
        note_refusal(ledger, "account", TransientError("x", 1, 429))
        note_refusal(ledger, "another", TransientError("x", 10, 503))
        note_refusal(ledger, "another", TransientError("x", None, 429))
        assert 590 < ledger.looks_under("account").paused <= 600
        assert ledger.looks_under("another").paused == 0


def test_a_clock_that_was_ahead_pauses_nothing(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause that was noted then counts for nothing once it is right, and hides no other."""
    assert emulator
    with opened_ledger(Settings().ledger_url) as ledger:
        now = Ledger.clock
        with monkeypatch.context() as ahead:
            ahead.setattr(
                Ledger, "clock", lambda one, connection: now(one, connection) + 30 * 86_400_000_000
            )
            ledger.pause_looks("account", 30)
            assert ledger.looks_under("account").paused > 0
        assert ledger.looks_under("account").paused == 0
        ledger.pause_looks("account", 20)
        assert 10 < ledger.looks_under("account").paused <= 20
