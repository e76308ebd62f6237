"""A dataset is filled by one spec: another one would replace its answers, and be replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.planning.summary import Options
from batchata_tasks.reports.plan import preview
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

WORDS = "is filled by the spec 'table', and this one is 'second': .*--take-over"


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=2)


@pytest.mark.parametrize("output", ["out", "out/", "x/../out", "link"])
def test_another_spec_is_refused(table: Table, output: str) -> None:
    """A plan and a run refuse it with both names and the remedy; nothing is sent."""
    table.run()
    (table.folder / "x").mkdir()
    (table.folder / "link").symlink_to(table.output)
    other = {"name": "second", "output": f"{table.folder}/{output}", "prompt": "Say: {{ text }}"}
    with pytest.raises(SpecError, match=WORDS):
        table.run(**other)
    with pytest.raises(SpecError, match=WORDS):
        preview(table.spec(**other), Settings())
    assert table.ledger()["requests_accepted"] == 2
    assert table.run().exit_code == 0


def test_a_spec_takes_over_once(table: Table) -> None:
    """From then on the dataset is the new spec's, and the old one is refused."""
    table.run()
    other = {"name": "second", "prompt": "Say: {{ text }}"}
    assert preview(table.spec(**other), Settings(), Options(take_over=True)).summary.requests == 2
    with pytest.raises(SpecError, match=WORDS):
        table.run(**other)
    table.run(Options(take_over=True), **other)
    table.run(**other)
    with pytest.raises(SpecError, match="is filled by the spec 'second', and this one is 'table'"):
        table.run()
    assert table.ledger()["requests_accepted"] == 4


def test_a_run_that_is_refused_takes_nothing_over(table: Table) -> None:
    """The spec that fills the dataset goes on."""
    table.run()
    table.values[1]["id"] = table.values[0]["id"]
    table.write()
    with pytest.raises(SourceError, match="the same key"):
        table.run(Options(take_over=True), name="second")
    table.values[1]["id"] = "another"
    table.write()
    assert table.run().outcomes == {"succeeded": 1}


def test_an_empty_dataset_is_anybodys(table: Table) -> None:
    """A spec may be renamed as long as nothing was sent."""
    table.values[1]["id"] = table.values[0]["id"]
    table.write()
    with pytest.raises(SourceError, match="the same key"):
        table.run()
    table.values[1]["id"] = "another"
    table.write()
    assert table.run(name="second").outcomes == {"succeeded": 2}


def test_a_dataset_of_the_first_versions_is_its_newest_runs(table: Table) -> None:
    """Its owner.json names no spec: the ledger knows the newest run's, which is noted."""
    table.run()
    path = table.output / "_batchata/owner.json"
    owner = orjson.loads(path.read_bytes())
    assert owner.pop("spec") == "table"
    path.write_bytes(orjson.dumps({**owner, "format": 1}))
    with pytest.raises(SpecError, match=WORDS):
        table.run(name="second")
    table.run()
    assert orjson.loads(path.read_bytes()) == {**owner, "format": 2, "spec": "table"}
    assert table.ledger()["requests_accepted"] == 2
