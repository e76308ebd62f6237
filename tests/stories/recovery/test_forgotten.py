"""Batches that another server was sent than the one that is asked: told at once, never waited for.

An emulator that is started anew has forgotten its batches, also at the same address.
"""

from __future__ import annotations

from contextlib import contextmanager
from shutil import rmtree
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import OtherAccountError
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import Emulator
from batchata_tasks.operations.cancel import cancel
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.progress.listener import LineProgress
from tests.support.books import run_with, stopping_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.table import Table

pytestmark = pytest.mark.in_turn

ROWS = 4


@contextmanager
def served(
    table: Table, patch: pytest.MonkeyPatch, *, port: int = 0, anonymous: bool = False
) -> Iterator[int]:
    """Let another emulator serve the table's runs; yield its port."""
    with Emulator(port=port, anonymous=anonymous) as emulator:
        for name, value in emulator.env().items():
            patch.setenv(name, value)
        table.emulator = emulator
        yield int(emulator.url.rpartition(":")[2])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs be patient; return what they tell."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "20")
    return []


def refusal(table: Table, told: list[str]) -> str:
    with pytest.raises(OtherAccountError) as refused:
        enrich(table.spec(), progress=LineProgress(told.append))
    assert not any("Trying again" in note for note in told)
    assert table.ledger()["requests_accepted"] == 0
    return str(refused.value)


@pytest.mark.parametrize("anonymous", [False, True], ids=["emulators", "others"])
def test_another_address_is_told_at_once(
    table: Table, told: list[str], monkeypatch: pytest.MonkeyPatch, *, anonymous: bool
) -> None:
    """One look tells which batch, where it was sent, who is asked, and the two ways out."""
    with served(table, monkeypatch, anonymous=anonymous) as first:
        table.run()
        (batch,) = [line["id"] for line in table.ledger()["batches"]]
    rmtree(table.output)
    with served(table, monkeypatch, anonymous=anonymous) as second:
        text = refusal(table, told)
        for part in (
            f"batch {batch} was sent to http://127.0.0.1:{first}/",
            f"http://127.0.0.1:{second}/",
            "set the address as it was",
            f"`batchata reconcile --abandon {batch}`",
        ):
            assert part in text
        done = CliRunner().invoke(app, ["reconcile", "--abandon", batch])
        assert done.exit_code == 0, done.output
        assert table.run().outcomes == {"succeeded": ROWS}


def test_an_emulator_that_was_started_anew_has_forgotten(
    table: Table, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is the same, but no answer will come: the sentence says so, without a wait.

    A run goes on without such batches; what asks for one is told.
    """
    with served(table, monkeypatch) as port:
        table.emulator.control.progress("reads", 10**6)
        with pytest.raises(KeyboardInterrupt):
            run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()))
        (batch,) = [line["id"] for line in table.ledger()["batches"]]
    with served(table, monkeypatch, port=port):
        with pytest.raises(OtherAccountError) as refused:
            cancel(table.spec(), Settings(), LineProgress(told.append))
        text = str(refused.value)
        assert f"batch {batch} was sent to the emulator at http://127.0.0.1:{port}/" in text
        assert f"`batchata reconcile --abandon {batch}`" in text
        assert not any("Trying again" in note for note in told)
        assert table.run().outcomes == {"succeeded": ROWS}


def test_a_batch_that_is_not_found_yet_is_waited_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 of the server that it was sent to, right after the create, is no such case."""
    with served(table, monkeypatch):
        table.emulator.control.faults(kind="not_found", count=2)
        assert table.run().outcomes == {"succeeded": ROWS}
