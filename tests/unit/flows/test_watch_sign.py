"""The sign that `watch` leaves for a ledger, on a Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.variables import Variable

from batchata_tasks.flows.flow_runs import PrefectFlowRuns
from batchata_tasks.flows.watch_sign import leave_sign, why_unwatched
from tests.support.prefect_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEDGER = "4f" * 20
NAME = f"batchata_watch_{LEDGER}"


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[None]:
    """Use a Prefect server of the module's own."""
    with (
        Server(tmp_path_factory.mktemp("prefect"), prefect_database) as running,
        temporary_settings({PREFECT_API_URL: running.url}),
    ):
        yield


def test_a_sign_counts_for_its_own_ledger_and_for_ten_minutes() -> None:
    """Runs are suspended if scheduled passes look at their own ledger, and did so lately."""
    assert "no scheduled pass of `watch` has looked" in str(why_unwatched(LEDGER, ()))
    for _ in range(2):
        PrefectFlowRuns(repeated=True).leave_sign(LEDGER, (), 0)
        assert why_unwatched(LEDGER, ["a run"]) is None
    assert why_unwatched("a0" * 20, ()) is not None
    for minutes, told in ((-11, "`watch` last looked 11 min ago"), (11, "no scheduled pass")):
        moment = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        Variable.set(NAME, {"looked_at": moment}, overwrite=True)
        assert str(why_unwatched(LEDGER, ())).startswith(told)  # the other clock was ahead


def test_runs_whose_batches_cannot_be_seen_wait_in_their_processes() -> None:
    """Only the runs that the sign excepts do; the next sign may know better."""
    leave_sign(LEDGER, ["run1", "run2"])
    assert "cannot look at its batches" in str(why_unwatched(LEDGER, ["run0", "run2"]))
    assert why_unwatched(LEDGER, ["run3"]) is None
    leave_sign(LEDGER, ())
    assert why_unwatched(LEDGER, ["run2"]) is None


def test_many_runs_fit_into_a_sign() -> None:
    """A variable holds 5,000 characters, which a thousand runs do not break."""
    leave_sign(LEDGER, [f"{number:040x}" for number in range(1000)])
    assert why_unwatched(LEDGER, [f"{0:040x}"]) is not None


@pytest.mark.parametrize("value", ["edited by hand", "[]", {"looked_at": 7}, None, [1]])
def test_a_sign_that_people_edited_is_none(value: object) -> None:
    """Then runs wait in their processes until the next pass leaves a sign."""
    Variable.set(NAME, value, overwrite=True)  # pyright: ignore[reportArgumentType]
    assert "no scheduled pass" in str(why_unwatched(LEDGER, ()))
