"""A column that was renamed in source and spec is no reason to send a row again."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.common.errors import DeclinedError, SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.execution import missing
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.forget import forget
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.rename import rename
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline import spending
from batchata_tasks.pipeline.enrich import enrich, run_prepared
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.plan import preview
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from tests.support.books import check_money
from tests.support.by_day import moments
from tests.support.dying import dying_before
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.spec.enrichment import EnrichmentSpec

ROWS = 8
NEW = {"id": "ticket", "text": "body", "note": "remark"}


class Renamable(Table):
    """A table whose columns may have other names, in its source and its spec alike."""

    names: dict[str, str]

    def write(self) -> None:
        self.names = getattr(self, "names", {})
        with self.source.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([self.named(name) for name in ("id", "text", "note")])
            writer.writerows([row["id"], row["text"], row["note"]] for row in self.values)

    def named(self, column: str) -> str:
        return self.names.get(column, column)

    def call(self, column: str, name: str) -> None:
        """Let a column have another name in source and spec from now on."""
        self.names[column] = name
        self.write()

    def spec(self, **changes: Any) -> EnrichmentSpec:
        text = self.named("text")
        given = {
            "key": self.named("id"),
            "prompt": f"{{{{ {text} }}}}: {{% if {text} %}}label it{{% endif %}}",
            "columns": [self.named("note")],
            "items_per_batch": 3,
        }
        return super().spec(**{**given, **changes})

    def rows(self) -> list[dict[str, Any]]:
        key = self.named("id")
        rows = pq.read_table(self.output / "data").to_pylist()
        assert len({row[key] for row in rows}) == len(rows)
        return sorted(rows, key=lambda row: row[key])

    def under(self, names: dict[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows with other names of their columns."""
        return [{names.get(name, name): value for name, value in row.items()} for row in rows]


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Renamable:
    return Renamable(tmp_path, emulator, "anthropic", rows=ROWS)


def renamed(table: Table, *columns: str) -> None:
    rename(table.spec(), columns, Settings())


def interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def spec_file(table: Table) -> str:
    path = table.folder / "spec.json"
    path.write_text(table.spec().model_dump_json(exclude_unset=True))
    return str(path)


def sent(table: Table) -> int:
    return table.ledger()["requests_accepted"]


def declared(table: Table) -> dict[str, Any]:
    known = DeclaredSchema.read(DatasetFolder(str(table.output)))
    assert known is not None
    return {column.name: (column.role, column.type) for column in known.columns}


@pytest.mark.parametrize("column", NEW)
def test_no_row_is_sent_again(table: Renamable, column: str) -> None:
    """Key, prompt or carried column: the dataset has the new name, and all else as it was."""
    table.run()
    before, types = table.rows(), declared(table)
    name = NEW[column]
    table.call(column, name)
    renamed(table, f"{column}={name}")
    assert preview(table.spec(), Settings()).summary.requests == 0
    receipt = table.run()
    assert (receipt.plan["up_to_date"], receipt.plan["requests"]) == (ROWS, 0)
    assert table.rows() == table.under({column: name}, before)
    assert declared(table) == {NEW[k] if k == column else k: v for k, v in types.items()}
    assert sent(table) == ROWS
    check_money(table)


def test_all_columns_one_after_the_other_and_back(table: Renamable) -> None:
    """Each rename needs only its own change; the names of the beginning cost nothing, either."""
    table.run()
    before = table.rows()
    for column, name in NEW.items():
        table.call(column, name)
        renamed(table, f"{column}={name}")
        assert table.run().plan["requests"] == 0
    for column, name in NEW.items():
        table.call(column, column)
        renamed(table, f"{name}={column}")
        assert table.run().plan["requests"] == 0
    names = (*(table.named(name) for name in ("id", "note")), "_response", "_fingerprint")
    assert [[row[name] for name in names] for row in table.rows()] == [
        [row[name] for name in names] for row in before
    ]
    assert sent(table) == ROWS


