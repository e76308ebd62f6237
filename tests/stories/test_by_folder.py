"""Datasets that are looked at by their folder: what fills them has no file that could be named."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from batchata_tasks import Batch, enrich, revalidate
from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import WrongLedgerError
from tests.support.jobs import CLAUDE, sent

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from batchata_tasks.emulator import Emulator
    from tests.support.table import Table

pytestmark = pytest.mark.usefixtures("emulator")
OUT = "my out"


class Topic(BaseModel):
    """The model of today, when the answers were texts."""

    topic: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def enriched(rows: int = 4) -> Any:
    frame = pd.DataFrame({"id": [f"k{i}" for i in range(rows)], "text": "a text", "stars": 5})
    columns = ["stars"]
    return enrich(
        frame,
        key="id",
        prompt="Label {{ text }} {{ id }}",
        model=CLAUDE,
        output=OUT,
        max_tokens=50,
        columns=columns,
        cost_limit_usd=1,
    )


def told(*words: str) -> Result:
    return CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})


def test_the_rows_of_a_frame_are_shown() -> None:
    """All options of `show` hold; carried columns and answers are told apart without a spec."""
    enriched()
    rows = json.loads(told("show", OUT, "--json").stdout)
    assert sorted(row["id"] for row in rows) == ["k0", "k1", "k2", "k3"]
    text = told("show", OUT, "--where", "id == 'k2'").stdout
    assert text.split("\n")[0].split() == ["id", "_status", "response", "stars", "_cost_usd"]
    assert "k2" in text
    assert "k1" not in text
    (one,) = json.loads(told("show", OUT, "--where", "id == 'k2'", "--json").stdout)
    whole = told("show", OUT, "--key", "k2")
    assert "Label a text k2" in whole.stdout  # as it was sent
    assert one["response"] in whole.stdout
    assert "Inputs: not known" in whole.stdout


def test_a_key_that_no_row_has_is_told_with_the_folder() -> None:
    """The hint is a command that works as it stands, also with a blank in the path."""
    enriched()
    refused = told("show", OUT, "--key", "nobody")
    assert refused.exit_code == 2
    assert f"`batchata show '{OUT}'` prints rows that there are." in refused.output
    assert "batchata plan" not in refused.output


def test_the_runs_of_a_frame_are_shown() -> None:
    """Those of this dataset alone; no run is open to be followed."""
    enriched()
    Batch("answers").add_job(prompt="text", id="a", model=CLAUDE, max_tokens=50).run()
    (run,) = json.loads(told("status", OUT, "--json").stdout)
    assert (run["name"], run["outcomes"]) == ("my-out", {"succeeded": 4})
    (run,) = json.loads(told("status", "answers", "--json").stdout)
    assert run["outcomes"] == {"succeeded": 1}
    assert "No run of my-out is open." in told("status", OUT, "--follow").stdout


def test_the_lost_ledger_of_a_frame_is_rebuilt_by_its_folder(
    emulator: Emulator, tmp_path: Path
) -> None:
    """By the very command that the refusal names; then the frame is up to date, and not sent."""
    enriched()
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(WrongLedgerError) as refused:
        enriched()
    command = re.search(r"`batchata (.*--rebuild)`", str(refused.value))
    assert command is not None
    rebuilt = told(*shlex.split(command[1]))
    assert rebuilt.exit_code == 0, rebuilt.output
    assert enriched()["_status"].eq("succeeded").all()
    assert sent(emulator) == 4
    again = told("status", OUT, "--rebuild")
    assert (again.exit_code, "nothing to rebuild" in again.output) == (2, True)


def test_the_dataset_of_a_spec_is_shown_by_its_folder(table: Table) -> None:
    """Without the spec's file, and without its source; the spec is named."""
    table.run()
    table.source.unlink()
    out = str(table.output)
    rows = json.loads(told("show", out, "--rows", "99", "--json").stdout)
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in table.rows())
    (run,) = json.loads(told("status", out, "--json").stdout)
    assert run["name"] == table.spec().name


@pytest.mark.parametrize("words", [["show"], ["status"], ["status", "--follow"], ["forget"]])
def test_a_folder_without_a_dataset_is_refused(words: list[str], tmp_path: Path) -> None:
    """In a sentence; nothing is made in it."""
    command, *options = words
    key = ["--key", "x"] if command == "forget" else []
    refused = told(command, str(tmp_path), *options, *key)
    assert refused.exit_code == 2
    assert f"output: there is no dataset in {tmp_path}" in refused.output
    assert not (tmp_path / "_batchata").exists()


def test_a_folder_has_no_keys_that_could_be_set() -> None:
    """`--set` changes a spec; it is not passed over in silence."""
    enriched(1)
    for words in (["show"], ["status"], ["forget", "--key", "k0"]):
        refused = told(*words, OUT, "--set", "limit=3")
        assert (refused.exit_code, "--set: my out is a folder" in refused.output) == (2, True)


def test_what_takes_no_folder_says_what_does() -> None:
    """`revalidate` needs today's response model: the sentence has the call that does it."""
    enriched(1)
    refused = told("revalidate", OUT)
    assert refused.exit_code == 2
    call = f"`batchata_tasks.revalidate({OUT!r}, ResponseModel)`"
    assert call in refused.output
    assert revalidate(OUT, Topic, dry_run=True).gained == 0  # as the sentence has it
    for command in ("run", "plan", "compact", "cancel", "rehearse"):
        refused = told(command, OUT)
        assert refused.exit_code == 2
        assert "SPEC: my out is a folder; name the file of the spec." in refused.output
