"""A plan on disk returns, for any range, the rows and bodies that were written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.manifest import (
    SYSTEM_FIELDS,
    PlanWriter,
    _batches,
    plan_bodies,
    plan_columns,
    read_chunk_manifest,
    write_chunk_manifest,
)
from batchata_tasks.ledger import Chunk
from tests.support.by_day import examples

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = pa.schema(
    [
        pa.field("k", pa.int64()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("empty", pa.null()),
    ]
)
BLOCKS = [1, 7, 64, 3, 25]
ROWS = sum(BLOCKS)


def plan_rows(folder: Path, name: str, start: int, stop: int) -> pa.Table:
    return pa.Table.from_batches(list(_batches(folder / f"{name}.arrow", start, stop)))


def body(number: int) -> bytes:
    return b'{"n":%d,"text":"%s"}' % (number, "ü\u2028".encode() * (number % 5))


def system(number: int) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(SYSTEM_FIELDS.names, number)
    fields |= {
        name: None if number % 3 == 0 else f"{name}{number}"
        for name in (
            *("_error", "_replaces", "_schema"),
            *("_prior_status", "_prior_error", "_last_error", "_batchata_left"),
        )
    }
    fields["_changed"] = number % 2 == 0
    return fields | {"_row_id": f"{number:024}", "_fingerprint": f"v1:{number}"}


def columns_of(rows: range) -> dict[str, list[Any]]:
    systems = [system(number) for number in rows]
    return {name: [row[name] for row in systems] for name in systems[0]}


def source_rows(start: int, stop: int) -> pa.RecordBatch:
    rows = range(start, stop)
    arrays = [
        pa.array(rows, pa.int64()),
        pa.array([["t"] * (n % 3) for n in rows], SOURCE.field(1).type),
        pa.nulls(len(rows)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SOURCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a plan of 100 rows, written in blocks of several sizes."""
    path = tmp_path_factory.mktemp("plan")
    with PlanWriter(path, "plan", SOURCE) as plan:
        start = 0
        for size in BLOCKS:
            rows = range(start, start + size)
            plan.write(source_rows(start, start + size), columns_of(rows), [body(n) for n in rows])
            start += size
    assert plan.rows == ROWS
    return path


def chunk_of(start: int, stop: int) -> Chunk:
    return Chunk("c", "r", "d", 1, "batch", "anthropic", "m", "chat", start, stop, 1, 1, "planned")


RANGES = st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], ROWS))
)


@given(RANGES)
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_a_range_reads_as_it_was_written(folder: Path, limits: tuple[int, int]) -> None:
    """A range across blocks has the rows, columns and bodies that were written, in order."""
    rows, chunk = range(*limits), chunk_of(*limits)
    table = plan_rows(folder, "plan", *limits)
    assert table.select(SOURCE.names).to_pylist() == source_rows(*limits).to_pylist()
    offsets = [sum(len(body(n)) + 1 for n in range(number)) for number in rows]
    expected = [
        system(number) | {"_offset": offset} for number, offset in zip(rows, offsets, strict=True)
    ]
    assert table.select(SYSTEM_FIELDS.names).to_pylist() == expected
    assert list(plan_bodies(folder, chunk)) == [(f"{number:024}", body(number)) for number in rows]
    blocks = list(plan_columns(folder, chunk, ["_bound", "k"]))
    assert (
        [n for block in blocks for n in block["_bound"]]
        == [n for block in blocks for n in block["k"]]
        == list(rows)
    )


@given(RANGES)
@settings(deadline=None, max_examples=examples(25), derandomize=True)
def test_a_chunk_manifest_outlives_its_plan(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, limits: tuple[int, int]
) -> None:
    """The file beside the intent holds only the chunk's rows, with all columns of the plan."""
    path = tmp_path_factory.mktemp("intents") / "c.arrow"
    start, stop = limits
    write_chunk_manifest(folder, chunk_of(start, stop), path)
    assert read_chunk_manifest(path).equals(plan_rows(folder, "plan", start, stop))


def test_bodies_stand_one_to_a_line(folder: Path) -> None:
    """The file of bodies is JSON lines."""
    assert (folder / "plan.bodies.jsonl").read_bytes() == b"".join(
        body(n) + b"\n" for n in range(ROWS)
    )


def test_a_plan_that_breaks_off_is_not_there(tmp_path: Path) -> None:
    """A plan exists whole or not at all."""

    def write() -> None:
        with PlanWriter(tmp_path, "plan", SOURCE) as plan:
            plan.write(source_rows(0, 2), columns_of(range(2)), [body(0), body(1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())


def test_an_empty_plan_is_two_files(tmp_path: Path) -> None:
    """A plan without rows can be written, and has none."""
    with PlanWriter(tmp_path, "local", SOURCE) as plan:
        pass
    assert plan.rows == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local.arrow", "local.bodies.jsonl"]


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    """A missing plan or manifest is one sentence."""
    with pytest.raises(StorageError, match=r"plan\.arrow is needed"):
        plan_rows(tmp_path, "plan", 0, 1)
    with pytest.raises(StorageError, match=r"c\.arrow is needed"):
        read_chunk_manifest(tmp_path / "c.arrow")
