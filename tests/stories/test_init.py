"""`batchata init`: what it writes for any table works as it stands."""

from __future__ import annotations

import datetime as dt
import os
import pty
from decimal import Decimal
from select import select
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchata_tasks.spec.json_schema import PATH as SCHEMA
from tests.support.commands import batchata, start
from tests.support.paths import ROOT
from tests.support.pdfs import pdf
from tests.support.table import MODELS
from tests.support.waiting import until
from tests.support.workbook import write_workbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Process
    from tests.support.postgres import Server


def parquet(folder: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return "table.parquet"


def text(folder: Path, lines: list[str], encoding: str = "utf-8", name: str = "table.csv") -> str:
    (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return name


def messy(folder: Path) -> str:
    """Write a CSV file as a spreadsheet of a German office has it."""
    head = 'Kunden Nr;"Größe ""cm""";{{ Betreff }};Nachricht;_status;Category'
    rows = [f'K{i};1,{i};Nr {i};"Wo bleibt es, bitte?\nÄrgerlich; {i}";ok;x' for i in range(30)]
    return text(folder, [head, *rows], "cp1252")


def nested(folder: Path) -> str:
    order = [{"id": i, "customer": {"name": f"n{i}", "tags": ["a"]}} for i in range(30)]
    columns = {
        "order": order,
        "at": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 30,
        "tags": [["x", "y"]] * 29 + [None],
        "price": [Decimal("1.10")] * 30,
        "picture": [b"\0\1"] * 30,
        "took": pa.array([dt.timedelta(seconds=1)] * 30, pa.duration("ns")),
        "summary": ["hi"] * 30,
        "order_id": list(range(30)),
    }
    return parquet(folder, columns)


def odd_names(folder: Path) -> str:
    names = [
        "a\nb",
        "x\0y",
        "q\"'",
        "back\\slash",
        "",
        "%}",
        "n\x85l",
        "{#",
        "on",
        "row",
        "self",
        "if",
    ]
    return parquet(folder, {name: [f"{i}1", f"{i}2"] for i, name in enumerate(names)})


TABLES = {
    "messy": messy,
    "nested": nested,
    "odd names": odd_names,
    "empty": lambda folder: text(folder, ["id,text"]),
    "one column": lambda folder: text(folder, ["word", "a", "b"]),
    "500 columns": lambda folder: text(
        folder, [",".join(f"{row}c{i}" for i in range(500)) for row in range(3)]
    ),
    "mixed lines": lambda folder: text(
        folder,
        ['{"id": 1, "meta": {"a": 1}, "mixed": 1}', '{"id": 2, "meta": null, "mixed": "x"}'],
        name="table.jsonl",
    ),
    "tabs by its name": lambda folder: text(folder, ["id\ttext", "1\ta,b"], name="table.tsv"),
    "two bytes a character": lambda folder: text(folder, ["id\ttext", "1\tä", "2\tö"], "utf-16"),
    "key of two columns": lambda folder: text(folder, ["order,line,text", "1,1,x", "1,2,x"]),
    "bars, compressed in name only once": lambda folder: text(folder, ["id|text", "1|a,b", "2|c"]),
}


def init(folder: Path, *words: str) -> Process:
    return batchata("init", *words, "--yes", cwd=folder)


def refused(folder: Path, *words: str) -> str:
    """Return the sentence with which a table is refused; nothing may have been written."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = init(folder, *words)
    assert done.returncode == 2, done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
@pytest.mark.usefixtures("emulator")
def test_what_is_written_can_be_planned(write: Any, tmp_path: Path) -> None:
    """For every table, however odd, the written spec passes `batchata plan` at once."""
    done = init(tmp_path, write(tmp_path))
    assert done.returncode == 0, done.stderr
    planned = batchata("plan", "table.yaml", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("table.")}
    shared = {"automations.yaml", ".gitignore", "spec.schema.json"}
    assert names - {"__pycache__"} == {"models.py", "prefect.yaml", *shared}


@pytest.mark.parametrize("model", MODELS.values())
@pytest.mark.parametrize("write", [messy, nested])
@pytest.mark.usefixtures("emulator")
def test_what_is_written_runs(write: Any, model: str, tmp_path: Path) -> None:
    """The steps that it names run: the first 20 rows, then all, with a model of each provider."""
    done = init(tmp_path, write(tmp_path), "--model", model, "--folder", "project")
    assert done.returncode == 0, done.stderr
    assert "cd project" in done.stdout
    project = tmp_path / "project"
    for rest, landed in ((["--limit", "20"], "20 succeeded"), ([], "10 succeeded")):
        ran = batchata("run", "table.yaml", "--direct", *rest, cwd=project)
        assert landed in ran.stdout, ran.stderr
    rows = pq.read_table(project / "out/table/data")
    assert rows.num_rows == 30
    assert {"summary", "confidence", "_status"} & set(rows.column_names)
    assert f"/{'out/table'}/" in (project / ".gitignore").read_text().splitlines()


@pytest.mark.usefixtures("emulator")
def test_what_the_spec_says(tmp_path: Path) -> None:
    """It names columns with types and examples, how the file is written, a limit and a pilot."""
    assert init(tmp_path, messy(tmp_path)).returncode == 0
    written = (tmp_path / "table.yaml").read_text()
    assert written.startswith("# yaml-language-server: $schema=spec.schema.json\n")
    assert (tmp_path / "spec.schema.json").read_bytes() == SCHEMA.read_bytes()
    assert '#   Größe "cm"     text  1,0\n' in written
    spec = yaml.safe_load(written)
    assert spec["csv"] == {"delimiter": ";", "encoding": "cp1252"}
    assert (spec["key"], spec["cost_limit_usd"], spec["pilot"]["rows"]) == ("Kunden Nr", 1.0, 20)
    assert spec["pilot"]["once"] is True
    assert "_status" not in spec["columns"]
    assert "answer_category: str" in (tmp_path / "models.py").read_text()
    deployments = yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]
    assert {one["name"] for one in deployments} == {"table", "local"}
    automations = (tmp_path / "automations.yaml").read_text()
    ours = (ROOT / "deployments/automations.yaml").read_text()
    assert yaml.safe_load(automations) == yaml.safe_load(ours)
    assert "deployments/" not in automations


@pytest.mark.usefixtures("emulator")
def test_objects_and_lists_are_printed_as_json(tmp_path: Path) -> None:
    """A model reads JSON, and lists of plain values with commas, never what Python writes."""
    rows = [{"who": {"name": "Ä'b", "born": None}}, {"who": {"name": "c", "born": 3}}]
    columns = {"id": ["1", "2"], "tags": [["x", "y"]] * 2, "order": rows, "lines": [rows, []]}
    assert init(tmp_path, parquet(tmp_path, columns)).returncode == 0
    sampled = batchata("plan", "table.yaml", "--sample", "1", cwd=tmp_path)
    assert "tags: x, y" in sampled.stdout
    person = '{"name": "Ä\'b", "born": null}'
    assert f'order: {{"who": {person}}}' in sampled.stdout
    assert f'lines: [{{"who": {person}}}' in sampled.stdout
    assert "Note" not in sampled.stdout
    spec = tmp_path / "table.yaml"
    spec.write_text(spec.read_text().replace("order | tojson", "order"))
    planned = batchata("plan", "table.yaml", cwd=tmp_path)
    assert "{{ order | tojson }} prints JSON" in " ".join(planned.stdout.split())


@pytest.mark.usefixtures("emulator")
def test_what_a_null_prints_is_told(tmp_path: Path) -> None:
    """Nothing; as JSON it is a null."""
    columns = {"id": ["1", "2"], "order": [{"n": 1}, None], "note": ["x", None]}
    assert init(tmp_path, parquet(tmp_path, columns)).returncode == 0
    drafted = (tmp_path / "table.yaml").read_text()
    assert "null in some rows, and prints nothing then (`null` by tojson)" in drafted
    only_text = parquet(tmp_path, {"id": ["1", "2"], "note": ["x", None]})
    assert init(tmp_path, only_text, "--name", "text").returncode == 0
    drafted = (tmp_path / "text.yaml").read_text()
    assert "note: null in some rows, and prints nothing then\n" in drafted


_UNIQUE = "unique and never null in all 2 rows"
_TEXT = "no column of numbers or short texts is; doubtful: a text may be edited, or come twice; "
WHY = [
    (["id,text", "1,x", "2,x"], f"id   # {_UNIQUE}, and named like a key"),
    (["word", "a", "b"], f"word   # the first column of numbers or short texts that is {_UNIQUE}"),
    (["said", "a b", "c d"], f"said   # {_UNIQUE}; {_TEXT}"),
    (["a,b", "1,1", "1,2", "2,1"], "[a, b]   # no column is so alone, these two are together: u"),
    (["id,text"], "id   # there are no rows yet"),
]


@pytest.mark.parametrize(("lines", "comment"), WHY)
@pytest.mark.usefixtures("emulator")
def test_the_spec_says_why_the_key_was_chosen(
    lines: list[str], comment: str, tmp_path: Path
) -> None:
    """Beside the key, so that whoever knows the table better sees what it was guessed from."""
    assert init(tmp_path, text(tmp_path, lines)).returncode == 0
    assert f"key: {comment}" in (tmp_path / "table.yaml").read_text()


DOUBTS = {
    "few rows": (["word", "a", "b"], "2 rows are too few to tell"),
    "few rows of a pair": (["a,b", "1,1", "1,2", "2,1"], "3 rows are too few to tell"),
    "a sentence": (["said", *(f"so {i} it is" for i in range(30))], "a text may be edited"),
    "enough rows": (["word", *(f"w{i}" for i in range(20))], None),
    "a name": (["id", "1", "2"], None),
    "no rows": (["word"], None),
}


@pytest.mark.parametrize(("lines", "doubt"), DOUBTS.values(), ids=DOUBTS)
@pytest.mark.usefixtures("emulator")
def test_a_key_that_may_be_none_is_told(
    lines: list[str], doubt: str | None, tmp_path: Path
) -> None:
    """By the command, and beside the key: few rows are unique by accident, texts are edited."""
    done = init(tmp_path, text(tmp_path, lines))
    assert done.returncode == 0
    (key,) = [li for li in (tmp_path / "table.yaml").read_text().splitlines() if "key:" in li[:4]]
    output = " ".join(done.stdout.split())
    if doubt is None:
        assert "doubtful" not in key + output
    else:
        assert f"; doubtful: {doubt}" in key
        assert f"The key is doubtful: {doubt}" in output


@pytest.mark.usefixtures("emulator")
def test_what_the_draft_leaves_out_is_told(tmp_path: Path) -> None:
    """Objects and lists of the prompt that are not carried along, and columns beyond the eighth.

    The examples of single fields work in a prompt.
    """
    rows = [{"city": "Bonn", "geo": {"lat": 1.5}}, None]
    columns = {"id": [1, 2], "address": rows, "lines": [[{"sku": "a"}], []], "_status": ["x", "y"]}
    columns |= {f"n{i}": [i, i] for i in range(7)}
    assert init(tmp_path, parquet(tmp_path, columns)).returncode == 0
    written = (tmp_path / "table.yaml").read_text()
    told = "# In the prompt, and not in the dataset unless `columns` names them: address, lines\n"
    assert told in written
    assert "# Neither in the prompt nor in the dataset: n5, n6\n" in written
    assert "address  struct<city: string, geo: struct<lat: double>>" in written
    fields = "{% for one in lines %}{{ one.sku }} {% endfor %}"
    assert f"# Single fields of objects, in a prompt: {fields}\n" in written  # one row has none
    used = ("--name", "used", "--prompt", f"{fields} {{{{ id }}}}")
    assert init(tmp_path, "table.parquet", *used).returncode == 0
    carried = ("--set", "columns=[address, lines]", "--limit", "1", "--direct")
    ran = batchata("run", "table.yaml", *carried, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (row,) = pq.read_table(tmp_path / "out/table/data").to_pylist()
    assert (row["address"]["city"], row["lines"]) == ("Bonn", [{"sku": "a"}])


@pytest.mark.usefixtures("emulator")
def test_a_second_nights_rows_go_without_a_pilot(tmp_path: Path) -> None:
    """The draft's pilot is sent once for a prompt: later, more than 20 rows are one batch."""
    lines = [f"{i},text {i}" for i in range(50)]
    assert init(tmp_path, text(tmp_path, ["id,text", *lines[:25]])).returncode == 0
    planned = batchata("plan", "table.yaml", cwd=tmp_path)
    assert "20 rows first" in planned.stdout
    assert batchata("run", "table.yaml", "--direct", cwd=tmp_path).returncode == 0
    text(tmp_path, ["id,text", *lines])
    planned = batchata("plan", "table.yaml", cwd=tmp_path)
    assert "25 requests in 1 batch" in planned.stdout
    assert "20 rows first" not in planned.stdout


@pytest.mark.usefixtures("emulator")
def test_a_workbook(tmp_path: Path) -> None:
    """Its sheets are listed, `--sheet` takes another one, cells of several types are texts."""
    pytest.importorskip("python_calamine")
    rows = [["id", "size", "text"], ["a", 7, "x"], [], ["b", "L", "y"], ["b", "M", "z"]]
    sheets = {"Readme": [["id", "text"]], "My rows": rows}
    write_workbook(tmp_path / "table.xlsx", sheets)
    assert "rows 4 and 5 have the same value" in refused(
        tmp_path, "table.xlsx", "--sheet", "My rows", "--key", "id"
    )
    write_workbook(tmp_path / "table.xlsx", {**sheets, "My rows": rows[:4]})
    first = init(tmp_path, "table.xlsx")
    assert "Sheets: Readme, My rows. This is Readme; --sheet names another." in first.stdout
    second = init(tmp_path, "table.xlsx", "--sheet", "My rows")
    assert second.returncode == 0, second.stderr
    spec = yaml.safe_load((tmp_path / "table-My-rows.yaml").read_text())
    assert spec["source"] == {"file": "table.xlsx", "sheet": "My rows"}
    assert spec["types"] == {"size": "str"}
    sampled = batchata("plan", "table-My-rows.yaml", "--sample", "2", cwd=tmp_path)
    assert "size: 7" in sampled.stdout, sampled.stderr
    write_workbook(tmp_path / "table.xlsx", sheets)
    planned = batchata("plan", "table-My-rows.yaml", cwd=tmp_path)
    assert "rows 4 and 5 of the source have the same key (id='b')" in planned.stderr
    assert "--sheet: name one of the workbook's sheets" in refused(
        tmp_path, "table.xlsx", "--sheet", "", "--name", "other"
    )
    assert "has no sheet 'Nope'; it has: Readme, My rows" in refused(
        tmp_path, "table.xlsx", "--sheet", "Nope", "--name", "other"
    )


QUERY = "SELECT id, text AS said FROM 'table.csv'\nWHERE text <> 'z'"


@pytest.mark.parametrize("query", [QUERY, f"{QUERY}\n"])
@pytest.mark.usefixtures("emulator")
def test_a_query(query: str, tmp_path: Path) -> None:
    """A query is a table, too, and is written as it was given."""
    text(tmp_path, ["id,text", "1,x", "2,y", "3,z"])
    source = yaml.safe_dump({"sql": query}, default_flow_style=True)
    done = init(tmp_path, source)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "query.yaml").read_text())["source"] == {"sql": query}
    planned = batchata("plan", "query.yaml", cwd=tmp_path)
    assert "2 requests" in planned.stdout, planned.stderr
    assert "change into other first" in refused(
        tmp_path, source, "--folder", "other", "--name", "q"
    )
    assert "TABLE: " in refused(tmp_path, "{sql: ''}")
    assert "TABLE: " in refused(tmp_path, "{sql: [}")


