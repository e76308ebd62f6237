"""A response model that became stricter: it is told, and what it refuses is sent on request."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.plan import preview
from tests.support.books import check_money
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.pipeline.revalidation import Revalidated

ROWS = 12
MODEL = """
from typing import Annotated, Literal
from pydantic import AfterValidator, BaseModel

REFUSED = {refused}

def _checked(value: str) -> str:
    if value in REFUSED:
        raise ValueError("no such label")
    return value

class Base(BaseModel):
    label: Annotated[Literal["x", "y", "z"], AfterValidator(_checked)]

class Label(Base):
    words: list[str]
"""
TOLD = "the code of the response model has changed since answers were checked by it"


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(tmp_path))
    # Python takes a compiled file for that of another text of its size from the same second
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Table(tmp_path, emulator, "anthropic", rows=ROWS)


def keys(table: Table, refused: tuple[str, ...], more: str = "") -> dict[str, Any]:
    """Write the spec's response model anew; return the spec's keys of it."""
    path = table.folder / "models.py"
    path.write_text(MODEL.replace("{refused}", repr(refused)) + more)
    return {"response_schema": None, "response_model": f"{path}:Label"}


def revalidated(table: Table, *, mark_invalid: bool = False, **changes: Any) -> Revalidated:
    return revalidate(table.spec(**changes), Settings(), mark_invalid=mark_invalid)


def is_told(table: Table, **changes: Any) -> bool:
    """Whether a plan tells that the model's code has changed."""
    plan = preview(table.spec(**changes), Settings())
    told = any(TOLD in text and "`batchata revalidate SPEC`" in text for _, text in plan.lines())
    assert told is plan.to_json()["model_changed"]
    return told


def run(table: Table, options: Options | None = None, **changes: Any) -> tuple[Receipt, bool]:
    """Run the spec; return the receipt, and whether the run told of a changed model."""
    lines = list[str]()
    receipt = enrich(table.spec(**changes), options, progress=LineProgress(lines.append))
    return receipt, any(TOLD in line for line in lines)


def by_id(table: Table) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table.rows()}


def test_plan_and_run_tell_that_the_code_changed(table: Table) -> None:
    """Until `revalidate` has read the kept answers by it; then nothing is left to be told."""
    spec = keys(table, ())
    assert run(table, **spec)[1] is False
    assert not is_told(table, **spec)
    keys(table, ("x",))
    assert is_told(table, **spec)
    receipt, told = run(table, **spec)
    assert (told, receipt.plan["requests"]) == (True, 0)
    table.values.append({"id": "new", "text": "a new row", "note": ""})
    table.write()
    assert run(table, **spec)[1]
    assert is_told(table, **spec)  # that run checked its own row alone
    revalidated(table, **spec)
    assert not is_told(table, **spec)
    assert run(table, **spec)[1] is False


def test_a_plan_tells_in_one_line_what_changed_code_takes(table: Table) -> None:
    """If it reads the kept answers, it counts those taken by now, and those no longer taken."""
    spec = {**keys(table, ("x",)), "max_attempts": 1}
    run(table, **spec)
    rows = by_id(table).values()
    taken = sum(row["_status"] == "invalid" for row in rows)
    refused = sum(row["label"] == "y" for row in rows)
    assert min(taken, refused) > 1
    keys(table, ("y",))
    plan = preview(table.spec(**spec), Settings())
    (line,) = [text for label, text in plan.lines() if label == "Answers"]
    assert line == (
        f"{TOLD}: {taken} rows have an answer that it takes by now, and {refused} rows have an "
        "answer that it no longer takes; `batchata revalidate SPEC` reads all again, for free, and "
        "keeps those that it takes"
    )
    told = plan.to_json()
    assert (told["valid_by_now"], told["no_longer_valid"]) == (taken, refused)


def test_what_checks_nothing_is_no_change(table: Table) -> None:
    """Comments, docstrings and other models of the file do not count, nor does a dry run."""
    spec = keys(table, ())
    run(table, **spec)
    others = '\n\n# a remark\nclass Other(BaseModel):\n    """Another one."""\n'
    assert not is_told(table, **keys(table, (), others))
    keys(table, ("x",), others)
    revalidate(table.spec(**spec), Settings(), dry_run=True)
    assert is_told(table, **spec)
    assert not is_told(table, **keys(table, ()))  # it is the earlier one again


