"""The schedule fires, and a lost worker does not stop it: on a real server with real workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from batchata_tasks.emulator import EmulatorProcess
from tests.support.schedule.lost_worker import lost_worker
from tests.support.team import EVERY_MINUTE, NIGHTLY, Team

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.prefect_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def team(tmp_path: Path, server: Server) -> Iterator[Team]:
    """Return a team with a copy of the repository's deployments; its worker ends with the test."""
    with EmulatorProcess(anonymous=True) as emulator:
        team = Team(tmp_path / "team", server, emulator)
        try:
            yield team
        finally:
            team.lose_worker()
            team.prefect("deployment", "delete", f"enrich/{team.name}")


def test_two_runs_start_by_themselves(team: Team) -> None:
    """`prefect.yaml` runs as it is, with its cron set to every minute.

    One run lands the rows, the next sends nothing, and there is no error.
    """
    team.schedule(EVERY_MINUTE)
    team.prefect("work-pool", "create", "local", "--type", "process")
    team.prefect("--no-prompt", "deploy", "--all")
    team.start_worker("local")
    first, second = team.until(lambda: team.ended()[:2] if len(team.ended()) > 1 else None, 300)
    assert [run["created_by"]["type"] for run in (first, second)] == ["SCHEDULE", "SCHEDULE"]
    assert [run["state_name"] for run in (first, second)] == ["Completed", "Completed"]
    assert "400 succeeded" in first["state"]["message"]
    assert "nothing to send" in second["state"]["message"]
    assert pq.read_table(team.ledger.output / "data").num_rows == 400
    assert team.emulator.control.ledger()["anthropic"]["requests_accepted"] == 400
    assert team.server.errors() == []


@pytest.mark.nights
@pytest.mark.parametrize(
    ("cron", "taken_up_by"),
    [(EVERY_MINUTE, "a later run of the schedule"), (NIGHTLY, "the same run")],
)
def test_a_lost_worker_does_not_stop_the_schedule(team: Team, cron: str, taken_up_by: str) -> None:
    """Worker and run are killed while batches are out: within three minutes all rows are landed.

    Nothing is sent twice, and people are notified. It is done by the next run of the schedule, or,
    if none is due for hours, by the run itself, which the automations start again.
    """
    fate = lost_worker(team, "polling", cron)
    assert not fate.problems, fate
    assert fate.taken_up_by == taken_up_by
