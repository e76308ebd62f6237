"""`show` prints rows as the source has them, and one row whole, from its prompt to its answer."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.reports.one_row import one_row, shown
from batchata_tasks.reports.printing import aligned
from batchata_tasks.reports.rows import rows_table
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 12
LONGER = {"max_tokens": 400}


@pytest.fixture(params=APIS)
def table(request: Any, emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, request.param, rows=ROWS)


@pytest.fixture
def one(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table with one of the APIS, for what is the same with all of them."""
    return Table(tmp_path, emulator, "openai", rows=ROWS)


def ids(table: Table, rows: int = 100, **asked: Any) -> list[str]:
    return [row["id"] for row in dataset_rows(table.spec(), Selection(rows, **asked))]


def test_rows_come_in_the_order_of_the_source(one: Table) -> None:
    """Also if they landed in another one, in several parts, and the source was sorted since."""
    one.run(where="id >= 'k5'")
    one.run(items_per_batch=3)
    assert ids(one) == [row["id"] for row in one.values]
    one.values.reverse()
    one.write()
    assert ids(one, 3) == ["k11", "k10", "k9"]


def test_rows_that_left_the_source_come_last(one: Table) -> None:
    """They are in the dataset all the same; without a source all are as the dataset has them."""
    one.run()
    del one.values[0]
    one.write()
    assert ids(one)[-1] == "k0"
    assert len(ids(one)) == ROWS
    one.source.unlink()
    assert sorted(ids(one)) == sorted(f"k{i}" for i in range(ROWS))


def test_a_condition_over_the_dataset(one: Table) -> None:
    """It is the language of the spec's `where`, over the columns of the dataset."""
    one.emulator.control.faults(kind="request_refusal", contains="row 4")
    one.run()
    assert ids(one, where="_status == 'refused'") == ["k4"] == ids(one, only_failed=True)
    assert ids(one, where="note in ['n7', 'n1'] and _cost_usd > 0") == ["k1", "k7"]
    assert ids(one, where="_error is none and id < 'k10'") == ["k0", "k1"]
    assert ids(one, where="note == 'none of them'") == []
    with pytest.raises(SpecError, match=r"^--where: .* dataset has no such column; did you mean"):
        ids(one, where="_statis == 'refused'")
    # by its key alone: a dataset's rows have no numbers that anybody sees
    with pytest.raises(
        SourceError, match=r"^--where: the expression fails on the row with id='k\d+': '>' not"
    ):
        ids(one, where="note > 3")


def test_a_decimal_keeps_its_scale(one: Table) -> None:
    """72.70 is printed as such, as it is for one row and in prompts; a cost has no zeros behind."""
    row = {"id": "k0", "total": Decimal("72.70"), "_cost_usd": Decimal("0.000073000000")}
    console = Console(file=(screen := StringIO()), width=80)
    console.print(rows_table(one.spec(), [row], 80, list(row)))
    assert screen.getvalue().split() == [*row, "k0", "72.70", "0.000073"]


def test_columns_are_chosen_by_name(one: Table) -> None:
    """Each row has these, in this order; one that is not there is refused."""
    one.run()
    (row,) = dataset_rows(one.spec(), Selection(1, columns=["label", "id"]))
    assert list(row) == ["label", "id"]
    with pytest.raises(SpecError, match=r"^--columns: .*'lable'; did you mean 'label'"):
        dataset_rows(one.spec(), Selection(1, columns=["lable"]))


def test_one_row_is_told_whole(table: Table) -> None:
    """Its prompt is the one that went over the wire; all that came of it is there."""
    table.run()
    told = one_row(table.spec(), ["k3"])
    (row,) = [row for row in table.rows() if row["id"] == "k3"]
    sent = table.bodies()[row["_custom_id"]]
    prompt = told.to_json()["prompt"]
    assert prompt["is"] == "sent"
    assert [turn["text"] for turn in prompt["turns"]] == ["Label it.", "text of row 3"]
    assert prompt["turns"][-1]["text"] == table.turns(sent)[-1]["content"]
    assert prompt["parameters"].items() <= {**sent, **prompt["parameters"]}.items()
    assert prompt["schema"]["properties"].keys() == {"label", "words"}
    assert told.to_json()["inputs"] == {"text": "text of row 3"}
    assert told.to_json()["changed_since"] is False
    facts, text = dict(told.facts()), told.text()
    assert facts["  label"] == row["label"]
    assert row["_batch_id"] in facts["Batch"]
    assert facts["Cost"].startswith("$")
    assert "Prompt, as it was sent:" in text
    assert row["_response"] in text.replace("\n    ", "\n").partition("Raw answer:\n")[2]