def test_what_changes_after_it_is_sent_for_its_own_reason(table: Renamable) -> None:
    """New rows, changed inputs, a changed prompt, and a new column with the name given up."""
    table.run()
    table.call("text", "body")
    renamed(table, "text=body")
    table.values[2]["text"] = "told anew"
    table.values.append({"id": "k99", "text": "a new row", "note": "n"})
    table.write()
    assert table.run().plan["reasons"] == {"input": 1, "new": 1}
    assert preview(table.spec(prompt="Say: {{ body }}"), Settings()).summary.reasons == {
        "prompt": ROWS + 1
    }
    table.call("note", "text")
    summary = preview(table.spec(prompt="{{ text }}", columns=[]), Settings()).summary
    assert summary.requests == ROWS + 1
    check_money(table)


def test_a_spec_that_is_set_back_sends_nothing(table: Renamable) -> None:
    """It asks what was asked at first, whatever the dataset calls the column of its prompt."""
    table.run()
    table.call("text", "body")
    renamed(table, "text=body")
    table.call("text", "text")
    assert table.run().plan["requests"] == 0
    assert sent(table) == ROWS


def test_rows_that_failed_keep_their_attempts(table: Renamable) -> None:
    """They are no new question."""
    table.emulator.control.faults(kind="request_refusal", share=1.0)
    table.run(max_attempts=1)
    table.emulator.control.clear_faults()
    table.call("text", "body")
    renamed(table, "text=body")
    receipt = table.run(max_attempts=1)
    assert (receipt.plan["exhausted"], receipt.plan["requests"]) == (ROWS, 0)


def test_it_may_die_before_any_change_of_a_file(table: Renamable) -> None:
    """The next run, or the same command, finishes it: no file is left under the other name."""
    table.run()
    ledger, copy = table.folder / "ledger.db", table.folder / "copy"
    shutil.copytree(table.output, copy)
    shutil.copy(ledger, table.folder / "ledger.copy")
    expected = table.under({"id": "ticket"}, table.rows())
    table.call("id", "ticket")
    begun = 0
    for number in count():
        shutil.rmtree(table.output)
        shutil.copytree(copy, table.output)
        shutil.copy(table.folder / "ledger.copy", ledger)
        has_ended = True
        with dying_before(number):
            try:
                renamed(table, "id=ticket")
            except KeyboardInterrupt:
                has_ended = False
        known = Renames.read(DatasetFolder(str(table.output)))
        begun += known.begun
        if known.begun:
            for read in (preview, lambda spec, _: dataset_rows(spec, Selection(9))):
                with pytest.raises(SpecError, match="a rename of columns was begun"):
                    read(table.spec(), Settings())
            if number % 2:
                assert table.run().plan["requests"] == 0
            else:
                renamed(table, "id=ticket")
        else:  # given again, it says the same
            renamed(table, "id=ticket")
        for path in (table.output / "data").iterdir():
            assert "id" not in pq.read_schema(path).names
        assert table.rows() == expected
        assert table.run().plan["requests"] == 0
        if has_ended:
            break
    assert begun > 8
    assert sent(table) == ROWS
    check_money(table)


@pytest.mark.parametrize("lost", ["parts", "folder", "ledger", "folder after a run"])
def test_what_is_lost_after_it_comes_back_under_the_new_names(
    table: Renamable, lost: str, tmp_path: Path
) -> None:
    """Answers are found again, by whatever name they were asked for; nothing is paid twice."""
    table.run()
    before = table.rows()
    for column, name in NEW.items():
        table.call(column, name)
        renamed(table, f"{column}={name}")
    if lost == "parts":
        for path in (table.output / "data").iterdir():
            path.unlink()
    elif lost == "ledger":
        (tmp_path / "ledger.db").unlink()
        rebuild(prepare_run(table.spec(), Settings()), Settings())
    else:
        if lost == "folder after a run":
            table.run()
        shutil.rmtree(table.output)
    assert table.run().plan["requests"] == 0
    after = table.rows()
    if lost.startswith("folder"):
        for row in (*before, *after):  # of these, the rows tell when they came
            del row["_enriched_at"], row["_run_id"]
    assert after == table.under(NEW, before)
    assert table.run().plan["requests"] == 0
    assert sent(table) == ROWS
    check_money(table)


