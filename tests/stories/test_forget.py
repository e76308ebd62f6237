"""A row that is forgotten leaves no text behind, and its money stays counted."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution import forget as steps
from batchata_tasks.operations import forget as operation
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.forget import Forgotten, forget
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.reports.plan import preview
from tests.support.books import check_money
from tests.support.dying import dying_before
from tests.support.request_files import lying_twice
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

KEY, TEXT = "forget-me-7", "a secret of row seven"


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    table = Table(tmp_path, emulator, request.param, rows=6)
    table.values[3] = {"id": KEY, "text": TEXT, "note": f"note of {TEXT}"}
    table.write()
    return table


def without_it(table: Table) -> None:
    """Take the row out of the source."""
    table.values = [value for value in table.values if value["id"] != KEY]
    table.write()


def forgotten(table: Table, word: str = KEY) -> Forgotten:
    return forget(table.spec(), [word], Settings())


def files_with(table: Table, text: str) -> Iterator[Path]:
    """Yield the files of the dataset in which a text stands, compressed or not."""
    for path in table.output.rglob("*"):
        if path.is_file() and text in _content(path):
            yield path


def _content(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    if path.suffix == ".zip":
        with ZipFile(path) as pack:
            return "".join(_text(name, pack.read(name)) for name in pack.namelist())
    return _text(path.name, path.read_bytes())


def _text(name: str, content: bytes) -> str:
    if name.endswith(".arrow"):
        return str(pa.ipc.open_file(content).read_all().to_pylist())
    return content.decode()


def test_no_file_has_the_row_or_its_texts(table: Table) -> None:
    """Neither its key nor its prompt nor its answer is found; all other rows are as they were."""
    table.run()
    name = next(row["_custom_id"] for row in table.rows() if row["id"] == KEY)
    others = [row for row in table.rows() if row["id"] != KEY]
    assert list(files_with(table, KEY))
    assert list(files_with(table, TEXT))
    before = check_money(table)
    assert forgotten(table).rows == 1
    assert not list(files_with(table, KEY))
    assert not list(files_with(table, TEXT))
    assert [path.parent.name for path in files_with(table, name)] == ["commits"]
    assert table.rows() == others
    after = check_money(table)
    assert after.settled == before.settled
    assert after.dataset < before.dataset
    without_it(table)
    assert table.run().plan["requests"] == 0
    assert len(table.bodies()) == 5


def test_no_pack_has_the_row_or_its_texts(table: Table) -> None:
    """What else was packed with it stays, and can be read as before."""
    table.run(items_per_batch=3)
    without = {name: body for name, body in table.bodies().items() if TEXT not in str(body)}
    compact(table.spec(), Settings())
    assert {path.suffix for path in files_with(table, TEXT)} == {".parquet", ".zip"}
    forgotten(table)
    assert not list(files_with(table, KEY))
    assert not list(files_with(table, TEXT))
    assert table.bodies() == without
    assert not lying_twice(table.output)
    without_it(table)
    assert table.run().plan["requests"] == 0
    check_money(table)


def test_one_that_died_at_once_and_is_given_again_takes_no_other_row(table: Table) -> None:
    """The ledger knew of it, so that the row leaves before the command looks where it was."""
    table.run()
    with dying_before(0), pytest.raises(KeyboardInterrupt):
        forgotten(table)
    forgotten(table)
    assert not list(files_with(table, TEXT))
    without_it(table)
    others = table.rows()
    lose(table.output / "data")
    assert table.run().plan["requests"] == 0
    assert table.rows() == others
    assert table.ledger()["requests_accepted"] == 6


def test_a_row_beside_one_that_an_older_copy_brought_back(table: Table, tmp_path: Path) -> None:
    """Both leave the files, and no third one."""
    table.run()
    shutil.copytree(table.output, tmp_path / "copy")
    forgotten(table)
    without_it(table)
    shutil.rmtree(table.output)
    shutil.copytree(tmp_path / "copy", table.output)
    forgotten(table, "k4")
    table.values = [value for value in table.values if value["id"] != "k4"]
    table.write()
    others = table.rows()
    assert [row["id"] for row in others] == ["k0", "k1", "k2", "k5"]
    lose(table.output / "data")
    assert table.run().plan["requests"] == 0
    assert table.rows() == others
    check_money(table)


def test_other_rows_stay_as_they_are_under_another_response_model(table: Table) -> None:
    """Also if no row has the key; columns that today's model lacks stay."""
    table.run()
    before = table.rows()
    spec = table.spec(response_schema=None)
    with pytest.raises(SpecError, match="has no row with id='nobody'"):
        forget(spec, ["nobody"], Settings())
    assert table.rows() == before
    forget(spec, [KEY], Settings())
    assert table.rows() == [row for row in before if row["id"] != KEY]


