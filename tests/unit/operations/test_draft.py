"""Drafts of specs: names, templates, and files that git ignores."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchata_tasks.common.errors import SpecError
from batchata_tasks.operations.draft.facts import look_at
from batchata_tasks.operations.draft.files import answer_fields, ignored, prefect_text
from batchata_tasks.operations.draft.keys import guess_key
from batchata_tasks.operations.draft.writing import Draft, default_name, write
from batchata_tasks.planning.hints import literal
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.loading import parse_spec

NAMES = [
    ("data/tickets.csv", "tickets"),
    ("tickets.csv.gz", "tickets"),
    ("data/day=2026/", "day-2026"),
    ("Kunden Liste (neu).csv", "Kunden-Liste-neu"),
    ("data/tickets/*.csv", "tickets"),
    ("tickets-*.csv", "tickets"),
    ("s3://bucket/place/table.parquet", "table"),
    ("prefect.csv", "table"),
    ("표.csv", "table"),
    (".", "table"),
    (f"{'x' * 200}.csv", "x" * 100),
]


@pytest.mark.parametrize(("table", "name"), NAMES)
def test_the_name_of_a_table(table: str, name: str) -> None:
    """A spec is named for its table, by characters that a name may have."""
    assert default_name(table) == name
    values = {"source": "s", "key": "k", "model": "claude-haiku-5-5", "prompt": "p"}
    assert isinstance(parse_spec({"name": name, "output": "o", **values}), EnrichmentSpec)


@pytest.mark.parametrize("name", ["a b", 'q"', "q'", "q'\"", "\\", "\n\t\0", "}}", "%}", "ä é", ""])
def test_any_name_can_be_quoted(name: str) -> None:
    """A quoted name of a column stands on one line, and its template prints the value."""
    template = RowTemplate("prompt", f"{{{{ row[{literal(name)}] }}}}", [name])
    assert "\n" not in literal(name)
    assert template.render(variables({name: "the value"}), lambda: "row 1") == "the value"


KEYS = {
    "a number, not a name with blanks": ("Name,Kundennummer", ["A B,17", "C D,18"], "Kundennummer"),
    "as keys are called, in any language": ("Ort,Kd.-Nr.", ["Bonn,1", "Ulm,2"], "Kd.-Nr."),
    "words written together": ("stars,orderId", ["3,a", "4,b"], "orderId"),
    "else the first": ("ticket,name", ["t1,x", "t2,y"], "ticket"),
    "never one with a value twice": ("id,slug,said", ["1,a,x", "1,b,y"], "slug"),
    "never one with an empty value": ("id,city", [",Bonn", "2,Ulm"], "city"),
    "no amounts": ("price,day,word", ['"1,50",2026-01-01,a', '"2,50",2026-01-02,b'], "word"),
    "a sentence, if nothing else is unique": ("code,said", ["a,so it is", "a,or not"], "said"),
}


@pytest.mark.parametrize(("head", "rows", "key"), KEYS.values(), ids=KEYS)
def test_the_key_is_what_the_values_say(
    head: str, rows: list[str], key: str, tmp_path: Path
) -> None:
    """Integers and short texts that are unique; of these by its name, and else the first."""
    (tmp_path / "table.csv").write_text("\n".join([head, *rows, ""]))
    assert guess_key(look_at(str(tmp_path / "table.csv"))).names == [key]


def test_a_unique_column_comes_before_any_pair(tmp_path: Path) -> None:
    """However many columns repeat a value in their last rows only."""
    columns = {f"c{i}": [*range(50_000), i] for i in range(20)}
    pq.write_table(pa.table({**columns, "z": range(50_001)}), tmp_path / "table.parquet")
    assert guess_key(look_at(str(tmp_path / "table.parquet"))).names == ["z"]


def test_fields_are_named_beside_carried_columns() -> None:
    """Fields of an answer have other names than the table's columns, in any case."""
    fields = answer_fields(["Category", "summary", "answer_summary"])
    assert fields == {
        "category": "answer_category",
        "summary": "answer_answer_summary",
        "confidence": "confidence",
    }


@pytest.mark.parametrize(
    ("output", "lines"),
    [("out/a", ["/out/a/"]), ("./out", ["/out/"]), ("../o", []), ("/o", []), ("s3://b/o", [])],
)
def test_what_git_ignores(output: str, lines: list[str]) -> None:
    """Only an output within the folder is for its .gitignore."""
    assert [line for line in ignored(output) if "o" in line and "env" not in line][:1] == lines


def test_all_files_or_none(tmp_path: Path) -> None:
    """If one of the files came in between, no other one is left, and it stays as it is."""
    (tmp_path / "b").write_text("theirs")
    with pytest.raises(SpecError, match="exists already, and nothing was written"):
        write(Draft("a", {"a": "ours", "b": "ours"}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert Path(tmp_path / "b").read_text() == "theirs"


@pytest.mark.parametrize("name", ["tickets", "no", "null", "010", "1_000", "2026-01-01", "true"])
def test_deployments_have_the_name_of_the_spec(name: str) -> None:
    """Whatever YAML would read it as: a table may be named by its day."""
    drafted = yaml.safe_load(prefect_text(name, f"{name}.yaml", "prefect.yaml"))
    assert (drafted["name"], [one["name"] for one in drafted["deployments"]]) == (
        name,
        [*[name] * 4, "local"],
    )
    assert drafted["deployments"][0]["parameters"] == {"spec": f"{name}.yaml"}


def test_one_line_names_the_work_pool() -> None:
    """A team takes a pool of its own for all deployments of a spec by changing one line."""
    drafted = prefect_text("tickets", "tickets.yaml", "prefect.yaml")
    ours = drafted.replace("pool: &pool local\n", "pool: &pool analytics\n")
    pools = [one["work_pool"]["name"] for one in yaml.safe_load(ours)["deployments"]]
    assert pools == ["analytics"] * 5