def test_an_older_copy_of_the_dataset_is_brought_up_to_date(table: Renamable) -> None:
    """The ledger knows what was renamed since: no row is sent again, and the new names hold."""
    table.run()
    shutil.copytree(table.output, table.folder / "copy")
    for column, name in NEW.items():
        table.call(column, name)
        renamed(table, f"{column}={name}")
    expected = table.rows()
    shutil.rmtree(table.output)
    (table.folder / "copy").rename(table.output)
    with pytest.raises(
        SpecError, match=r"columns were renamed.* `batchata run SPEC` does it again"
    ):
        preview(table.spec(), Settings())
    assert table.run().plan["requests"] == 0
    assert table.rows() == expected
    assert sent(table) == ROWS


def test_a_run_that_was_prepared_before_a_rename_sends_nothing(table: Renamable) -> None:
    """It goes by the names that the dataset has once it holds it."""
    table.run()
    table.call("text", "body")
    ready = prepare_run(table.spec(), Settings())
    renamed(table, "text=body")
    receipt = run_prepared(ready)
    assert (receipt.plan["up_to_date"], receipt.plan["requests"]) == (ROWS, 0)
    assert sent(table) == ROWS


def test_a_deletion_that_died_is_finished_by_the_new_name_of_the_key(
    table: Renamable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with the new name is refused until the column is renamed; then the rows leave."""
    table.run(on_missing="delete")
    table.values.pop()
    table.write()
    with monkeypatch.context() as patch:
        patch.setattr(missing, "take_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.run(on_missing="delete")
    CliRunner().invoke(app, ["cancel", spec_file(table)], catch_exceptions=False)
    table.call("id", "ticket")
    with pytest.raises(SpecError, match="--column OLD=ticket"):
        table.run(on_missing="delete")
    renamed(table, "id=ticket")
    assert len(table.rows()) == ROWS - 1
    assert table.run(on_missing="delete").plan["requests"] == 0
    check_money(table)


def test_a_column_that_left_the_spec_is_renamed_too(table: Renamable) -> None:
    """Its values stay in the dataset, so that it may be carried again under its new name."""
    table.run()
    table.run(columns=[])
    before = table.rows()
    table.call("note", "remark")
    rename(table.spec(columns=[]), ["note=remark"], Settings())
    assert table.rows() == table.under({"note": "remark"}, before)
    assert table.run().plan["requests"] == 0
    assert table.rows() == table.under({"note": "remark"}, before)


def test_columns_that_were_renamed_together_are_told_together(table: Renamable) -> None:
    """Of several columns in one prompt, none could be told alone: its prompt would be another."""
    prompt = "{{ text }} and {{ row['note'] }}"
    table.run(prompt=prompt)
    before = table.rows()
    for column, name in NEW.items():
        table.call(column, name)
    new = "{{ body }} and {{ row['remark'] }}"
    whole = "rename them together: .* --column text=body --column note=remark`"
    with pytest.raises(SpecError, match=whole):
        rename(table.spec(prompt=new), ["id=ticket", "text=body"], Settings())
    columns = [f"{column}={name}" for column, name in NEW.items()]
    done = rename(table.spec(prompt=new), columns, Settings())
    assert done.to_json() == {"columns": NEW, "has_new_prompt": False}
    assert table.rows() == table.under(NEW, before)
    assert table.run(prompt=new).plan["requests"] == 0
    assert sent(table) == ROWS
    check_money(table)


def exchanged(table: Renamable) -> dict[str, Any]:
    """Let `text` and `note` exchange their names; return what changes in the spec by that."""
    was_so = table.named("text") == "note"
    table.names |= {} if was_so else {"text": "note", "note": "text"}
    if was_so:
        table.names = {}
    table.write()
    return {"prompt": f"{{{{ {table.named('text')} }}}}", "types": {table.named("note"): "int"}}


def test_two_columns_exchange_their_names(table: Renamable) -> None:
    """Their values and types go with the names; given once more nothing changes, and back again."""
    for row in table.values:
        row["note"] = row["note"].removeprefix("n")
    table.write()
    table.run(prompt="{{ text }}", types={"note": "int"})
    before, types = table.rows(), declared(table)
    for _ in range(2):
        changes = exchanged(table)
        expected = table.under({"note": table.named("note")}, before)
        for _ in range(2):
            rename(table.spec(**changes), ["note=text", "text=note"], Settings())
            assert table.rows() == expected
        assert table.run(**changes).plan["requests"] == 0
        assert table.rows() == expected
    assert declared(table) == types
    assert sent(table) == ROWS
    check_money(table)


def test_columns_that_are_used_alike_exchange_their_names(table: Renamable) -> None:
    """Of a key, its order tells which is which, and of a prompt, its text; there and back."""
    given: dict[str, Any] = {"key": ["id", "note"], "columns": [], "prompt": "{{ text }} {{ id }}"}
    table.run(**given)
    before = table.rows()
    there: dict[str, Any] = {**given, "key": ["note", "text"], "prompt": "{{ id }} {{ note }}"}
    circle = {"id": "note", "note": "text", "text": "id"}
    for names, changes in ((circle, there), ({new: old for old, new in circle.items()}, given)):
        table.names = {} if table.names else circle
        table.write()
        for _ in range(2):
            rename(table.spec(**changes), [json.dumps(names)], Settings())
        assert table.run(**changes).plan["requests"] == 0
    assert table.rows() == before
    with pytest.raises(SpecError, match=r"keep their order; write `key: \[note, id\]`"):
        rename(table.spec(**given), ["id=note", "note=id"], Settings())
    assert sent(table) == ROWS


@pytest.mark.parametrize("again", [True, False])
def test_an_exchange_of_names_may_die_at_any_file(table: Renamable, *, again: bool) -> None:
    """A file does not show whether its columns were exchanged already, so each step is noted.

    The same command finishes it, or the next run does.
    """
    table.run(prompt="{{ text }}")
    ledger, copy = table.folder / "ledger.db", table.folder / "copy"
    shutil.copytree(table.output, copy)
    shutil.copy(ledger, table.folder / "ledger.copy")
    before = table.rows()
    changes = exchanged(table)
    changes.pop("types")
    columns, expected = ["note=text", "text=note"], table.under({"note": "text"}, before)
    begun = 0
    for number in count(step=3):
        shutil.rmtree(table.output)
        shutil.copytree(copy, table.output)
        shutil.copy(table.folder / "ledger.copy", ledger)
        has_ended = True
        with dying_before(number):
            try:
                rename(table.spec(**changes), columns, Settings())
            except KeyboardInterrupt:
                has_ended = False
        known = Renames.read(DatasetFolder(str(table.output)))
        begun += bool(known.begun)
        if again or not known.all:
            rename(table.spec(**changes), columns, Settings())
        assert table.run(**changes).plan["requests"] == 0
        assert table.rows() == expected
        if has_ended:
            break
    assert begun > 5
    assert sent(table) == ROWS


def test_a_name_may_have_an_equals_sign(table: Renamable) -> None:
    """It is given as JSON, which is what the plan proposes, too."""
    table.run()
    table.call("text", "a=b")
    prompt = {"prompt": "{{ row['a=b'] }}: {% if row['a=b'] %}label it{% endif %}"}
    spec = table.spec(**prompt)
    (text,) = [text for label, text in preview(spec, Settings()).lines() if label == "Renamed"]
    assert """--column '{"text":"a=b"}'`""" in text
    rename(spec, ['{"text":"a=b"}'], Settings())
    assert table.run(**prompt).plan["requests"] == 0
    assert sent(table) == ROWS


def proposed(lines: list[tuple[str, str]]) -> str:
    (text,) = [text for label, text in lines if label == "Renamed"]
    return text


@pytest.mark.parametrize("carried", [False, True])
def test_a_plan_notices_a_column_that_was_renamed(
    table: Renamable, monkeypatch: pytest.MonkeyPatch, *, carried: bool
) -> None:
    """It says how to keep the answers, and so does a run before it asks; a no leaves that open."""
    columns = ["text", "note"] if carried else ["note"]
    table.run(columns=columns)
    before = table.rows()
    table.call("text", "body")
    changes: dict[str, Any] = {"columns": ["body", "note"] if carried else ["note"]}
    planned = preview(table.spec(**changes), Settings())
    assert planned.summary.reasons == {"prompt": ROWS}
    assert planned.to_json()["renamed"] == {"text": "body"}
    assert "`batchata rename SPEC --column text=body`" in proposed(planned.lines())
    lines = list[str]()
    progress = LineProgress(lines.append)
    progress.ask = lambda _question: False
    monkeypatch.setattr(spending, "ASKED_ABOVE", 0)
    with pytest.raises(DeclinedError):
        enrich(table.spec(**changes), progress=progress)
    assert any("batchata rename SPEC --column text=body" in line for line in lines)
    rename(table.spec(**changes), ["text=body"], Settings())
    assert table.run(**changes).plan["requests"] == 0
    assert table.rows() == table.under({"text": "body"}, before)
    assert sent(table) == ROWS


def test_a_plan_proposes_no_rename_that_would_keep_nothing(table: Renamable) -> None:
    """Another prompt, another model, or an old column that is still there are other changes."""
    table.run()
    assert preview(table.spec(prompt="{{ note }}"), Settings()).summary.renamed == {}
    table.call("text", "body")
    other: list[dict[str, Any]] = [{"prompt": "Label: {{ body }}"}, {"max_tokens": 300}]
    for changes in other:
        summary = preview(table.spec(**changes), Settings()).summary
        assert (summary.reasons, summary.renamed) == ({"prompt": ROWS}, {})


def test_a_renamed_key_is_told_with_all_that_was_renamed(table: Renamable) -> None:
    """Plan, run and other commands say the whole command, which then keeps all answers."""
    table.run()
    table.call("id", "ticket")
    alone = r"has no column 'ticket'; .* `batchata rename SPEC --column id=ticket`"
    with pytest.raises(SpecError, match=alone):
        preview(table.spec(), Settings())
    table.call("text", "body")
    both = r"`batchata rename SPEC --column id=ticket --column text=body`"
    with pytest.raises(SpecError, match=both):
        preview(table.spec(), Settings())
    with pytest.raises(SpecError, match=both):
        table.run()
    with pytest.raises(SpecError, match=both):
        compact(table.spec(), Settings())
    with pytest.raises(SpecError, match=r"--column id=ticket`"):  # the prompt is another one
        preview(table.spec(prompt="New: {{ body }}"), Settings())
    renamed(table, "id=ticket", "text=body")
    assert table.run().plan["requests"] == 0
    assert sent(table) == ROWS


@pytest.mark.parametrize("prompt", ["{{ text }}", "{{ text }} and {{ row['note'] }}"])
def test_a_plan_notices_names_that_were_exchanged(table: Renamable, prompt: str) -> None:
    """The values of the first rows prove it: a prompt that reads another column is no such case."""
    table.values[0]["note"] = table.values[0]["text"]  # tells nothing
    table.write()
    table.run(prompt=prompt)
    there = {"text": "note", "note": "text"}
    other = prompt.replace("text", "?").replace("note", "text").replace("?", "note")
    spec = table.spec(prompt=other)
    assert preview(spec, Settings()).summary.renamed == {}
    table.names |= there
    table.write()
    spec = table.spec(prompt=other)
    planned = preview(spec, Settings())
    assert planned.summary.renamed == there
    text = proposed(planned.lines())
    assert "--column text=note" in text
    assert "--column note=text" in text
    rename(spec, [f"{old}={new}" for old, new in there.items()], Settings())
    assert preview(spec, Settings()).summary.renamed == {}
    assert table.run(prompt=other).plan["requests"] == 0
    assert sent(table) == ROWS


def test_values_that_are_no_number_prove_no_exchange(table: Renamable) -> None:
    """A nan is unlike itself: a row of two says nothing of which column is which."""
    for place, row in enumerate(table.values):
        row["text"] = row["note"] = "nan"
        if not place:
            row["text"], row["note"] = "1.5", "2.5"
    table.write()
    types = {"text": "float", "note": "float"}
    table.run(prompt="{{ text }} {{ note }}", types=types)
    spec = table.spec(prompt="{{ note }} {{ text }}", types=types)
    assert preview(spec, Settings()).summary.renamed == {}


def test_a_rename_that_dies_with_its_folder_is_not_paid_for(table: Renamable) -> None:
    """The ledger knows of it from the start: answers come back under the names of today."""
    table.run(prompt="{{ text }}")
    ledger, copy = table.folder / "ledger.db", table.folder / "copy"
    shutil.copytree(table.output, copy)
    shutil.copy(ledger, table.folder / "ledger.copy")
    changes = exchanged(table)
    changes.pop("types")
    begun = 0
    for number in count(step=4):
        shutil.rmtree(table.output, ignore_errors=True)
        shutil.copytree(copy, table.output)
        shutil.copy(table.folder / "ledger.copy", ledger)
        with dying_before(number):
            try:
                rename(table.spec(**changes), ["note=text", "text=note"], Settings())
            except KeyboardInterrupt:
                begun += bool(Renames.read(DatasetFolder(str(table.output))).begun)
            else:
                break
        if not Renames.read(DatasetFolder(str(table.output))).all:
            continue
        shutil.rmtree(table.output)
        assert table.run(**changes).plan["requests"] == 0
        assert len(table.rows()) == ROWS
    assert begun > 3
    assert sent(table) == ROWS


def test_one_column_of_a_key_is_renamed(table: Renamable) -> None:
    """The others stay what they are."""
    key = {"key": ["id", "note"], "columns": []}
    table.run(**key)
    table.call("note", "remark")
    key["key"] = ["id", "remark"]
    rename(table.spec(**key), ["note=remark"], Settings())
    assert table.run(**key).plan["requests"] == 0
    assert sent(table) == ROWS


def test_answers_that_were_read_anew_come_back_under_the_new_names(table: Renamable) -> None:
    """The folder is lost after a mended model, and a rename: nothing is sent for either."""
    table.run()
    alone: dict[str, Any] = {
        "response_schema": {
            "type": "object",
            "properties": {"label": {"enum": ["x", "y", "z"]}},
            "required": ["label"],
        }
    }
    assert revalidate(table.spec(**alone), Settings()).kept == ROWS
    table.run(**alone)
    table.call("text", "body")
    rename(table.spec(**alone), ["text=body"], Settings())
    shutil.rmtree(table.output)
    assert table.run(**alone).plan["requests"] == 0
    assert sent(table) == ROWS


def test_a_row_is_forgotten_by_its_new_name(table: Renamable) -> None:
    """Its requests and answers go, too."""
    table.run()
    table.call("id", "ticket")
    renamed(table, "id=ticket")
    done = forget(table.spec(), ["k3"], Settings())
    assert (done.rows, done.key) == (1, "ticket='k3'")
    assert done.files == 3
    check_money(table)


def test_the_old_name_of_the_key_is_told(table: Renamable) -> None:
    """A spec that still has it ends with a sentence, in every command."""
    table.run()
    old = table.spec()
    table.call("id", "ticket")
    renamed(table, "id=ticket")
    table.call("id", "id")
    for run in (
        lambda: preview(old, Settings()),
        lambda: enrich(old),
        lambda: compact(old, Settings()),
        lambda: forget(old, ["k3"], Settings()),
        lambda: dataset_rows(old, Selection(9)),
    ):
        with pytest.raises(SpecError, match=r"has no column 'id'.*batchata rename SPEC"):
            run()


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("text", "names no column and its new name; write it as old=new"),
        ("=body", "names no column and its new name"),
        ("text=a=b", "names no column and its new name.*as a JSON object"),
        ('{"text": 3}', "names no column and its new name"),
        ("{}", "names no column and its new name"),
        ("text=text", "names no column and its new name"),
        ("text=_status", "'_status' is the name of a metadata column"),
        ("text=_missing_since", "'_missing_since' is the name of a metadata column"),
        ("nothing=body", "knows no column 'nothing' of the source; it knows: id, note, text"),
        ("label=body", "'label' is a field of the answers"),
        ("note=text", "has a column 'text' already"),
        ("text=words", "has a column 'words' already"),
        ("note=remark", "the spec still names 'note'"),
    ],
)
def test_what_cannot_be_renamed_is_refused(table: Renamable, column: str, sentence: str) -> None:
    """One sentence says why, and nothing changes."""
    table.run()
    before = table.rows()
    with pytest.raises(SpecError, match=sentence):
        renamed(table, column)
    assert table.rows() == before
    assert not DatasetFolder(str(table.output)).renames.exists()