@pytest.mark.usefixtures("emulator")
def test_a_query_of_a_database(postgres: Server, tmp_path: Path) -> None:
    """A table in Postgres gets a spec that names the variable with its URL, never the URL."""
    database = postgres.create()
    postgres.run("CREATE TABLE tickets (id int, said text, price numeric)", database=database)
    postgres.run("INSERT INTO tickets VALUES (1, 'x', 1.50), (2, NULL, 2)", database=database)
    env = {"WAREHOUSE": postgres.url(database)}
    table = "{url_env: WAREHOUSE, query: SELECT * FROM tickets}"
    words = ("init", table, "--name", "tickets", "--folder", "project", "--yes")
    done = batchata(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "project"
    planned = batchata("plan", "tickets.yaml", cwd=project, env=env)
    assert "2 requests" in planned.stdout, planned.stderr
    written = [path.read_text() for path in project.iterdir() if path.is_file()]
    assert not any(postgres.password in one for one in [*written, done.stdout, done.stderr])


@pytest.mark.usefixtures("emulator")
def test_flags(tmp_path: Path) -> None:
    """What flags say is taken: a prompt in words or as a template, a key, a name, an output."""
    table = text(tmp_path, ["id,b,text", "1,1,x", "2,2,y"])
    words = ("--name", "mine", "--key", "b", "--output", "../out", "--prompt", "Translate it.")
    assert init(tmp_path, table, *words).returncode == 0
    spec = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert (spec["key"], spec["output"]) == ("b", "../out")
    assert spec["prompt"] == "Translate it.\n\nid: {{ id }}\nb: {{ b }}\ntext: {{ text }}\n"
    assert "out" not in (tmp_path / ".gitignore").read_text()
    template = ("--name", "other", "--prompt", "{{ text }}: in French?")
    assert init(tmp_path, table, *template).returncode == 0
    assert yaml.safe_load((tmp_path / "other.yaml").read_text())["prompt"] == f"{template[-1]}\n"


@pytest.mark.usefixtures("emulator")
def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    """It is the index of a data frame, most often; a sentence says how to use it all the same."""
    table = text(tmp_path, [",id,text", "0,1,x", "1,2,y"])
    done = init(tmp_path, table)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "A column has no name" in said
    assert 'write row[""] into the prompt' in said
    written = (tmp_path / "table.yaml").read_text()
    spec = yaml.safe_load(written)
    assert (spec["key"], spec["columns"]) == ("id", ["text"])
    assert 'row[""]' not in spec["prompt"]
    assert "#   (no name) ''" in written
    assert "2 requests" in batchata("plan", "table.yaml", cwd=tmp_path).stdout
    used = ("--name", "used", "--prompt", "{{ row[''] }}: {{ text }}", "--key", "")
    done = init(tmp_path, table, *used)
    assert "A column has no name" not in done.stdout
    assert "Key: ''." in done.stdout
    assert "2 requests" in batchata("plan", "used.yaml", cwd=tmp_path).stdout


@pytest.mark.usefixtures("emulator")
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second spec in a folder leaves the first one's files, and works beside them."""
    (tmp_path / ".gitignore").write_text("mine\n")
    table = text(tmp_path, ["id,text", "1,x"])
    assert "added to it: /out/table/" in init(tmp_path, table).stdout
    before = {
        path: path.read_bytes()
        for path in tmp_path.iterdir()
        if path.is_file() and path.name != ".gitignore"
    }
    second = init(tmp_path, table, "--name", "second.one")
    assert second.returncode == 0, second.stderr
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored == ["mine", "/out/table/", ".env", ".venv/", "__pycache__/", "/out/second.one/"]
    assert "models.py was there and stays as it is: see models_second_one.py." in second.stdout
    assert (
        "prefect.yaml was there and stays as it is: see prefect.second.one.yaml; `prefect "
        "--no-prompt deploy --all --prefect-file prefect.second.one.yaml` deploys it."
    ) in second.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert batchata("plan", "second.one.yaml", cwd=tmp_path).returncode == 0
    deployments = yaml.safe_load((tmp_path / "prefect.second.one.yaml").read_text())
    assert {one["name"] for one in deployments["deployments"]} == {"second.one", "local"}
    assert "table.yaml exists already" in refused(tmp_path, table)
    (tmp_path / "second.one.yaml").unlink()
    assert "models_second_one.py exist already" in refused(tmp_path, table, "--name", "second.one")


REFUSALS = [
    (["a,b", "1,2", "1,2"], [], "no column of this table is unique"),
    (["id,b", "1,x", "1,y"], ["--key", "id"], "id is no key: rows 1 and 2 have the same value"),
    (["id,b", "1,x", "1,x"], ["--key", "id"], "or, if it is one row twice, take one out"),
    (["id,b", "1,x", "1,x"], [], "('id' is not: rows 1 and 2 have the same value)"),
    (["id,b", "1,x"], ["--key", "ids"], "has no column 'ids'; did you mean 'id'?"),
    (["_status,b", "1,x"], ["--key", "_status"], "metadata column"),
    (["id,b", "1,x"], ["--key", "id", "--key", "id"], "twice"),
    (["id,b", "1,x"], ["--model", "gpt-99"], "--model: no batch price is known"),
    (["id,b", "1,x"], ["--model", "what"], "belongs to no provider"),
    (["id,b", "1,x"], ["--prompt", "{{ c }}"], "--prompt: the template uses 'c'"),
    (["id,b", "1,x"], ["--name", "a b"], "name"),
    (["id,b", "1,x"], ["--name", "prefect"], "another name"),
    (["id,id", "1,x"], [], "two columns named 'id'"),
    (["id,,", "1,x,y"], [], "two columns without a name; name them"),
    ([",b", "1,x", "2,x"], [], "no column of this table is unique"),
    (["id,b", "1,x,y"], [], "has 3 cells"),
    ([], [], "Empty CSV file"),
]


@pytest.mark.parametrize(("lines", "words", "sentence"), REFUSALS)
@pytest.mark.usefixtures("emulator")
def test_what_is_refused(lines: list[str], words: list[str], sentence: str, tmp_path: Path) -> None:
    """What cannot work is refused with a sentence, and nothing is written."""
    assert sentence in refused(tmp_path, text(tmp_path, lines), *words)


@pytest.mark.parametrize(
    "table",
    [
        "select id, b from 'table.csv'",
        "{sql: select id, b from 'table.csv'}",
        "{url_env: SHOP_DB, query: select id, b from t}",
    ],
)
def test_how_a_query_is_written_is_told(tmp_path: Path, table: str) -> None:
    """Without quotes its commas separate keys, as in any YAML."""
    assert """a query is written as '{sql: "SELECT …"}'""" in refused(tmp_path, table)


@pytest.mark.usefixtures("emulator")
def test_a_null_is_no_key(tmp_path: Path) -> None:
    """A key that is null somewhere, also in the last of many rows, is refused with the row."""
    table = parquet(tmp_path, {"id": [*range(9000), None], "b": ["x"] * 9001})
    assert "'id' is null in row 9001" in refused(tmp_path, table, "--key", "id")


@pytest.mark.usefixtures("emulator")
def test_a_key_is_checked_over_all_rows(tmp_path: Path) -> None:
    """A column that repeats a value in its last row only is not guessed to be the key."""
    columns = {"id": [*range(9000), 0], "code": [f"c{i}" for i in range(9001)]}
    assert init(tmp_path, parquet(tmp_path, columns)).returncode == 0
    assert yaml.safe_load((tmp_path / "table.yaml").read_text())["key"] == "code"


def test_no_table(tmp_path: Path) -> None:
    """Without the table, or without anybody to ask, a sentence says what to do."""
    assert "there is no file gone.csv" in refused(tmp_path, "gone.csv")
    done = batchata("init", text(tmp_path, ["id"]), cwd=tmp_path)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)


