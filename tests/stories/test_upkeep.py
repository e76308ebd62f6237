"""What keeps a dataset in order: small files are merged, old texts are deleted; no row changes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.operations.compact import compact
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.raw_files import drop_raw_files
from batchata_tasks.pipeline.steps import Steps, collect_step
from tests.support.table import SCHEMA, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

LABEL_ALONE = {
    "type": "object",
    "properties": {"label": SCHEMA["properties"]["label"]},
    "required": ["label"],
}


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=9)


def raw_files(table: Table) -> Iterator[Path]:
    for name in ("requests", "responses"):
        yield from (table.output / "_batchata" / name).iterdir()


def age(table: Table, days: float) -> None:
    """Let all request and response files be older."""
    moment = time.time() - days * 86400
    for path in raw_files(table):
        os.utime(path, (moment, moment))


def test_compacting_changes_no_row(table: Table) -> None:
    """Many parts become one, with the same rows; the next run sends nothing."""
    table.run(items_per_batch=2)
    before = table.rows()
    assert len(list((table.output / "data").iterdir())) == 5
    done = compact(table.spec(items_per_batch=2), Settings())
    assert (done.before, done.after) == (5, 1)
    assert len(list((table.output / "data").iterdir())) == 1
    assert table.rows() == before
    assert table.run(items_per_batch=2).plan["requests"] == 0


def test_the_command_tells_how_many_files_there_are(table: Table) -> None:
    """A compacted dataset stays as it is."""
    table.run()
    spec = table.folder / "spec.json"
    spec.write_text(table.spec().model_dump_json(exclude_unset=True))
    done = CliRunner().invoke(app, ["compact", str(spec)])
    assert done.exit_code == 0, done.output
    assert "1 file before, 1 now" in done.output


def test_old_request_and_response_files_are_deleted(table: Table) -> None:
    """At the end of a run those go that are older than `retention`; rows and money stay.

    The receipt says how many.
    """
    table.run(retention="30d")
    before = table.rows()
    kept = set(raw_files(table))
    assert {path.parent.name for path in kept} == {"requests", "responses"}
    age(table, 29)
    receipt = table.run(retention="30d")
    assert (receipt.deleted_files, dict(receipt.lines()).get("Deleted")) == (0, None)
    assert set(raw_files(table)) == kept
    age(table, 31)
    table.run()
    assert set(raw_files(table)) == kept
    receipt = table.run(retention="30d")
    assert list(raw_files(table)) == []
    deleted = f"{len(kept)} files of requests and answers, older than `retention`"
    assert dict(receipt.lines())["Deleted"] == deleted
    assert receipt.plan["requests"] == 0
    assert table.rows() == before


def test_files_of_a_batch_that_has_not_landed_are_kept(table: Table) -> None:
    """However old they are: its rows are read from them."""
    kept = list[int]()

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        age(table, 99)
        drop_raw_files(context_of(ref))
        kept.append(len(list(raw_files(table))))
        return collect_step(ref, chunk_id)

    spec = table.spec(retention="1d", items_per_batch=3, max_parallel_batches=1)
    assert enrich(spec, steps=Steps(collect=collect)).outcomes == {"succeeded": 9}
    assert kept == [1, 1, 1]  # the requests of the batch that is to land; the others' are gone


def test_compacting_under_another_response_model_changes_no_row(table: Table) -> None:
    """Columns that the spec's model of today lacks stay until a run lands rows under it."""
    table.run(items_per_batch=2)
    before = table.rows()
    compact(table.spec(response_schema=LABEL_ALONE), Settings())
    assert len(list((table.output / "data").iterdir())) == 1
    assert table.rows() == before