def test_a_column_is_given_once(table: Renamable) -> None:
    """Twice, it would have two new names, or two columns one."""
    table.run()
    for columns in (["text=body", "text=words"], ["text=body", "note=body"]):
        with pytest.raises(SpecError, match="is given twice"):
            renamed(table, *columns)


def test_a_column_of_where_alone_has_nothing_to_rename(table: Renamable) -> None:
    """The dataset keeps nothing of it; the refusal says so, and a run sends nothing."""
    table.run(columns=[], where="note != ''")
    table.call("note", "remark")
    changes: dict[str, Any] = {"columns": [], "where": "remark != ''"}
    with pytest.raises(SpecError, match="'remark' is used by `where` alone"):
        rename(table.spec(**changes), ["note=remark"], Settings())
    assert table.run(**changes).plan["requests"] == 0


def test_a_spec_that_lacks_the_new_name_is_refused(table: Renamable) -> None:
    """It would use a column that the dataset does not have."""
    table.run()
    table.call("note", "remark")
    spec = table.spec(columns=[])
    with pytest.raises(SpecError, match="'note' is in the spec's `columns` until now"):
        rename(spec, ["note=remark"], Settings())


def test_a_prompt_that_changed_in_more_than_the_name_is_refused(table: Renamable) -> None:
    """Its rows would be sent again, which is not what was asked for."""
    table.run()
    table.call("text", "body")
    with pytest.raises(SpecError, match="is not the one that rows were sent with"):
        rename(table.spec(prompt="Please label: {{ body }}"), ["text=body"], Settings())


