"""The events of a run: which happen, and what they tell."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.flows.events import COMMON, EVENTS
from tests.support.paths import ROOT
from tests.support.stuck import stick
from tests.support.table import Table, open_batches

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=6)


def told(receipt: Receipt) -> dict[str, dict[str, Any]]:
    """Return the facts of the events of a run, by their names."""
    facts = {
        event.name.removeprefix("batchata."): event.payload(receipt)
        for event in EVENTS
        if event.happened(receipt)
    }
    return json.loads(json.dumps(facts))


def test_rows_that_land_are_an_event(table: Table) -> None:
    """A run that lands nothing is none, so that nobody downstream is woken for it."""
    (landed,) = told(table.run()).values()
    assert landed["outcomes"] == {"succeeded": 6}
    assert landed["dataset"] == str(table.output / "data")
    assert told(table.run()) == {}


def test_failed_rows_are_an_event(table: Table) -> None:
    """It tells how many, and why."""
    table.emulator.control.faults(kind="request_refusal", contains="row 4")
    events = told(table.run(fail_if={"failed_share": 0.1}))
    assert set(events) == {"rows-landed", "rows-failed"}
    failed = events["rows-failed"]
    assert (failed["failed_share"], failed["failed_above_limit"]) == (1 / 6, True)
    assert list(failed["errors"].values()) == [1]


def test_limits_are_events(table: Table) -> None:
    """Of cost, with what was not sent; and of time."""
    events = told(table.run(cost_limit_usd=0.000001))
    assert set(events) == {"cost-limit-reached"}
    assert events["cost-limit-reached"]["unsent_rows"] == 6
    with open_batches(table.emulator):
        events = told(table.run(time_limit="1s"))
    assert "time-limit-reached" in events


def test_a_run_that_stopped_is_an_event(table: Table) -> None:
    """With the reason, which is a sentence."""
    table.emulator.control.faults(kind="request_refusal")
    events = told(table.run(pilot={"rows": 2, "max_invalid_share": 0}))
    assert "pilot" in events["run-stopped"]["reason"]


def test_a_batch_that_does_not_end_is_an_event(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are held, and their money stays reserved, until somebody decides."""
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    stick(table)
    held = told(table.run(time_limit="1s"))["rows-held"]
    assert held["held_rows"] == 6
    assert float(held["reserved_usd"]) > 0


def test_a_changed_spec_is_drift(table: Table) -> None:
    """Rows that had landed are sent again for it; rows that are new or changed are no drift."""
    table.run()
    table.values[0]["text"] = "changed"
    table.values.append({"id": "k6", "text": "new", "note": ""})
    table.write()
    assert set(told(table.run())) == {"rows-landed"}
    drift = told(table.run(prompt="Say: {{ text }}"))["drift"]
    assert drift["reasons"] == {"prompt": 7}


def test_each_event_is_documented_with_its_facts() -> None:
    """The page lists all of them, and nothing else."""
    page = (ROOT / "docs" / "prefect.md").read_text(encoding="utf-8")
    section = page.partition("\n## Events\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `batchata.")]
    documented = {
        names[0]: names[1:] for names in (re.findall(r"`([a-z_.-]+)`", row) for row in rows)
    }
    assert documented == {event.name: [*event.facts, *event.of_plan] for event in EVENTS}
    above = section.partition("| event |")[0]
    assert [name for name in COMMON if f"`{name}`" not in above] == []
