"""The landed rows of a plan: each key's newest row, found among any number of others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.planning import key_arrays
from batchata_tasks.planning.key_arrays import InFlight, Keys, SentRow, SourceKeys
from batchata_tasks.planning.landed import Landed, LandedRow
from tests.support.by_day import examples

if TYPE_CHECKING:
    from pathlib import Path

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
PRINTS = [
    f"{version}:{digit * 24}.{other * 24}.{'c' * 24}.{'d' * 24}"
    for version in ("v1", "v2")
    for digit in "0a"
    for other in "1b"
] + ["v3:ab.c", "", "v1:" + "g" * 24 + ".rest", "v1:" + "é" * 12 + ".x"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 12),
            "_fingerprint": st.sampled_from(PRINTS),
            "_status": st.sampled_from(["succeeded", "errored"]),
            "_error": st.none() | st.text(max_size=5),
            "_attempts": st.integers(0, 3),
            "_input_tokens": st.integers(0, 2**40),
            "_output_tokens": st.integers(0, 9),
            "_cache_read_tokens": st.integers(0, 9),
            "_cost_usd": st.none() | st.integers(0, 10**18).map(lambda n: Decimal(n).scaleb(-12)),
            "_enriched_at": st.integers(0, 5),
        }
    ),
    max_size=12,
)


def written(folder: Path, parts: list[list[dict[str, Any]]]) -> Dataset:
    """Write parts of a dataset whose key is `id`, and which carries `note`."""
    carried = pa.schema([("id", pa.int64()), ("note", pa.string())])
    schema = dataset_schema(carried, None)
    dataset = Dataset(folder / "data", schema, ["id"], ["id", "note"])
    dataset.data.mkdir()
    for number, rows in enumerate(parts):
        moments = [SINCE + timedelta(microseconds=row["_enriched_at"]) for row in rows]
        table = [{**row, "_enriched_at": moment} for row, moment in zip(rows, moments, strict=True)]
        path = dataset.data / f"part-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(table, schema), path)
    return dataset


def digest_of(key: int) -> bytes:
    return key_digest(canonical([key]))


def newest(parts: list[list[dict[str, Any]]]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return each key's newest row with its part, by a rule of this test alone."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for number, rows in enumerate(parts):
        for row in rows:
            before = found.get(row["id"])
            if before is None or row["_enriched_at"] >= before[1]["_enriched_at"]:
                found[row["id"]] = (f"part-{number}.parquet", row)
    return found


@given(st.lists(ROWS, max_size=3), st.sampled_from([1, 3, 1000]))
@settings(deadline=None, max_examples=examples(60), derandomize=True)
def test_the_newest_row_of_each_key_is_found(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[dict[str, Any]]], at_once: int
) -> None:
    """Every fact of a key's newest row is the dataset's; older rows of other parts are doubled.

    It holds for tables that are sorted in one go and for larger ones.
    """
    folder = tmp_path_factory.mktemp("landed")
    dataset, expected = written(folder, parts), newest(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_arrays, "SORTED_AT_ONCE", at_once)
        landed = Landed(folder, dataset)
    places = landed.keys.find(Keys.of([digest_of(key) for key in range(20)])).tolist()
    assert {key for key, place in enumerate(places) if place >= 0} == expected.keys()
    for key, (part, row) in expected.items():
        cost = row["_cost_usd"]
        assert landed.row(places[key]) == LandedRow(
            part,
            *(row[name] for name in ("_fingerprint", "_status", "_error", "_attempts")),
            *(row[f"_{kind}_tokens"] for kind in ("input", "output", "cache_read")),
            None if cost is None else int(cost.scaleb(12)),
            int((SINCE + timedelta(microseconds=row["_enriched_at"])).timestamp() * 10**6),
        )
    older = {
        f"part-{number}.parquet": {
            digest_of(row["id"])
            for row in rows
            if expected[row["id"]][0] != f"part-{number}.parquet"
        }
        for number, rows in enumerate(parts)
    }
    assert landed.doubled == {part: keys for part, keys in older.items() if keys}
    landed.close()
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_keys_that_share_their_first_half_are_told_apart() -> None:
    """A key is the whole digest."""
    digests = sorted(b"12345678" + bytes(7) + bytes([n]) for n in (1, 5, 9))
    keys = Keys.of(digests)
    wanted = [digests[2], b"12345678" + bytes(8), digests[0], b"0" * 16, b"9" * 16, digests[1]]
    assert keys.find(Keys.of(wanted)).tolist() == [2, -1, 0, -1, -1, 1]
    assert Keys.of([]).find(Keys.of(wanted)).tolist() == [-1] * 6


def test_keys_in_flight_are_known_once() -> None:
    """A key that two chunks have is in flight, perhaps held; a key that none has is not."""
    a, b, c = (digest_of(n) for n in range(3))
    prints = {a: f"v2:{'1' * 24}.p.m.s", b: "of an unknown version"}
    rows = [SentRow(key, key == b, prints[key]) for key in (a, b, a, b)]
    flying = InFlight(iter(rows))
    assert len(flying) == 2
    places = flying.find(Keys.of([a, b, c]))
    assert flying.held(places).tolist() == [False, True, False]
    assert [flying.fingerprint(place) for place in places[:2].tolist()] == [*prints.values()]
    assert places[2] == -1
    nothing = InFlight([]).find(Keys.of([a]))
    assert (nothing.tolist(), InFlight([]).held(nothing).tolist()) == ([-1], [False])


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5), st.sampled_from([4, 1000]))
@settings(deadline=None, max_examples=examples(60), derandomize=True)
def test_the_first_double_is_found_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]], at_once: int
) -> None:
    """The first row with a repeated key is named with an earlier row of that key."""
    path = tmp_path_factory.mktemp("keys") / "keys.bin"
    keys, number, seen, expected = SourceKeys(path), 0, dict[int, int](), None
    for block in blocks:
        numbers = list(range(number + 1, number + 1 + len(block)))
        keys.add(Keys.of([digest_of(one) for one in block]), numbers)
        number += len(block)
        for one, at in zip(block, numbers, strict=True):
            if expected is None and one in seen:
                expected = (at, seen[one])
            seen.setdefault(one, at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_arrays, "SORTED_AT_ONCE", at_once)
        assert keys.first_double() == expected
    keys.close()
    assert not path.exists()
