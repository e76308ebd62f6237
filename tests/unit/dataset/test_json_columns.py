"""Objects and lists of JSON lines, night after night: each row has its own, and keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.json_columns import json_array
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.fingerprint import part
from batchata_tasks.planning.legacy import inferred_type, legacy_values
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from tests.support.nights import Nights

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

OBJECTS: list[Any] = [{"lang": "de"}, {"size": 3, "who": {"u1": []}}, [1, "x", {}], {}, None]


@pytest.fixture
def nights(emulator: Emulator, tmp_path: Path) -> Nights:
    """Return nights without any yet."""
    return Nights(tmp_path)


def _rows(values: list[Any]) -> list[dict[str, Any]]:
    return [{"id": number, "v": value} for number, value in enumerate(values)]


def test_each_row_is_asked_about_its_own_object(nights: Nights) -> None:
    """A new field in a new row sends that row alone; order and fields are those of the line."""
    spec = {"prompt": "About {{ v }}", "on_null": "pass"}
    assert nights.run_lines(_rows(OBJECTS), **spec) == 5
    assert sorted(nights.asked()) == sorted(
        f"About {'' if value is None else value}" for value in OBJECTS
    )
    before = nights.content()
    assert nights.run_lines(_rows([*OBJECTS, {"new": {"deep": [{}]}}]), **spec) == 1
    assert nights.asked()[-1] == "About {'new': {'deep': [{}]}}"
    assert before.items() <= nights.content().items()
    assert nights.run_lines(_rows([OBJECTS[0]]), **spec) == 0
    assert nights.objects("v") == dict(enumerate([*OBJECTS, {"new": {"deep": [{}]}}]))


def test_every_reader_shows_texts_of_json(nights: Nights) -> None:
    """Pandas, Polars, DuckDB and pyarrow read the parts, and `show` shows the same."""
    nights.run_lines(_rows(OBJECTS))
    texts = [None if v is None else json.dumps(v, separators=(",", ":")) for v in OBJECTS]
    data = nights.output / "data"
    query = f"select v from read_parquet('{data}/*.parquet') order by id"
    frame = pd.read_parquet(data).sort_values("id")["v"]
    assert [None if pd.isna(value) else value for value in frame] == texts
    assert pl.read_parquet(data / "*.parquet").sort("id")["v"].to_list() == texts
    assert pl.read_parquet(data / "*.parquet")["v"].dtype == pl.String
    assert [row[0] for row in duckdb.sql(query).fetchall()] == texts
    assert nights.type_of("v") == pa.string()
    shown = dataset_rows(nights.spec(), Selection(10))
    assert [row["v"] for row in sorted(shown, key=lambda row: row["id"])] == texts


def test_objects_change_leave_and_come_back(nights: Nights) -> None:
    """A changed value is carried unpaid, a retired column keeps its own, lists of text are JSON."""
    assert nights.run_lines(_rows([{"a": 1}, ["x"]])) == 2
    assert nights.run_lines(_rows([{"a": 1.5}, ["x"]])) == 0
    assert nights.objects("v") == {0: {"a": 1.5}, 1: ["x"]}
    changed = [{"id": 0, "v": 1, "text": "new"}, {"id": 1, "v": True}]
    assert nights.run_lines(changed, columns=[]) == 1
    assert nights.objects("v") == {0: {"a": 1.5}, 1: ["x"]}
    assert nights.run_lines([{"id": 0, "v": ["y"], "text": "new"}]) == 0
    assert nights.objects("v") == {0: ["y"], 1: ["x"]}
    nights.write_lines([{"id": 0, "v": "text"}])
    with pytest.raises(SpecError, match=r"^columns: 'v' is string in .* and JSON in the dataset"):
        nights.plan()


def test_an_object_may_be_the_key(nights: Nights) -> None:
    """It is the same key in another order, and another one with another type of number."""
    spec = {"key": "v", "columns": ["id"]}
    assert nights.run_lines(_rows([{"a": 1, "b": []}, {"a": "1"}]), **spec) == 2
    assert nights.run_lines(_rows([{"b": [], "a": 1}, {"a": "1"}]), **spec) == 0
    assert nights.run_lines(_rows([{"b": [], "a": 1}, {"a": 1.0}, {}]), **spec) == 2
    nights.write_lines(_rows([{"a": 1, "b": 2}, {"b": 2, "a": 1}]))
    with pytest.raises(SourceError, match=r"rows 1 and 2 of the source have the same key"):
        nights.plan(**spec)


def test_the_deepest_values_go_all_the_way(nights: Nights) -> None:
    """A hundred levels in prompt, `where`, key and carried column; structs may have fewer."""
    values: list[Any] = [0.5]
    for _ in range(50):
        values.append({"a": [values[-1]]})
    deep = values[-1]
    rows = [{"id": deep, "v": deep}, {"id": {}, "v": deep}]
    spec = {"prompt": "{{ v }} {{ v | tojson }} {{ v['a'] | length }}", "where": "v != id or v"}
    assert nights.run_lines(rows, **spec) == 2
    assert nights.asked()[0] == f"{deep} {json.dumps(deep)} 1"
    assert nights.run_lines(rows, **spec) == 0
    nights.output = nights.output.with_name("other")
    _as_before(nights, [{"a": []}])
    nights.write_lines(_rows([deep]))
    with pytest.raises(SpecError, match=r"'v' is struct<a: list<.*… in .*, which Parquet cannot"):
        nights.plan()
    assert nights.run_lines(_rows([values[30]])) == 0


def test_an_item_that_is_missing_is_said(nights: Nights) -> None:
    """With its row, in prompts and in `where`, on every night; a template may ask for it first."""
    for values in ([{"lang": "de"}, {"size": 3}], [{"lang": "de"}, {"size": 4}, {"size": 3}]):
        nights.write_lines(_rows(values))
        for field in ({"prompt": "In {{ v.lang }}"}, {"where": "v.lang == 'de'"}):
            with pytest.raises(SourceError, match=r"row 2 \(id=1\): .*'lang'"):
                enrich(nights.spec(**field))
        spec = {
            "prompt": "In {{ v.lang if v.lang is defined else '?' }}",
            "where": "v.lang is defined or v.size > 3",
        }
        enrich(nights.spec(**spec))
    assert nights.asked() == ["In de", "In ?"]


def _as_before(nights: Nights, values: list[Any], **changes: Any) -> None:
    """Land rows as the version before did: structs and lists, and a record of format 1."""
    nights.run(changes, id=list(range(len(values))), v=pa.array(values))
    path = nights.output / "_batchata/schema.json"
    record = read_json(path)
    assert record is not None
    write_json(path, {**record, "format": 1})


def _legacy(nights: Nights) -> dict[str, pa.DataType]:
    declared = DeclaredSchema.read(DatasetFolder(str(nights.output)))
    assert declared is not None
    return declared.legacy()


@pytest.mark.parametrize(
    ("landed", "tonight", "after", "kind"),
    [
        (
            [{"a": 1, "b": None}, {"a": None, "b": "x"}],
            [{"a": 1}, {"b": "x"}, {"a": 2, "c": True}],
            [(1, None, None), (None, "x", None), (2, None, True)],
            pa.struct([("a", pa.int64()), ("b", pa.string()), ("c", pa.bool_())]),
        ),
        ([[{"a": 1.0}], []], [[{"a": 1}], [], [{"a": 2.5}]], None, None),
        ([[1], [2, 3]], [[1], [2, 3], [0.5]], [[1.0], [2.0, 3.0], [0.5]], pa.list_(pa.float64())),
    ],
)
def test_a_dataset_of_structs_keeps_them(
    nights: Nights, landed: list[Any], tonight: list[Any], after: list[Any] | None, kind: Any
) -> None:
    """The same rows as JSON lines change no byte; a new field or type widens the column.

    Prompts have each row's own value all the same.
    """
    _as_before(nights, landed)
    before, declared = nights.content(), pa.array(landed).type
    assert nights.run_lines(_rows(tonight[: len(landed)])) == 0
    assert nights.content() == before
    assert _legacy(nights) == {"id": pa.int64(), "v": declared, "text": pa.string()}
    assert nights.run_lines(_rows(tonight), prompt="{{ v }}", rerun_on=["new"]) == 1
    assert nights.asked()[-1] == str(tonight[-1])
    assert nights.type_of("v") == (kind or declared)
    values = nights.column("v")
    if kind is not None and pa.types.is_struct(kind):
        values = {key: tuple(value.values()) for key, value in values.items()}
    assert values == dict(enumerate(after or tonight))
    assert _legacy(nights)["v"] == declared
    with pq.ParquetFile(next(nights.output.glob("data/*"))) as file:
        assert not (file.schema_arrow.field("v").metadata or {}).get(b"batchata:type")


def test_a_key_of_structs_is_found_again(nights: Nights) -> None:
    """Though the lines of JSON leave out its nulls."""
    spec = {"key": "v", "columns": ["id"]}
    _as_before(nights, [{"a": 1, "b": None}, {"a": None, "b": "x"}], **spec)
    before = nights.content()
    assert nights.run_lines(_rows([{"a": 1}, {"b": "x", "a": None}]), **spec) == 0
    assert nights.content() == before


def test_structs_refuse_what_they_cannot_hold(nights: Nights) -> None:
    """A list of several kinds, or an object for a list: told by row and value, nothing changes."""
    _as_before(nights, [[1], [2, 3]])
    before = nights.content()
    for value in ([1, "x"], {"a": 1}):
        nights.write_lines(_rows([[1], value]))
        with pytest.raises(SpecError, match=r"^columns: 'v' is .*row 2 of .* has .*output"):
            enrich(nights.spec())
    assert nights.content() == before


def test_empty_lists_and_nulls_may_become_json(nights: Nights) -> None:
    """Of these nothing has landed that JSON would change."""
    nights.run_lines(_rows([[], None]))
    assert nights.run_lines(_rows([[], {"a": 1}, [1]])) == 1
    assert nights.objects("v") == {0: [], 1: {"a": 1}, 2: [1]}


_NAMES = st.sampled_from(["a", "b", "$c"])
_OBJECTS = st.dictionaries(
    _NAMES,
    st.none() | st.integers(-9, 9) | st.dictionaries(_NAMES, st.integers(0, 9) | st.just(0.5)),
    max_size=3,
)


@given(st.lists(_OBJECTS, min_size=1, max_size=4), _OBJECTS)
@settings(deadline=None)
def test_legacy_values_are_what_fingerprints_were_of(values: list[Any], other: Any) -> None:
    """Whatever a row's object has now, it reads as before; one that could not be then says so."""
    if (kind := _type_of(values)) is None:
        return
    read = pa.array(values, kind).to_pylist()
    rows = pa.RecordBatch.from_arrays([json_array([*values, other])], ["v"])
    assert inferred_type([json_array(values[:1]), json_array(values)]) == kind
    legacy, fits = legacy_values(rows, {"v": kind})
    found, fitting = legacy.column(0).to_pylist(), fits.to_pylist()
    assert legacy.schema.field(0).type == kind
    assert fitting[:-1] == [True] * len(values)
    for before, after in zip(read, found[:-1], strict=True):
        assert part("input", {"v": before}) == part("input", {"v": after})
    if fitting[-1]:
        assert _without_nulls(found[-1]) == _without_nulls(other)
    else:
        assert found[-1] is None
        assert _type_of([*values, other]) != kind


def _type_of(values: list[Any]) -> pa.DataType | None:
    try:
        return pa.infer_type(values)
    except pa.ArrowException:
        return None


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(item) for name, item in value.items() if item is not None}
