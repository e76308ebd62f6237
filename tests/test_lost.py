"""Files that were lost between runs: the dataset, the ledger, Prefect's results. No row is paid for twice."""

from __future__ import annotations

import shutil
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from batchata_tasks.emulator import answer_text
from batchata_tasks.ledger import Ledger
from batchata_tasks.poll import look_once
from batchata_tasks.pricing import usd
from batchata_tasks.session import make_ready
from batchata_tasks.settings import Settings
from tests.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator


@pytest.fixture(params=MODELS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of twelve rows, for each provider."""
    return Table(tmp_path, emulator, request.param, rows=12)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def die_with_batches_open(table: Table, monkeypatch: pytest.MonkeyPatch, looks: int = 3, **changes: Any) -> None:
    """Run until some batches landed and others are open at the provider; then die."""
    table.emulator.control.progress("reads", 1)
    left = iter([look_once] * looks)
    with monkeypatch.context() as dying:
        dying.setattr("batchata_tasks.poll.look_once", lambda *asked: next(left, interrupt)(*asked))
        with pytest.raises(KeyboardInterrupt):
            table.run(items_per_batch=3, max_parallel_batches=1, **changes)
    assert table.ledger()["requests_accepted"] == 6
    assert len(table.rows()) == 3


def check(table: Table) -> None:
    """Each row once with its own answer, sent once, and money that adds up to the last digit."""
    rows, builder = table.rows(), make_ready(table.spec(), Settings()).table.builder
    assert [row["_attempts"] for row in rows] == [1] * 12
    for row, value in zip(rows, sorted(table.values, key=lambda value: value["id"]), strict=True):
        body = builder.body(value, lambda: "")
        assert (row["id"], row["_response"]) == (value["id"], answer_text(table.provider, orjson.loads(body)))
    assert table.ledger()["accepted_twice"]["number"] == 0
    assert table.ledger()["requests_accepted"] == 12
    ledger = Ledger(Settings().ledger_url)
    settled = sum(ledger.money(run.id)[0] for run in ledger.runs_of(None, 100))
    assert all(ledger.money(run.id)[1] == 0 for run in ledger.runs_of(None, 100))
    ledger.close()
    assert sum((row["_cost_usd"] for row in table.rows()), Decimal(0)) == usd(settled)


@pytest.mark.parametrize("what", ["the dataset's folder", "the rows alone"])
def test_a_deleted_dataset_comes_back_from_the_provider(table: Table, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Deleted with batches landed and open: all of it is fetched again, and only what never was sent is sent."""
    die_with_batches_open(table, monkeypatch)
    shutil.rmtree(table.output if what == "the dataset's folder" else table.output / "data")
    receipt = table.run(items_per_batch=3)
    assert (receipt.plan["recovered"], receipt.exit_code) == (6 if what == "the dataset's folder" else 3, 0)
    check(table)