@pytest.mark.usefixtures("emulator")
def test_it_asks_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal it asks, with guesses, and asks again for a key that is none."""
    table = text(tmp_path, ["id,code,text", "1,a,x", "2,b,x"])
    leader, follower = pty.openpty()
    with start("init", table, cwd=tmp_path, terminal=os.ttyname(follower)) as running:
        until(lambda: bool(select([leader], [], [], 0)[0]))  # it has opened the terminal
        os.close(follower)
        os.write(leader, b"mine\ntext\ncode\n\nIs it good?\n")
        seen = b""
        while True:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the program has ended
                break
        os.close(leader)
        assert running.wait().returncode == 0, seen.decode()
    assert "text is no key: rows 1 and 2 have the same value" in seen.decode()
    spec = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert (spec["key"], spec["model"]) == ("code", "claude-haiku-5-5")
    assert spec["prompt"].startswith("Is it good?\n")


@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_a_draft_for_documents_works(tmp_path: Path, place: str) -> None:
    """A pattern of documents becomes a table of them, which go with the rows from wherever."""
    (tmp_path / "inbox").mkdir()
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / "inbox" / name).write_bytes(pdf(f"This is {name}."))
    flags = ("--folder", place) if place else ()
    done = batchata("init", "inbox/*.pdf", "--yes", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = yaml.safe_load((tmp_path / place / "inbox.yaml").read_text())
    documents = {"documents": "../inbox/*.pdf" if place else "inbox/*.pdf"}
    assert (spec["source"], spec["key"], spec["file"]) == (documents, "path", "{{ path }}")
    assert spec.get("document_root") == ("../inbox" if place else None)
    done = batchata("rehearse", "inbox.yaml", cwd=tmp_path / place)
    assert done.returncode == 0, done.stderr
    assert "2 succeeded" in done.stdout
