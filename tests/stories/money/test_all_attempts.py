"""What further attempts may cost is told before the first one is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError
from batchata_tasks.pipeline import spending
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.plan import preview
from tests.support.books import billed
from tests.support.jobs import sent
from tests.support.table import APIS, Table, finish_all, open_batches

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator


def upper_bounds(table: Table, **changes: Any) -> tuple[int, int]:
    """Return the plan's upper bounds of one attempt at each row, and of all."""
    plan = preview(table.spec(**changes), Settings()).to_json()
    of_all = pico_from_usd(plan["upper_bound_of_all_attempts_usd"])
    return pico_from_usd(plan["upper_bound_usd"]), of_all


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("ends", ["at its cap", "invalid", "cut off"])
def test_no_run_costs_more_than_its_plan_says(
    emulator: Emulator, tmp_path: Path, api: str, ends: str
) -> None:
    """Without a limit, rows go again up to `max_attempts`, within the bound of all attempts."""
    table = Table(tmp_path, emulator, api, rows=6)
    if ends == "at its cap":
        emulator.control.answers("lognormal", mean=6000.0, sigma=0.1)
    else:
        fault = "request_invalid_answer" if ends == "invalid" else "request_truncated"
        emulator.control.faults(kind=fault, share=1.0)
    first, of_all = upper_bounds(table, max_tokens=1000)
    table.run(max_tokens=1000)
    assert 12 < sent(emulator) <= 18
    assert billed(table) <= of_all
    assert ends != "at its cap" or billed(table) > first


def test_open_batches_may_have_further_attempts(emulator: Emulator, tmp_path: Path) -> None:
    """The bound of all attempts counts those at rows that are at the provider."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    emulator.control.faults(kind="request_truncated", share=1.0)
    spec = table.spec(max_tokens=1000)
    with open_batches(emulator), pytest.raises(SuspendedRunError):
        run_prepared(prepare_run(spec, Settings()), letting_go=LettingGo(0))
    finish_all(emulator)
    first, of_all = upper_bounds(table, max_tokens=1000)
    assert first == 0
    before = billed(table)
    table.run(max_tokens=1000)
    assert sent(emulator) == 18
    assert 0 < billed(table) - before <= of_all


def test_one_attempt_has_one_bound(emulator: Emulator, tmp_path: Path) -> None:
    """Where rows are not sent again, both bounds are the same; each attempt adds to the second."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    first, of_all = upper_bounds(table, max_attempts=1)
    assert first == of_all == upper_bounds(table, rerun_on=["new"])[1]
    bounds = [upper_bounds(table, max_attempts=number)[1] for number in (1, 2, 3, 4)]
    assert bounds == sorted(set(bounds))


def test_people_are_asked_about_all_attempts(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question comes where all attempts, though not the first, may cost more than its bar."""
    table = Table(tmp_path, emulator, "anthropic", rows=6)
    first, of_all = upper_bounds(table)
    asked = list[str]()

    class Asking(LineProgress):
        def agreed(self, question: str) -> bool:
            asked.append(question)
            return True

    for bar in (of_all, first):
        monkeypatch.setattr(spending, "ASKED_ABOVE", bar)
        told = list[str]()
        run_prepared(prepare_run(table.spec(), Settings()), progress=Asking(told.append))
        assert any("with all attempts)" in text for text in told)
        assert asked == ([] if bar == of_all else ["Send it?"])
        table.values = [{**row, "text": f"{row['text']} again"} for row in table.values]
        table.write()
