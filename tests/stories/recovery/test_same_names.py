"""Servers that count their batches, so that two of them, or one that restarted, name two alike."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.reconcile_report import ReconcileRequest
from batchata_tasks.planning.prepare import prepare_run
from tests.support.books import run_with, stopping_at
from tests.support.operations import reconcile
from tests.support.table import MODELS, Table
from tests.support.unclear import in_state

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

ROWS = 3


class Counting:
    """Ids of batches that count from 1, until the server restarts."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._numbers = count(1)

    def __call__(self, prefix: str, *_: int) -> str:
        return f"{prefix.rstrip('_01')}_{next(self._numbers)}"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "0.2")
    ids = Counting()
    monkeypatch.setattr("batchata_tasks.emulator.openai.batch.new_id", ids)
    monkeypatch.setattr("batchata_tasks.emulator.anthropic.api.new_id", ids)
    return ids


@pytest.fixture(params=MODELS)
def tables(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> list[Table]:
    """Return two tables of one provider, each with a dataset of its own."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    return [Table(folder, emulator, request.param, ROWS) for folder in folders]


def restart(table: Table, counting: Counting) -> None:
    """Let the next batch be of a server that forgot everything, or of another one."""
    table.emulator.control.reset()
    counting.restart()


def test_a_second_batch_of_one_name_is_held_with_a_reason(
    tables: list[Table], counting: Counting
) -> None:
    """The run says so and ends with 3; `reconcile` repeats it and adopts nothing wrong."""
    one, two = tables
    one.run()
    restart(one, counting)
    receipt = two.run()
    assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    (chunk,) = in_state(ChunkState.HELD)
    (warning,) = receipt.warnings
    assert "the answer named batch" in warning
    for report in (reconcile(), reconcile()):
        (doubt,) = report.doubts
        assert (doubt.chunk, report.adopted) == (chunk, {})
        assert "as another one of the ledger is named" in (doubt.error or "")
    (batch,) = [line["id"] for line in two.ledger()["batches"]]
    with pytest.raises(SpecError, match="another chunk's"):
        reconcile(ReconcileRequest(adopt={chunk: batch}))


@pytest.mark.parametrize("landed", [True, False])
def test_a_dataset_whose_batch_has_anothers_name_is_rebuilt(
    tables: list[Table], counting: Counting, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    """Its rows and costs are restored; one that waits for such a batch is held."""
    one, two = tables
    elsewhere = f"sqlite:///{two.folder / 'two.db'}"
    one.run()
    restart(one, counting)  # as another server, with a key of its own
    one.emulator.control.faults(kind="lists_unproven")
    monkeypatch.setenv(f"{one.provider.upper()}_API_KEY", "another-key")
    with monkeypatch.context() as patch:
        patch.setenv("BATCHATA_LEDGER_URL", elsewhere)
        if landed:
            two.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                run_with(two, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
    with closing(prepare_run(two.spec(), Settings())) as ready:
        rebuild(ready, Settings())
    receipt = two.run()
    if landed:
        assert (receipt.exit_code, receipt.plan["up_to_date"]) == (0, ROWS)
    else:
        assert (receipt.exit_code, receipt.held_rows) == (3, ROWS)
    assert two.ledger()["requests_accepted"] == ROWS
