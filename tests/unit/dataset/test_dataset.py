"""The dataset as its readers see it: every engine, every type, while it changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.common.errors import SpecError, StorageError
from batchata_tasks.dataset.columns import META_FIELDS, dataset_schema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.schema.response import ResponseSchema
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

RICH = {
    "type": "object",
    "properties": {
        "label": {"enum": ["x", "y"]},
        "score": {"type": "number"},
        "count": {"type": ["integer", "null"]},
        "day": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "at": {"type": "string", "format": "date-time"},
            },
            "required": ["city", "at"],
        },
    },
    "required": ["label", "score", "count", "day", "tags", "place"],
}


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table whose answers have columns of many types, landed in several parts."""
    made = Table(tmp_path, emulator, "anthropic", rows=12)
    made.run(response_schema=RICH, items_per_batch=5)
    return made


def test_every_engine_reads_the_folder_as_it_is(table: Table) -> None:
    """pandas, pyarrow, DuckDB and Polars see one row per key, typed columns and exact costs."""
    data = table.output / "data"
    frames = {
        "pandas": pd.read_parquet(data),
        "pyarrow": pads.dataset(data).to_table().to_pandas(),
        "duckdb": duckdb.sql(f"from read_parquet('{data}/*.parquet')").to_arrow_table().to_pandas(),
        "polars": pl.read_parquet(data).to_pandas(),
        "polars scan": pl.scan_parquet(f"{data}/*.parquet").collect().to_pandas(),
    }
    for engine, frame in frames.items():
        assert sorted(frame["id"]) == sorted(value["id"] for value in table.values), engine
        assert set(frame["label"]) <= {"x", "y"}, engine
        assert all(place["city"] for place in frame["place"]), engine
        assert list(frame.columns) == ["id", "note", *RICH["properties"], *META_FIELDS.names], (
            engine
        )
    total = duckdb.sql(f"select sum(_cost_usd) from read_parquet('{data}/*.parquet')").fetchall()[
        0
    ][0]
    assert total == sum(row["_cost_usd"] for row in table.rows())


def test_columns_have_the_types_of_the_response_model(table: Table) -> None:
    """Dates are dates, nested models structs, lists lists, money a decimal."""
    (first, *_) = sorted((table.output / "data").iterdir())
    schema = pq.read_schema(first)
    assert schema.field("day").type == pa.date32()
    assert schema.field("count").type == pa.int64()
    assert schema.field("place").type.field("at").type == pa.timestamp("us", tz="UTC")
    assert pa.types.is_list(schema.field("tags").type)
    assert schema.field("_cost_usd").type == pa.decimal128(20, 12)
    assert schema.field("_enriched_at").type == pa.timestamp("us", tz="UTC")


def test_only_parquet_files_lie_in_data(table: Table) -> None:
    """A reader of the folder sees only parts, hidden files included."""
    assert {path.suffix for path in (table.output / "data").iterdir()} == {".parquet"}


def test_a_changed_response_model_leaves_one_schema(table: Table) -> None:
    """If some rows are re-run under a new model, all parts have its columns.

    The raw answers stay.
    """
    smaller = {
        "type": "object",
        "properties": {"label": {"type": "string"}, "why": {"type": "string"}},
        "required": ["label", "why"],
    }
    table.run(response_schema=smaller, limit=4)
    data = table.output / "data"
    frame = duckdb.sql(f"from read_parquet('{data}/*.parquet')").to_arrow_table().to_pandas()
    assert list(frame.columns) == ["id", "note", "label", "why", *META_FIELDS.names]
    assert frame["why"].notna().sum() == 4
    assert frame["_response"].notna().all()
    assert len({pq.read_schema(path) for path in data.iterdir()}) == 1


def test_a_reader_never_misses_a_key(table: Table) -> None:
    """While rows are superseded a reader sees each key's old or new row, or both."""
    wanted = {value["id"] for value in table.values}
    missed = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen = set(
                    pads.dataset(table.output / "data", format="parquet")
                    .to_table(columns=["id"])["id"]
                    .to_pylist()
                )
            except FileNotFoundError:
                # a part was listed and then deleted: its keys are in the new one, read again
                continue
            if not wanted <= seen:
                missed.append(wanted - seen)

    reader = threading.Thread(target=read)
    reader.start()
    for prompt in ("a {{ text }}", "b {{ text }}", "c {{ text }}"):
        table.run(response_schema=RICH, items_per_batch=3, prompt=prompt)
    stop.set()
    reader.join()
    assert missed == []


def test_name_clashes_are_refused() -> None:
    """Source, response model and metadata share one table, so no name may be two columns."""
    answers = ResponseSchema.from_json_schema(
        {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}, "x"
    )
    with pytest.raises(SpecError, match="'id'"):
        dataset_schema(pa.schema([("id", pa.string())]), answers)
    with pytest.raises(SpecError, match="'_status'"):
        dataset_schema(pa.schema([("_status", pa.string())]), None)


def test_a_damaged_part_is_named(table: Table) -> None:
    """A part that cannot be read stops the run before anything is sent, and is named."""
    (part, *_) = sorted((table.output / "data").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    before = table.ledger()["requests_accepted"]
    with pytest.raises(StorageError, match=part.name):
        table.run(response_schema=RICH)
    assert table.ledger()["requests_accepted"] == before


def test_superseding_an_emptied_part_deletes_it(tmp_path: Path) -> None:
    """A part without keys of its own is deleted; one that keeps a key keeps only that."""
    (tmp_path / "data").mkdir()
    (tmp_path / "_batchata").mkdir()
    schema = dataset_schema(pa.schema([("id", pa.int64())]), None)
    dataset = Dataset(tmp_path / "data", schema, ["id"], ["id"])
    for name, ids in (("a.parquet", [1, 2]), ("b.parquet", [3, 4])):
        rows = pa.RecordBatch.from_pylist(
            [{"id": i, "_status": "succeeded"} for i in ids], schema=schema
        )
        with dataset.part_file(dataset.data / name) as writer:
            writer.write_batch(rows)
    gone = {key_digest(canonical([i])) for i in (1, 2, 3)}
    dataset.supersede({"a.parquet": gone, "b.parquet": gone})
    assert list(dataset.parts()) == ["b.parquet"]
    assert [path.name for path in dataset.data.iterdir()] == ["b.v2.parquet"]
    assert pq.read_table(dataset.data)["id"].to_pylist() == [4]


def test_a_row_that_came_back_is_taken_out_again(table: Table) -> None:
    """The next run removes an older part that came back.

    A process that has lost the dataset may, at its last moment, restore one.
    """
    table.run(items_per_batch=3)
    parts = {path.name: path.read_bytes() for path in (table.output / "data").iterdir()}
    table.run(items_per_batch=3, prompt="Now: {{ text }}")
    before = table.rows()
    name, content = min(parts.items())
    (table.output / "data" / name.replace(".parquet", ".v2.parquet")).write_bytes(content)
    assert len(pq.read_table(table.output / "data")) == len(before) + 3
    assert table.run(items_per_batch=3, prompt="Now: {{ text }}").outcomes == {}
    assert table.rows() == before


def test_a_ledgers_name_of_a_dataset_leads_to_its_folder(tmp_path: Path) -> None:
    """Whatever characters the folder's path has."""
    folder = DatasetFolder(str(tmp_path / "my data #1, 50%"))
    assert DatasetFolder.at_url(folder.url).root == folder.root.resolve()
