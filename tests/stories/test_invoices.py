"""The shipped invoices: what each says, and the page that says it, at both providers."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.settings import Settings
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.spec.loading import load_spec
from tests.support.launcher import ROOT
from tests.support.table import MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

# by the script that makes them: sender, number, day, net, total, and the page of the sums
TRUTH: list[tuple[str, str, date, float, float, int]] = [
    ("Weber & Sons Ltd", "2026-0117", date(2026, 1, 9), 84.5, 100.56, 1),
    ("Bäckerei Krüger GmbH", "R-4471", date(2026, 1, 12), 1249.5, 1486.9, 1),
    ("Harbour Cloud Inc", "INV-88", date(2026, 1, 31), 3109.4, 3700.19, 2),
    ("Müller Elektrotechnik", "20260203-1", date(2026, 2, 3), 5040.0, 5997.6, 2),
    ("Northwind Couriers", "7719", date(2026, 2, 5), 412.75, 491.17, 1),
    ("Studio Lindqvist", "A-2026-15", date(2026, 2, 14), 975.0, 1160.25, 1),
    ("Stadtwerke Altdorf", "RE-00092", date(2026, 2, 28), 2210.4, 2630.38, 1),
    ("Fresh Harvest Catering", "5530-B", date(2026, 3, 2), 828.3, 985.68, 1),
    ("Schreinerei Vogt", "2026/3", date(2026, 3, 9), 1480.0, 1761.2, 1),
]
FIELDS = ("sender", "invoice_number", "invoice_date", "net_amount", "total_due")


@pytest.mark.parametrize("provider", MODELS)
def test_each_field_of_an_invoice_has_the_page_that_states_it(
    emulator: Emulator, tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of both conventions, dates in words and digits, sums on a second page.

    The scan has no text that could be cited: it is told, and costs nothing.
    """
    monkeypatch.chdir(ROOT)
    changes = [f"output={tmp_path / 'out'}", f"model={MODELS[provider]}"]
    receipt = enrich(load_spec("deployments/specs/invoices.yaml", changes), settings=Settings())
    assert receipt.outcomes == {"errored": 1, "succeeded": 9}
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "out/data").to_pylist()
    *read, scan = sorted(rows, key=lambda row: row["name"])
    assert "has no text that could be cited" in scan["_error"]
    assert not scan["_cost_usd"]
    for row, (*fields, page) in zip(read, TRUTH, strict=True):
        assert [row[name] for name in FIELDS] == fields
        pages = {one["field"]: one["page_start"] for one in row["_citations"]}
        sums = dict.fromkeys(("net_amount", "total_due"), page)
        assert pages == dict.fromkeys(FIELDS, 1) | sums
        assert {(one["grade"], one["verified"]) for one in row["_citations"]} == {("high", True)}


@pytest.mark.parametrize("provider", MODELS)
def test_exact_amounts_are_read_as_they_stand(
    emulator: Emulator, tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with decimals has the amounts to the cent, in both conventions."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "models.py").write_text(EXACT)
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(tmp_path))
    changes = [
        f"output={tmp_path / 'out'}",
        f"model={MODELS[provider]}",
        f"response_model={tmp_path / 'models.py'}:Exact",
    ]
    enrich(load_spec("deployments/specs/invoices.yaml", changes), settings=Settings())
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "out/data").to_pylist()
    *read, _ = sorted(rows, key=lambda row: row["name"])
    expected = [Decimal(str(total)) for *_, total, _ in TRUTH]
    assert [row["total_due"] for row in read] == expected


EXACT = """
from decimal import Decimal

from pydantic import BaseModel, Field


class Exact(BaseModel):
    total_due: Decimal = Field(max_digits=12, decimal_places=2, description="Gesamtbetrag")
"""