def test_rows_that_are_marked_are_sent_again_and_no_others(table: Table) -> None:
    """They alone: `--mark-invalid` makes them invalid, with the reason and without their values."""
    spec = keys(table, ())
    run(table, **spec)
    before = by_id(table)
    refused = {key for key, row in before.items() if row["label"] == "x"}
    assert 0 < len(refused) < ROWS
    keys(table, ("x",))
    report = revalidated(table, mark_invalid=True, **spec)
    assert (report.no_longer_valid, report.marked) == (len(refused), len(refused))
    lines = dict(report.lines())
    assert lines["Marked"].startswith(f"{len(refused)} rows, invalid from now on")
    assert "No longer valid" not in lines
    for key, row in by_id(table).items():
        if key in refused:
            assert (row["_status"], row["label"], row["words"]) == ("invalid", None, None)
            assert "no such label" in row["_error"]
            told = {"_status", "_error", "label", "words"}
            assert {n: v for n, v in row.items() if n not in told} == {
                n: v for n, v in before[key].items() if n not in told
            }
        else:
            assert row == before[key]
    plan = preview(table.spec(**spec), Settings()).summary
    assert (plan.requests, plan.reasons) == (len(refused), {"failed": len(refused)})
    receipt, _ = run(table, **spec)
    assert receipt.plan["requests"] == len(refused)
    assert table.ledger()["requests_accepted"] >= ROWS + len(refused)
    assert all(row == before[key] for key, row in by_id(table).items() if key not in refused)
    check_money(table)


def test_marked_rows_without_attempts_left_wait_for_retry_failed(table: Table) -> None:
    """As other invalid rows do."""
    spec = {**keys(table, ()), "max_attempts": 1}
    run(table, **spec)
    keys(table, ("x",))
    marked = revalidated(table, mark_invalid=True, **spec).marked
    assert preview(table.spec(**spec), Settings()).summary.requests == 0
    plan = preview(table.spec(**spec), Settings(), Options(retry_failed=True)).summary
    assert plan.requests == marked


def test_a_model_that_takes_them_again_has_their_values_back(table: Table) -> None:
    """Their answers are kept: nothing is lost, and nothing paid for."""
    spec = keys(table, ())
    run(table, **spec)
    before = table.rows()
    keys(table, ("x",))
    revalidated(table, mark_invalid=True, **spec)
    assert table.rows() != before
    keys(table, ())
    assert revalidated(table, **spec).became_valid
    assert table.rows() == before
    assert table.ledger()["requests_accepted"] == ROWS


@pytest.mark.parametrize("merged", [False, True])
def test_a_lost_part_comes_back_with_its_marks(table: Table, merged: bool) -> None:
    """What was marked is not valid again because files of the dataset are gone."""
    spec = {**keys(table, ()), "max_attempts": 1, "items_per_batch": 5}
    run(table, **spec)
    keys(table, ("x", "y"))
    assert revalidated(table, mark_invalid=True, **spec).marked
    if merged:
        compact(table.spec(**spec), Settings())
    before = table.rows()
    shutil.rmtree(table.output / "data")
    receipt, _ = run(table, **spec)
    assert receipt.plan["requests"] == 0
    assert table.rows() == before
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


def test_a_lost_part_has_no_marks_that_nobody_made(table: Table) -> None:
    """Rows of which the report only told are as valid as they were, also if a file is lost."""
    spec = keys(table, ())
    run(table, **spec)
    before = table.rows()
    keys(table, ("x",))
    assert revalidated(table, **spec).no_longer_valid
    shutil.rmtree(table.output / "data")
    run(table, **spec)
    assert table.rows() == before


def test_the_command_marks(table: Table) -> None:
    """`--mark-invalid` with `--dry-run` only tells how many rows it would be."""
    spec = keys(table, ())
    run(table, **spec)
    keys(table, ("x",))
    path = table.folder / "spec.json"
    path.write_text(table.spec(**spec).model_dump_json())
    before = table.rows()
    told = CliRunner().invoke(app, ["revalidate", str(path), "--mark-invalid", "--dry-run"])
    assert (told.exit_code, table.rows()) == (0, before)
    assert "Marked" in told.stdout
    told = CliRunner().invoke(app, ["revalidate", str(path), "--mark-invalid", "--json"])
    assert told.exit_code == 0
    assert '"marked"' in told.stdout
    assert {row["_status"] for row in table.rows()} == {"succeeded", "invalid"}
