"""The table of failed rows that a flow run leaves."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.flows import failed_rows
from batchata_tasks.flows.failed_rows import failed_table
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

KEY = ["id"]


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of which rows that have a 4 are refused."""
    emulator.control.faults(kind="request_refusal", contains="row 4")
    return Table(tmp_path, emulator, "anthropic", rows=6)


def test_each_failed_row_is_told_with_a_command(table: Table) -> None:
    """By key, how it ended and why; rows that succeeded, and those of other runs, are not."""
    rows, told = failed_table(table.run(), KEY, "a spec.yaml")
    assert rows == [
        {
            "key": "k4",
            "outcome": "refused",
            "error": table.rows()[4]["_error"],
            "command": "batchata show 'a spec.yaml' --key k4",
        }
    ]
    assert told == "1 row that failed."
    table.values.append({"id": "k6", "text": "text", "note": ""})
    table.write()
    assert failed_table(table.run(), KEY, None) == ([], "")


def test_without_a_spec_the_folder_is_named(table: Table) -> None:
    """A spec that came by value has no path; the command takes the dataset's folder, too."""
    ((row,), _) = failed_table(table.run(), KEY, None)
    assert shlex.split(row["command"]) == ["batchata", "show", str(table.output), "--key", "k4"]


def test_the_table_is_bounded(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many failed rows the first are listed, and how many more there are is told."""
    table.emulator.control.faults(kind="request_refusal")
    monkeypatch.setattr(failed_rows, "_MOST", 4)
    rows, told = failed_table(table.run(), KEY, None)
    assert len({row["key"] for row in rows}) == 4
    assert told == "4 rows that failed; 2 more are not listed."


@pytest.mark.parametrize(
    ("key", "shown", "words"),
    [
        ("-4", "-4", ["--key", "id=-4"]),
        ("id=4", "id=4", ["--key", "id=id=4"]),
        ("![4](http://x.de)", "`![4](http://x.de)`", ["--key", "![4](http://x.de)"]),
        ("4`$(x)", "`4'$(x)`", None),
        ("4\n# x", "4 # x", None),
        ("4" * 300, "4" * 199 + "…", None),
    ],
    ids=["option", "assignment", "picture", "code", "heading", "long"],
)
def test_foreign_keys_do_nothing(
    table: Table, key: str, shown: str, words: list[str] | None
) -> None:
    """Neither in the interface nor in a shell; a key that nobody can type has no command."""
    table.values = [{"id": key, "text": "text of row 4", "note": ""}]
    table.write()
    ((row,), _) = failed_table(table.run(), KEY, "spec.yaml")
    assert row["key"] == shown
    command = row["command"].strip("`")
    assert command == "" if words is None else shlex.split(command)[3:] == words