def test_every_attempt_of_it_is_forgotten(table: Table) -> None:
    """Requests and answers of earlier texts of the row go, too."""
    table.run()
    table.values[3]["text"] = f"{TEXT}, told anew"
    table.write()
    table.run()
    forgotten(table)
    assert not list(files_with(table, TEXT))
    assert len(table.rows()) == 5
    check_money(table)


@pytest.mark.parametrize("step", ["_supersede", "take_out", "without_lines", "drop_texts"])
def test_one_that_died_half_way_is_given_again(
    table: Table, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, the second one takes the rest out, and no cost counts twice."""
    table.run()
    before = check_money(table)
    module = steps if step in ("_supersede", "without_lines") else operation
    real, calls = getattr(module, step), list[int]()

    def dying(*args: object) -> object:
        calls.append(1)
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, dying)
        with pytest.raises(KeyboardInterrupt):
            forgotten(table)
    assert calls == [1]
    if step == "drop_texts":  # that was the end of it
        with pytest.raises(SpecError, match="has no row with"):
            forgotten(table)
    else:
        forgotten(table)
    assert not list(files_with(table, KEY))
    assert not list(files_with(table, TEXT))
    assert check_money(table).settled == before.settled


def test_a_rebuilt_ledger_knows_what_was_forgotten(table: Table, tmp_path: Path) -> None:
    """The commits tell its money, and a part that is written anew lacks the row."""
    table.run()
    forgotten(table)
    before = check_money(table)
    without_it(table)
    (table.output / "data").rename(table.folder / "lost")
    table.run()
    assert not list(files_with(table, KEY))
    assert len(table.rows()) == 5
    assert check_money(table) == before
    (tmp_path / "ledger.db").rename(tmp_path / "lost.db")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert table.run().plan["requests"] == 0
    assert check_money(table) == before


def test_a_row_that_may_still_be_sent_is_not_forgotten(table: Table) -> None:
    """One sentence says that its batch has to land first; nothing changes."""

    def die(*_: object) -> dict[str, object]:
        message = "the process is lost"
        raise RuntimeError(message)

    table.run()
    table.values[3]["text"] += ", told anew"
    table.write()
    with pytest.raises(RuntimeError, match="is lost"):
        enrich(table.spec(), steps=Steps(poll=die))
    with pytest.raises(SpecError, match=f"id='{KEY}' is in a batch that has not landed"):
        forgotten(table)
    assert len(table.rows()) == 6


def test_the_command_forgets_one_key(table: Table) -> None:
    """It says what is gone and what is kept; an unknown key is one sentence and exit code 2."""
    table.run()
    spec = table.folder / "spec.json"
    spec.write_text(table.spec().model_dump_json(exclude_unset=True))
    done = CliRunner().invoke(app, ["forget", str(spec), "--key", "nobody"])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert f"the dataset has no row with id='nobody'; `batchata show {spec}` prints" in said
    assert len(table.rows()) == 6
    done = CliRunner().invoke(app, ["forget", str(spec), "--key", KEY])
    assert done.exit_code == 0, done.output
    assert f"id='{KEY}': 1 row of the dataset" in " ".join(done.output.split())


def lose(folder: Path, pattern: str = "*") -> None:
    for path in folder.glob(pattern):
        path.unlink()


@pytest.mark.parametrize("lost", ["data", "data and manifests", "all"])
def test_its_answer_does_not_come_back_with_lost_files(table: Table, lost: str) -> None:
    """Results that are downloaded once more are kept without it, and so are the rows."""
    table.run(raw_files=False)
    name = next(row["_custom_id"] for row in table.rows() if row["id"] == KEY)
    forget(table.spec(raw_files=False), [KEY], Settings())
    others = table.rows()
    without_it(table)
    lose(table.output / "data")
    if lost != "data":
        lose(table.output / "_batchata/intents", "*.arrow")
    if lost == "all":
        shutil.rmtree(table.output)
    table.run()
    assert list((table.output / "_batchata/responses").glob("*.jsonl"))
    assert {path.parent.name for path in files_with(table, name)} <= {"commits"}
    assert not list(files_with(table, KEY))
    assert not list(files_with(table, TEXT))
    assert len(table.rows()) == len(others)
    if lost == "data":
        assert table.rows() == others
    assert table.ledger()["requests_accepted"] == 6


@pytest.mark.parametrize("loses", [False, True])
def test_a_plan_beside_an_older_copy_says_what_a_run_does(table: Table, loses: bool) -> None:
    """The row is forgotten again, and sent anew if the source still has it."""
    table.run(items_per_batch=3)
    copy = shutil.copytree(table.output, table.folder / "copy")
    forget(table.spec(items_per_batch=3), [KEY], Settings())
    shutil.rmtree(table.output)
    shutil.move(copy, table.output)
    if loses:
        lose(table.output / "data")
    plan = preview(table.spec(items_per_batch=3), Settings()).summary
    assert (plan.requests, plan.reasons) == (1, {"new": 1})
    assert list(files_with(table, TEXT))  # nothing was written
    assert table.run(items_per_batch=3).plan["requests"] == 1
    assert table.ledger()["requests_accepted"] == 7


@pytest.mark.parametrize("command", ["run", "compact"])
def test_an_older_copy_of_the_folder_does_not_bring_it_back(table: Table, command: str) -> None:
    """The ledger knows the row's requests: it and its texts go again with the next command."""
    table.run()
    copy = shutil.copytree(table.output, table.folder / "copy")
    forgotten(table)
    before, others = check_money(table), table.rows()
    shutil.rmtree(table.output)
    shutil.move(copy, table.output)
    without_it(table)
    assert list(files_with(table, TEXT))
    if command == "run":
        assert table.run().plan["requests"] == 0
    else:
        compact(table.spec(), Settings())
    assert not list(files_with(table, KEY))
    assert not list(files_with(table, TEXT))
    assert table.rows() == others
    assert check_money(table) == before
    assert table.ledger()["requests_accepted"] == 6


def test_copies_of_the_folder_forget_it_too_and_that_is_said(table: Table) -> None:
    """A copy is the same dataset: what is forgotten in it goes out of the original, too."""
    table.run()
    copy = table.folder / "copy"
    shutil.copytree(table.output, copy)
    done = forget(table.spec(output=str(copy)), [KEY], Settings())
    assert "copied" in dict(done.lines())["Copies"]
    assert list(files_with(table, TEXT))
    without_it(table)
    table.run()
    assert not list(files_with(table, TEXT))
    assert len(table.rows()) == 5
    assert table.ledger()["requests_accepted"] == 6


def test_an_older_ledger_learns_what_was_forgotten(table: Table, tmp_path: Path) -> None:
    """The commits tell, and what it cost counts once; it stays away if the folder is lost."""
    table.run()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "copy.db")
    forgotten(table)
    without_it(table)
    before = check_money(table)
    (tmp_path / "copy.db").replace(tmp_path / "ledger.db")
    table.run()
    assert check_money(table) == before
    shutil.rmtree(table.output)
    table.run()
    assert len(table.rows()) == 5
    assert not list(files_with(table, TEXT))
    assert table.ledger()["requests_accepted"] == 6


