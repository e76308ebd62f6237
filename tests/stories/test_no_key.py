"""What sends nothing needs no key: a check in CI, say, has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import CredentialsError
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.reports.plan import preview
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY")


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, request.param, rows=3)


def test_a_plan_is_made_without_a_key(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which variable a run needs, and is the same otherwise."""
    with_key = preview(table.spec(), Settings(), sample=1).to_json()
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    without = preview(table.spec(), Settings(), sample=1).to_json()
    (text,) = without.pop("in_the_way")
    assert text == f"{table.provider.upper()}_API_KEY is not set: `run` needs it"
    assert with_key.pop("in_the_way") == []
    assert without == with_key


def test_a_run_is_refused_without_a_key(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that made a plan before: nothing is sent."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    preview(table.spec(), Settings())
    with pytest.raises(CredentialsError, match=f"{table.provider.upper()}_API_KEY is not set"):
        table.run()
    assert table.ledger()["requests_accepted"] == 0


def test_a_dataset_is_kept_in_order_without_a_key(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept answers are read where no key is."""
    table.run()
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    assert revalidate(table.spec(response_schema=None), Settings()).kept == 3