@pytest.mark.parametrize("alone", ["id", "note"])
def test_a_rename_without_that_of_the_prompt_is_refused(table: Renamable, alone: str) -> None:
    """The whole command is proposed, which keeps all answers: half of it would send all rows."""
    table.run()
    for column in (alone, "text"):
        table.call(column, NEW[column])
    whole = f"`batchata rename SPEC --column {alone}={NEW[alone]} --column text=body`"
    with pytest.raises(SpecError, match=f"'text' is 'body' now, too.*: {whole}"):
        renamed(table, f"{alone}={NEW[alone]}")
    assert not DatasetFolder(str(table.output)).renames.exists()
    renamed(table, f"{alone}={NEW[alone]}", "text=body")
    assert table.run().plan["requests"] == 0
    assert sent(table) == ROWS


def test_a_key_renamed_beside_exchanged_names_is_told_with_them(table: Renamable) -> None:
    """Their values prove it, though the dataset has the key under its old name still."""
    table.run(prompt="{{ text }}")
    table.names |= {"text": "note", "note": "text"}
    table.call("id", "ticket")
    spec = table.spec(prompt="{{ note }}")
    whole = "--column id=ticket --column note=text --column text=note`"
    with pytest.raises(SpecError, match=whole):
        preview(spec, Settings())
    with pytest.raises(SpecError, match=whole):
        rename(spec, ["id=ticket"], Settings())
    rename(spec, ["id=ticket", "text=note", "note=text"], Settings())
    assert table.run(prompt="{{ note }}").plan["requests"] == 0
    assert sent(table) == ROWS


