"""An answer that a refresh kept is paid for once, whatever is lost and read anew after it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from tests.support.books import check_money
from tests.support.table import SCHEMA, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 8
ONCE: dict[str, Any] = {"max_attempts": 1}
WIDER: dict[str, Any] = {
    "max_attempts": 1,
    "response_schema": {
        **SCHEMA,
        "properties": {**SCHEMA["properties"], "label": {"type": "string"}},
    },
}


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


def lose(table: Table, what: str, spec: dict[str, Any]) -> None:
    """Lose files of the dataset, and the ledger before that if it is to be rebuilt."""
    own = table.output / "_batchata"
    if "rebuilt" in what:
        (table.folder / "ledger.db").rename(table.folder / "lost.db")
        rebuild(prepare_run(table.spec(**spec), Settings()), Settings())
    if "folder" in what:
        shutil.rmtree(table.output)
    if "parts" in what:
        shutil.rmtree(table.output / "data")
    if "manifests" in what:
        shutil.rmtree(own / "intents")
    if "first manifest" in what:
        min(own.glob("intents/*.arrow"), key=lambda path: path.stat().st_mtime_ns).unlink()
    if "commits" in what:
        shutil.rmtree(own / "commits")


@pytest.mark.parametrize(
    ("fault", "lost", "wider"),
    [
        ("request_error", "folder", True),
        ("request_error", "parts", True),
        ("request_error", "parts, manifests", True),
        ("request_error", "parts, first manifest", True),
        ("request_error", "parts, commits", True),
        ("request_error", "rebuilt, folder", True),
        ("request_error", "rebuilt, parts, first manifest", True),
        ("request_error", "parts, first manifest", False),
        ("request_expired", "parts, first manifest", False),
        ("request_invalid_answer", "folder", True),
        ("request_invalid_answer", "parts, first manifest", False),
    ],
)
def test_a_kept_answer_is_not_paid_for_again(
    table: Table, fault: str, lost: str, wider: bool
) -> None:
    """It comes back from its own batch's results, also under the model that read it anew."""
    table.run(**ONCE)
    table.emulator.control.faults(kind=fault, contains="row 4")
    table.run(Options(refresh_before=now_us()), **ONCE)
    spec = WIDER if wider else ONCE
    if wider:
        assert revalidate(table.spec(**spec), Settings()).kept == ROWS
    before = table.rows()
    lose(table, lost, spec)
    receipt = table.run(**spec)
    assert (receipt.plan["requests"], receipt.plan["up_to_date"]) in ((0, ROWS), (0, 0))
    said = ("id", "label", "words", "_response", "_status", "_error", "_fingerprint")
    assert [{k: row[k] for k in said} for row in table.rows()] == [
        {k: row[k] for k in said} for row in before
    ]
    assert table.ledger()["requests_accepted"] == 2 * ROWS
    assert table.run(**spec).plan["requests"] == 0
    check_money(table)
