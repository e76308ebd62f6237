"""Small parts are merged, and who knew a part by its name still finds its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.common.errors import LeaseError
from batchata_tasks.dataset import merging
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.merging import full_tiers, merge_full_tiers
from batchata_tasks.dataset.part_files import chunks_in, part_of_chunk
from batchata_tasks.dataset.parts import Dataset
from tests.support.books import check_money
from tests.support.stuck import add_rows, limited, stick, told
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

SCHEMA = dataset_schema(pa.schema([("id", pa.int64()), ("note", pa.string())]), None)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return an empty dataset."""
    (tmp_path / "data").mkdir()
    (tmp_path / "_batchata").mkdir()
    return Dataset(tmp_path / "data", SCHEMA, ["id"], ["note"])


def land(
    dataset: Dataset, chunk: str, ids: Iterable[int], *, at: int = 0, schema: pa.Schema = SCHEMA
) -> None:
    """Write a part as a chunk lands it."""
    rows = [
        {"id": i, "note": chunk, "_status": "succeeded", "_enriched_at": at, "_attempts": 1}
        for i in ids
    ]
    with dataset.part_file(dataset.data / part_of_chunk(chunk), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def notes(dataset: Dataset) -> dict[int, str]:
    """Return which chunk each row is from; every key is there once."""
    rows = pq.read_table(dataset.data, columns=["id", "note"]).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["note"] for row in rows}


@pytest.fixture(params=MODELS)
def table(emulator: Emulator, tmp_path: Path, request: pytest.FixtureRequest) -> Table:
    """Return a table whose runs use one of the providers."""
    return Table(tmp_path, emulator, request.param, rows=4)


def digests(*ids: int) -> set[bytes]:
    return {key_digest(canonical([i])) for i in ids}


@pytest.mark.parametrize("night", [900, 20_000, 3_000_000])
def test_a_thousand_nights_are_few_files_and_each_byte_is_seldom_rewritten(night: int) -> None:
    """Files and rewrites grow with the logarithm of the nights; large parts are left alone."""
    sizes, rewritten, most = dict[str, int](), 0, 0
    for number in range(1000):
        sizes[f"{number}"] = night
        while full := full_tiers(sizes):
            size = sum(sizes.pop(part) for part in full[0])
            sizes[f"merged {number} {size}"] = size
            rewritten += size
        most = max(most, len(sizes))
    assert sum(sizes.values()) == 1000 * night
    assert most < 100
    first_tier = max(64 << 10, 8 * night)  # a part that it merges is rewritten with each new one
    assert rewritten <= 1000 * night * 4 + 1000 / 7 * first_tier


def test_what_named_a_part_finds_its_rows_in_the_one_that_took_it_over(dataset: Dataset) -> None:
    """A manifest in flight supersedes rows by the name of a part that was merged twice since."""
    for name, ids in (("a", [1, 2]), ("b", [3]), ("c", [4])):
        land(dataset, name, ids)
    with patch.object(merging, "FULL", 3):
        merge_full_tiers(dataset)
        land(dataset, "d", [5])
        land(dataset, "e", [6])
        merge_full_tiers(dataset)
    (part,) = dataset.parts()
    holders = dataset.holders()
    assert set(map(part_of_chunk, "abcde")) <= holders.keys()
    assert set(holders.values()) == {part}
    (rows,) = dataset.part_rows(part_of_chunk("b"), ["id"])
    assert sorted(rows["id"].to_pylist()) == [1, 2, 3, 4, 5, 6]
    dataset.supersede({part_of_chunk("a"): digests(1), part_of_chunk("d"): digests(5)})
    assert notes(dataset) == {2: "a", 3: "b", 4: "c", 6: "e"}
    assert dataset.holders() == holders  # the next version tells it, too
    gone = list[str]()
    dataset.emptied = gone.extend
    dataset.supersede({part: digests(2, 3, 4, 6)})
    assert (sorted(gone), dataset.parts()) == (["a", "b", "c", "d", "e"], {})


def test_a_merge_that_died_is_finished_by_the_next_run(dataset: Dataset) -> None:
    """It lost its lease before it could delete what it had merged; each row is there once again."""
    for name in "abc":
        land(dataset, name, [ord(name)])
    before = notes(dataset)

    def lost() -> None:
        if any(path.name.startswith("merged-") for path in dataset.data.iterdir()):
            message = "lost"
            raise LeaseError(message)

    dataset.gate = lost
    with patch.object(merging, "FULL", 3), pytest.raises(LeaseError):
        merge_full_tiers(dataset)
    assert len(dataset.parts()) == 4
    dataset.gate = lambda: None
    dataset.tidy()
    assert len(dataset.parts()) == 1
    assert notes(dataset) == before


def test_rows_that_came_back_do_not_come_into_one_file(dataset: Dataset) -> None:
    """Of two rows of a key the newer stays: in one file no plan would notice the other."""
    for at, name in enumerate("cab"):
        land(dataset, name, [7, ord(name)], at=at)
    with patch.object(merging, "FULL", 3):
        merge_full_tiers(dataset)
    assert notes(dataset) == {7: "b", ord("a"): "a", ord("b"): "b", ord("c"): "c"}


def test_only_finished_parts_of_the_same_columns_are_merged(dataset: Dataset) -> None:
    """What a landing is to write again stays as it is, and no value changes its type."""
    wider = dataset_schema(pa.schema([("id", pa.int64()), ("note", pa.large_string())]), None)
    for name in "abcd":
        land(dataset, name, [ord(name)])
    land(dataset, "x", [1], schema=wider)
    with patch.object(merging, "FULL", 4):
        merge_full_tiers(dataset, {part_of_chunk("a")})
        assert len(dataset.parts()) == 5
        merge_full_tiers(dataset)
    chunks = [sorted(chunks_in(path)) for path in dataset.parts().values()]
    assert chunks == [["a", "b", "c", "d"], ["x"]]


def test_a_merged_part_has_few_row_groups(dataset: Dataset) -> None:
    """One for each part would make the footer larger than the rows."""
    for number in range(8):
        land(dataset, f"n{number}", [number])
    merge_full_tiers(dataset)
    (path,) = dataset.parts().values()
    assert pq.read_metadata(path).num_row_groups == 1


@pytest.mark.in_turn
def test_a_batch_in_flight_supersedes_rows_that_were_merged_meanwhile(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overdue batch lands nights later, when the part that its manifest names is merged.

    A column that its spec had dropped keeps its values.
    """
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.3")
    monkeypatch.setenv("BATCHATA_CANCEL_GRACE", "0.2")
    with patch.object(merging, "FULL", 3):
        table.run()
        for value in table.values[:2]:
            value["text"] += ", changed"
        table.write()
        stick(table)
        receipt, _ = told(table, limited(), columns=["id"])
        assert receipt.held_rows == 2
        for _ in range(2):
            add_rows(table, 1)
            table.run(columns=["id"])
        (part,) = (table.output / "data").iterdir()
        assert len(chunks_in(part)) == 3
        batches = [line["id"] for line in table.ledger()["batches"]]
        for batch in batches:
            table.emulator.control.finish(batch)
        assert table.run(columns=["id"]).exit_code == 0
    rows = {row["id"]: row for row in table.rows()}
    assert [rows[one["id"]]["note"] for one in table.values[:4]] == ["n0", "n1", "n2", "n3"]
    table.check_answers()
    check_money(table)