def test_a_rename_beside_a_new_prompt_says_so(table: Renamable) -> None:
    """Its rows are sent for the prompt whatever columns are called, so nothing is refused."""
    table.run()
    table.call("id", "ticket")
    new: dict[str, Any] = {"prompt": "Please label: {{ text }}"}
    done = rename(table.spec(**new), ["id=ticket"], Settings())
    assert done.has_new_prompt
    assert "sends all rows again" in dict(done.lines())["Prompt"]
    assert preview(table.spec(**new), Settings()).summary.reasons == {"prompt": ROWS}
    table.call("note", "remark")
    never = rename(table.spec(**new, rerun_on=["new"]), ["note=remark"], Settings())
    assert "Prompt" not in dict(never.lines())


def test_rows_on_their_way_are_in_the_way(table: Renamable) -> None:
    """A run that died is to be finished first, under the old names."""

    def die(*_: object) -> dict[str, object]:
        message = "the process is lost"
        raise RuntimeError(message)

    table.run()
    table.values[3]["text"] = "told anew"
    table.write()
    with pytest.raises(RuntimeError, match="is lost"):
        enrich(table.spec(), steps=Steps(poll=die))
    table.call("note", "remark")
    with pytest.raises(SpecError, match="an unfinished run still has rows under the old name"):
        renamed(table, "note=remark")


