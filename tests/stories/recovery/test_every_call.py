"""A fault at every single HTTP call of a run, one run for each call.

Nothing is lost or paid twice, whichever call it is.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import BatchataError
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

    Make = Callable[..., Table]

pytestmark = pytest.mark.in_turn

PER_BATCH = 4
ALIKE = 12  # rows: three batches of one size, whose creates wait for each other while unclear
UNLIKE = 7  # rows: two batches that differ in size
WRITES = ("upload", "create")
DOWNLOADS = ("results", "content")
ROUTES = {
    "anthropic": ("create", "get", "results"),
    "openai": ("upload", "create", "get", "content"),
}
# the routes of each fault: an answer may be lost on each, and for reads it is the same whether the
# call was lost before it did anything
MEETS = {
    "http_500_after": (*WRITES, "get", *DOWNLOADS),
    "drop_after": (*WRITES, "get", *DOWNLOADS),
    "http_500_before": WRITES,
    "drop_before": WRITES,
    "cut_download": DOWNLOADS,
}
# a create of unknown fate, accepted or not: it makes a run look through the account's batches
DOUBTS = ("drop_after", "drop_before")
CUT = 400  # bytes: within the first result line
_UNDISTURBED: dict[tuple[str, int], dict[str, int]] = {}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait little, since no promise here is about time, and make few calls: each gets a fault."""
    monkeypatch.setattr("batchata_tasks.execution.unclear._FIRST_PAUSE", 1.0)
    monkeypatch.setenv("BATCHATA_POLL_INTERVAL", "0.02")
    for sdk in MODELS:
        monkeypatch.setattr(f"{sdk}._base_client.INITIAL_RETRY_DELAY", 0.02)


@pytest.fixture
def fresh(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a maker of tables: each has a new folder, an empty ledger and an empty provider."""
    numbers: Iterator[int] = count()

    def make(provider: str, rows: int = ALIKE) -> Table:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{folder / 'ledger.db'}")
        emulator.control.reset()
        return Table(folder, emulator, provider, rows)

    return make


def run_to_the_end(table: Table) -> str:
    """Run once, and once more if that ended in an error, which is returned."""
    try:
        assert table.run(items_per_batch=PER_BATCH).exit_code == 0
    except BatchataError as error:
        assert table.run(items_per_batch=PER_BATCH).exit_code == 0
        return str(error)
    return ""


def batches_of(table: Table) -> int:
    return -(-len(table.values) // PER_BATCH)


def check(table: Table) -> None:
    """Check that each key has one row with its own answer, and one accepted request."""
    rows = table.rows()
    assert [row["id"] for row in rows] == sorted(value["id"] for value in table.values)
    assert {row["_status"] for row in rows} == {"succeeded"}
    table.check_answers()
    book = table.ledger()
    assert book["accepted_twice"]["number"] == 0
    assert (book["requests_accepted"], book["batches_accepted"]) == (
        len(table.values),
        batches_of(table),
    )


def calls_of(table: Table, *routes: str, **doubt: Any) -> dict[str, int]:
    """Return how many calls of each route a run makes that has no fault but `doubt`."""
    control = table.emulator.control
    for route in routes:
        control.faults(kind="slow", route=route, nth=10**9)  # only counts
    if doubt:
        control.faults(**doubt)
    assert not run_to_the_end(table)
    check(table)
    return {
        rule["route"]: rule["calls"] for rule in control.list_faults() if rule["kind"] == "slow"
    }


def undisturbed(fresh: Make, provider: str, rows: int) -> dict[str, int]:
    """Return how many calls of each route a run without a fault makes."""
    if (provider, rows) not in _UNDISTURBED:
        table, routes = fresh(provider, rows), ROUTES[provider]
        calls = _UNDISTURBED[provider, rows] = calls_of(table, *routes, "list")
        assert calls == dict.fromkeys(routes, batches_of(table)) | {
            "get": 2 * batches_of(table),
            # before each create, and once more where lists tell what was accepted twice
            "list": batches_of(table) + (provider == "openai"),
        }
    return _UNDISTURBED[provider, rows]


def strikes_of(table: Table, *rules: dict[str, Any]) -> list[int]:
    """Run under these faults and check the result.

    Returns how often each fault struck.
    """
    for rule in rules:
        table.emulator.control.faults(**rule)
    error = run_to_the_end(table)
    try:
        check(table)
    except AssertionError as wrong:
        message = f"{rules} {error}: {wrong}"
        raise AssertionError(message) from wrong
    return [rule["strikes"] for rule in table.emulator.control.list_faults()]


@pytest.mark.parametrize("fault", MEETS)
@pytest.mark.parametrize("provider", MODELS)
def test_a_fault_at_any_call_costs_nothing(fresh: Make, provider: str, fault: str) -> None:
    """After a fault at the nth call of each route, for every n, each key has its own answer.

    It was accepted once, and the exit code is 0.
    """
    for rows, routes in ((ALIKE, WRITES), (UNLIKE, ("get", *DOWNLOADS))):
        calls = undisturbed(fresh, provider, rows)
        for route in (route for route in routes if route in MEETS[fault]):
            for nth in range(1, calls.get(route, 0) + 1):
                rule = {"kind": fault, "route": route, "nth": nth, "after_bytes": CUT}
                assert strikes_of(fresh(provider, rows), rule) == [1], rule


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("provider", MODELS)
def test_a_fault_while_a_create_is_in_doubt_costs_nothing(
    fresh: Make, provider: str, doubt: str
) -> None:
    """A create's answer is lost, then that of the nth call of the search for it, for every n.

    Each key has its own answer, accepted once, and the exit code is 0.
    """
    unclear = {"kind": doubt, "route": "create", "nth": 2}
    routes = ("list", "results") if provider == "anthropic" else ("list",)
    calls = calls_of(fresh(provider), *routes, **unclear)
    assert calls["list"] >= 1
    struck = 0
    for route, number in calls.items():
        faults = ("http_500_after", "drop_after") if route == "list" else ("cut_download",)
        for fault, nth in ((fault, nth) for fault in faults for nth in range(1, number + 1)):
            rule = {"kind": fault, "route": route, "nth": nth, "after_bytes": CUT}
            struck += strikes_of(fresh(provider), unclear, rule)[1]
    assert struck >= len(calls)
