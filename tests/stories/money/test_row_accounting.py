"""The table of what becomes of rows and money is complete, adds up, and can be made again."""

from __future__ import annotations

import importlib.util
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.emulator.core.fault_kinds import KINDS
from tests.support.paths import ROOT
from tests.support.table import APIS

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from batchata_tasks.emulator import Emulator

SCRIPT = ROOT / "benchmarks" / "row_accounting.py"
PAGE = SCRIPT.with_suffix(".md").read_text(encoding="utf-8")
LINES = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| ---")
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


# batches that do not end, and creates of which nobody can tell what became of them
OPEN = {
    *("cancel_conflict", "cancel_ignored", "stuck_finalizing", "html_413"),
    *("fails_billed", "forgets", "request_missing"),
}
TABLE = [dict(zip(cells(LINES[0]), cells(line), strict=True)) for line in LINES[1:]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the script, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("row_accounting", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "row_accounting", module)
    spec.loader.exec_module(module)
    return module


def test_the_table_knows_every_fault() -> None:
    """Every fault of the emulator is in the table, with each API."""
    (head,) = [line for line in PAGE.splitlines() if line.startswith("Kinds: ")]
    assert head.removeprefix("Kinds: ").split(", ") == list(KINDS)
    assert [(line["fault"], line["API"]) for line in TABLE] == [
        (kind, api) for kind in KINDS for api in APIS
    ]


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, id=f"{line['fault']}-{line['API']}") for line in TABLE],
)
def test_what_was_billed_is_in_the_books(line: dict[str, str]) -> None:
    """Settled money is the bill, or exceeds it by the overhead.

    Nothing stays in flight after the end, but for what is held.
    """
    billed, settled, overhead, flying = (
        Decimal(line[name]) for name in ("billed $", "settled $", "of it overhead $", "in flight $")
    )
    if (line["fault"], line["API"]) == ("repeats_create", "anthropic"):
        assert billed == 2 * settled  # its lists do not tell: `reconcile` counts the second batch
    else:
        assert billed <= settled + flying
    assert settled <= billed + overhead
    assert flying == 0 or line["exit"] == "1" or line["fault"] in OPEN
    assert line["next run"][0] in "03"


@pytest.mark.parametrize(
    "kind",
    ["drop_after", "batch_expires", "request_truncated", "request_failed", "request_unknown_id"],
)
def test_the_table_can_be_made_again(
    emulator: Emulator, tmp_path: Path, script: ModuleType, kind: str
) -> None:
    """The committed lines are those that the pipeline produces today."""
    assert list(script.lines([kind], emulator, tmp_path)) == [
        line for line in LINES[1:] if cells(line)[0] == kind
    ]