def test_the_command_renames_a_column(table: Renamable) -> None:
    """It says that no row is sent again; what is wrong is one sentence and exit code 2."""
    table.run()
    table.call("text", "body")
    spec = table.folder / "spec.json"
    spec.write_text(table.spec().model_dump_json(exclude_unset=True))
    done = CliRunner().invoke(app, ["rename", str(spec), "--column", "text"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["rename", str(spec), "--column", "text=body"])
    assert done.exit_code == 0, done.output
    assert "'text' is 'body' now; no row is sent again" in done.output


@pytest.mark.parametrize("column", NEW)
def test_a_rebuilt_ledger_knows_what_was_renamed(table: Renamable, column: str) -> None:
    """The folder may be lost after that: rows come back under the new names, nothing is sent."""
    table.run()
    table.call(column, NEW[column])
    renamed(table, f"{column}={NEW[column]}")
    before = table.rows()
    (table.folder / "ledger.db").unlink()
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    shutil.rmtree(table.output)
    assert table.run().plan["requests"] == 0
    names = (*(table.named(name) for name in ("id", "note")), "_response", "_fingerprint")
    assert [[row[name] for name in names] for row in table.rows()] == [
        [row[name] for name in names] for row in before
    ]
    assert sent(table) == ROWS


@pytest.mark.sampled
@pytest.mark.parametrize(
    "columns", [{"text": "body"}, {"id": "ticket"}, {"text": "note", "note": "text"}]
)
def test_the_way_on_after_a_death_and_a_loss_is_free(
    table: Renamable, columns: dict[str, str]
) -> None:
    """If the ledger had noted the new names, these are the ones to run with; so it is said."""
    words = [f"{old}={new}" for old, new in columns.items()]
    for number in moments():
        already, output = sent(table), table.output
        table.output = output.with_name(f"out{number}")
        table.names = {}
        table.write()
        table.run(name=f"spec{number}")
        for old, new in columns.items():
            table.call(old, new)
        with dying_before(number):
            try:
                rename(table.spec(name=f"spec{number}"), words, Settings())
            except KeyboardInterrupt:
                shutil.rmtree(table.output)
        if table.output.exists():
            break
        with pytest.raises(SpecError) as told:
            rename(table.spec(name=f"spec{number}"), words, Settings())
        if "with the old names" in str(told.value):
            table.names = {}
            table.write()
        assert table.run(name=f"spec{number}").plan["requests"] == 0
        assert sent(table) == already + ROWS
    assert number > 2