def test_objects_and_wide_letters_are_told_for_people() -> None:
    """As JSON, which says the same in all languages; and columns keep their places."""
    assert shown({"n": [1, None], "ü": date(2026, 1, 31)}) == '{"n": [1, null], "ü": "2026-01-31"}'
    assert aligned([("品名", "緑茶"), ("name", "tea")]) == "品名  緑茶\nname  tea\n"


def test_a_row_that_changed_since_says_so(one: Table) -> None:
    """The prompt shown is the old one, the inputs are the new ones, and the text says both."""
    one.run()
    one.values[3]["text"] = "another text"
    one.write()
    told = one_row(one.spec(), ["k3"])
    assert told.to_json()["inputs"] == {"text": "another text"}
    assert told.has_changed
    assert "text of row 3" in told.text()
    assert "has changed since" in told.text()
    assert not one_row(one.spec(), ["k2"]).has_changed
    assert one_row(one.spec(system="Say it."), ["k2"]).has_changed


def test_another_attempt_is_shown_with_its_remark(one: Table) -> None:
    """A row that went out again with a remark is shown so, and is no other row for that."""
    one.emulator.control.faults(kind="request_invalid_answer", contains="row 5", times=1)
    one.run()
    told = one_row(one.spec(), ["k5"])
    assert told.row["_attempts"] == 2
    assert told.request is not None
    assert len(told.request.turns) > 2
    assert not told.has_changed


def test_without_request_files_the_prompt_is_rendered(one: Table) -> None:
    """If no request file is kept, the prompt is made of the source's row now, and called so."""
    one.run(raw_files=False)
    told = one_row(one.spec(), ["k3"])
    assert told.to_json()["prompt"]["is"] == "rendered"
    assert "Prompt, rendered now, as no request file is kept:" in told.text()
    assert "text of row 3" in told.text()
    one.source.unlink()
    told = one_row(one.spec(), ["k3"])
    assert told.to_json()["prompt"] is None
    assert "Prompt: not known" in told.text()
    assert "cannot be read now" in told.text()


def test_a_row_that_left_the_source_is_shown(one: Table) -> None:
    """What was sent and answered is in the dataset's folder, whatever the source has by now."""
    one.run()
    del one.values[3]
    one.write()
    text = one_row(one.spec(), ["k3"]).text()
    assert "The source's row cannot be read now: the row is not in the source any more." in text
    assert "text of row 3" in text


def test_a_key_of_two_columns(one: Table) -> None:
    """Its values are given by name, each in its column's type, in any order."""
    change: dict[str, Any] = {
        "key": ["id", "n"],
        "types": {"n": "int"},
        "source": str(one.folder / "two.csv"),
        "prompt": "{{ id }} {{ n }}",
        "columns": [],
    }
    (one.folder / "two.csv").write_text("id,n\na=b,1\na=b,02\n")
    one.run(**change)
    spec = one.spec(**change)
    assert one_row(spec, ["n=2", "id=a=b"]).key == {"id": "a=b", "n": 2}
    with pytest.raises(SpecError, match=r"^--key: the key has 2 columns, and 'n' is not given; "):
        one_row(spec, ["id=a=b"])
    with pytest.raises(SpecError, match=r"^--key: 'two' is no value of the column 'n', which is"):
        one_row(spec, ["id=a=b", "n=two"])
    with pytest.raises(SpecError, match=r"^--key: the dataset has no row with id='a', n=1; "):
        one_row(spec, ["id=a", "n=1"])


def test_a_key_may_hold_an_equals_sign(one: Table) -> None:
    """With one key column its value is enough, whatever it holds; the column may be named, too."""
    one.values[0]["id"] = "x=y"
    one.write()
    one.run()
    assert one_row(one.spec(), ["x=y"]).key == {"id": "x=y"} == one_row(one.spec(), ["id=x=y"]).key
    with pytest.raises(SpecError, match="2 values are given"):
        one_row(one.spec(), ["k1", "k2"])
    shutil.rmtree(one.output)
    with pytest.raises(SpecError, match="there are no rows in"):
        one_row(one.spec(), ["k1"])
