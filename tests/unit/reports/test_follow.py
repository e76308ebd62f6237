"""`status --follow` shows an open run of another process until it ends, and disturbs nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.settings import Settings
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.follow import Followed, follow
from tests.support.books import run_with, stopping_at
from tests.support.table import Table, open_batches
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 6


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "openai", rows=ROWS)


def looks_at(table: Table, lines: list[str]) -> Followed:
    return follow(table.spec(), Settings(), LineProgress(lines.append))


def test_a_run_is_followed_to_its_end(table: Table) -> None:
    """What the run itself reports of its batches is reported, and how it ended comes back."""
    lines, ends = list[str](), list[Followed]()
    with open_batches(table.emulator):
        work = threading.Thread(target=table.run, kwargs={"items_per_batch": 3})
        work.start()
        until(lambda: table.ledger()["requests_accepted"] == ROWS)
        looker = threading.Thread(target=lambda: ends.append(looks_at(table, lines)))
        looker.start()
        until(lambda: sum(line.endswith("at the provider") for line in lines) == 2)
        assert not ends
    work.join()
    looker.join()
    (followed,) = ends
    assert lines[0] == "planned: 6 requests in 2 batches, 0 rows up to date"
    assert {line for line in lines if line.endswith("landed")} == {
        "batch 1 (3 rows): landed",
        "batch 2 (3 rows): landed",
    }
    assert (followed.ended, followed.exit_code, followed.text()) == (True, 0, None)
    assert followed.run is not None
    assert followed.run["outcomes"] == {"succeeded": ROWS}


def test_it_ends_with_the_exit_code_of_the_run(table: Table) -> None:
    """A row that failed is told as the run tells it: exit code 3."""
    table.emulator.control.faults(kind="request_refusal", contains="row 2")
    ends = list[Followed]()
    with open_batches(table.emulator):
        work = threading.Thread(target=table.run)
        work.start()
        until(lambda: table.ledger()["requests_accepted"] == ROWS)
        looker = threading.Thread(target=lambda: ends.append(looks_at(table, [])))
        looker.start()
    work.join()
    looker.join()
    assert ends[0].exit_code == 3


def test_without_an_open_run_it_says_so(table: Table) -> None:
    """There is none before the first run, and none after one has ended."""
    assert looks_at(table, []).text() == "No run of table is open."
    table.run()
    lines = list[str]()
    followed = looks_at(table, lines)
    assert (followed.text(), followed.exit_code) == ("No run of table is open.", 0)
    assert lines == []


def test_a_run_without_a_process_is_told(table: Table) -> None:
    """A run that was killed is open, and nobody is at work on it: that ends the looking."""
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _chunk: True, KeyboardInterrupt()))
    followed = looks_at(table, lines := [])
    assert (followed.exit_code, followed.ended) == (1, False)
    assert followed.text() == (
        "No process is at work on the open run of table: start it again, and it carries on."
    )
    assert "batch 1 (6 rows): at the provider" in lines
    assert table.run().outcomes == {"succeeded": ROWS}