def test_a_row_that_came_back_since_stays(table: Table) -> None:
    """Only its forgotten requests go from an older copy of the folder, not those of a later run."""
    table.run()
    copy = shutil.copytree(table.output, table.folder / "copy")
    forgotten(table)
    table.run()  # the source still has it
    before = table.rows()
    shutil.rmtree(table.output)
    shutil.move(copy, table.output)
    table.run()
    said = ("id", "label", "_response", "_custom_id", "_status")
    assert [{k: row[k] for k in said} for row in table.rows()] == [
        {k: row[k] for k in said} for row in before
    ]
    assert table.ledger()["requests_accepted"] == 7
    check_money(table)


def test_a_manifest_from_a_copy_does_not_bring_it_back(table: Table) -> None:
    """A part that is lost is written anew without it, whatever an older manifest says."""
    table.run()
    manifests = {p: p.read_bytes() for p in (table.output / "_batchata/intents").glob("*.arrow")}
    forgotten(table)
    others = table.rows()
    for path, content in manifests.items():
        path.write_bytes(content)
    lose(table.output / "data")
    without_it(table)
    table.run()
    assert table.rows() == others


def test_what_a_provider_said_of_its_batch_goes_too(table: Table) -> None:
    """An error of a create may quote a row, and stays in the file of the intent after it landed."""
    table.emulator.control.faults(kind="http_error_after", status=500, count=1)
    table.run()
    (intent,) = (table.output / "_batchata/intents").glob("*.json")
    facts = read_json(intent)
    assert facts is not None
    assert "unclear_answer" in facts
    write_json(intent, {**facts, "unclear_answer": f"invalid: {TEXT}"})
    forgotten(table)
    assert not list(files_with(table, TEXT))
    kept = read_json(intent)
    assert kept == {name: value for name, value in facts.items() if name != "unclear_answer"}


def test_what_a_dead_run_left_of_it_goes_too(table: Table) -> None:
    """Plans of runs that ended, and files that were never renamed, hold texts of rows."""
    table.run()
    left = table.output / "_batchata/runs/ended/plan.bodies.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text(TEXT)
    (table.output / "_batchata/.part-x.parquet.0000.tmp").write_text(TEXT)
    forgotten(table)
    assert not list(files_with(table, TEXT))


@pytest.mark.parametrize("step", ["_supersede", "take_out"])
def test_its_cost_counts_once_although_a_commit_is_lost(
    table: Table, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is written anew from the ledger before anything is counted."""
    table.run()
    before = check_money(table)
    lose(table.output / "_batchata/commits")
    module = steps if step.startswith("_") else operation
    real = getattr(module, step)

    def dying(*args: object) -> None:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, dying)
        with pytest.raises(KeyboardInterrupt):
            forgotten(table)
    forgotten(table)
    assert check_money(table).settled == before.settled
