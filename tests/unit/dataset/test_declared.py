"""Night after night the source's types change; the dataset keeps what landed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.settle import settle
from tests.support.nights import Nights

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

_TYPES = "_batchata/schema.json"


@pytest.fixture
def nights(emulator: Emulator, tmp_path: Path) -> Nights:
    """Return nights without any yet."""
    return Nights(tmp_path)


def _of(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


def _declared(nights: Nights) -> DeclaredSchema:
    declared = DeclaredSchema.read(DatasetFolder(str(nights.output)))
    assert declared is not None
    return declared


def test_a_narrower_key_is_the_same_key(nights: Nights) -> None:
    """Integers of all widths are one: no key is changed, and no row is sent again."""
    assert nights.run(id=[1, 2, 1000], v=["x", "y", "z"]) == 3
    assert nights.run(id=_of([1, 2, 3], pa.int8()), v=["x", "y", "q"]) == 1
    assert nights.run(id=[1.0, 2.0, 3.0], v=["x", "y", "q"]) == 0
    assert nights.column("v") == {1: "x", 2: "y", 1000: "z", 3: "q"}
    assert nights.type_of("id") == pa.int64()


def test_a_wider_key_widens_the_dataset(nights: Nights) -> None:
    """Parts that are there are written anew, and their keys are found again."""
    nights.run(id=_of([1, 2], pa.int8()), v=["x", "y"])
    assert nights.run(id=[1, 1000], v=["x", "z"]) == 1
    assert nights.column("v") == {1: "x", 2: "y", 1000: "z"}
    assert nights.type_of("id") == pa.int64()


@pytest.mark.parametrize(
    ("landed", "tonight"),
    [
        (_of([2, -1], pa.int64()), _of([2, 2**63 + 1], pa.uint64())),
        (_of([1, 2], pa.int64()), _of([1.0, 2.5], pa.float64())),
        (_of(["1", "2"], pa.string()), _of([1, 2], pa.int64())),
        (_of([1, 2], pa.int64()), _of(["1", "2"], pa.string())),
    ],
)
def test_keys_that_no_type_holds_are_refused(
    nights: Nights, emulator: Emulator, landed: pa.Array, tonight: pa.Array
) -> None:
    """Before a row is planned, naming column, file, types and a value; nothing changes."""
    nights.run(id=landed, v=["x", "y"])
    before = nights.content()
    nights.write(id=tonight, v=["x", "y"])
    for attempt in (lambda: enrich(nights.spec()), nights.plan):
        with pytest.raises(SpecError) as refused:
            attempt()
        said = str(refused.value)
        assert said.startswith("key: 'id' is ")
        for part in (str(landed.type), str(tonight.type), nights.source.name, "row ", "output"):
            assert part in said
    assert nights.content() == before
    assert emulator.control.ledger()["anthropic"]["requests_accepted"] == 2


@pytest.mark.parametrize(
    ("landed", "tonight", "after"),
    [
        (["p", "q"], _of([None], pa.null()), [None, "q"]),
        ([["p"], ["q"]], _of([None], pa.null()), [None, ["q"]]),
        ([1.0, 2.5], [1], [1.0, 2.5]),
        ([1, 2], [1.5], [1.5, 2.0]),
        ([1, 2], [7.0], [7, 2]),
        (["x", "2"], [7], ["7", "2"]),
        ([{"a": 1, "b": 1}, {"a": 2, "b": 5}], [{"a": 1}], [{"a": 1, "b": None}, {"a": 2, "b": 5}]),
        ([{"a": 1}, {"a": 2}], [{"b": 1}], [{"a": None, "b": 1}, {"a": 2, "b": None}]),
    ],
)
def test_rows_that_left_keep_what_they_had(
    nights: Nights, landed: Any, tonight: Any, after: list[Any]
) -> None:
    """And a row that is there has what its source says, in one type with the others."""
    nights.run(id=[1, 2], v=landed)
    assert nights.run(id=[1], v=tonight) == 0
    assert nights.column("v") == dict(zip([1, 2], after, strict=True))
    assert nights.run(id=[1], v=tonight) == 0
    assert nights.column("v") == dict(zip([1, 2], after, strict=True))
    nights.type_of("v")


@pytest.mark.parametrize(
    ("landed", "tonight"),
    [
        (["p", "q"], [["p"]]),
        ([1, 2], ["x"]),
        ([2**60, 1], [0.5]),
        ([True, False], [1]),
        (_of([1, 1], pa.timestamp("us", "UTC")), _of([1], pa.timestamp("us"))),
        (_of([-1, 2**62], pa.int64()), _of([2**63], pa.uint64())),
    ],
)
def test_carried_values_that_no_type_holds_are_refused(
    nights: Nights, landed: Any, tonight: Any
) -> None:
    """Nothing that landed is changed, and nothing is sent."""
    nights.run(id=[1, 2], v=landed)
    before = nights.content()
    nights.write(
        id=[1, 3],
        v=pa.concat_arrays([tonight if isinstance(tonight, pa.Array) else pa.array(tonight)] * 2),
    )
    with pytest.raises(SpecError, match=r"^columns: 'v' is .*row [12] of "):
        enrich(nights.spec())
    assert nights.content() == before


def test_what_parquet_cannot_hold_is_refused_unpaid(nights: Nights, emulator: Emulator) -> None:
    """Plan and run know beforehand; without the column the output works."""
    nights.run(id=[1], v=[{"a": 1}])
    nights.write_lines([{"id": 1, "v": {"a": 1}}, {"id": 2, "v": {"a": 1, "b": {}}}])
    for attempt in (nights.plan, lambda: enrich(nights.spec())):
        with pytest.raises(SpecError, match=r"'v' is .* which Parquet cannot hold"):
            attempt()
    assert emulator.control.ledger()["anthropic"]["requests_accepted"] == 1
    assert enrich(nights.spec(columns=[])).plan["requests"] == 1


def test_a_column_that_leaves_the_spec_stays(nights: Nights) -> None:
    """Its values stay, of rows that are sent again as well; new rows have none."""
    nights.run(id=[1, 2, 3], v=["x", "y", "z"], text=["a", "b", "c"])
    without = {"columns": []}
    assert nights.run(without, id=[1, 2, 4], v=["x", "y", "w"], text=["changed", "b", "d"]) == 2
    assert nights.column("v") == {1: "x", 2: "y", 3: "z", 4: None}
    assert nights.plan(**without).retired == ["v"]
    assert nights.run(id=[1, 2, 4], v=["x", "y", "w"], text=["changed", "b", "d"]) == 0
    assert nights.column("v") == {1: "x", 2: "y", 3: "z", 4: "w"}


def test_what_is_in_flight_lands_in_the_widened_type(nights: Nights) -> None:
    """A batch that was sent before its columns were widened lands all its values."""

    def dies(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        raise RuntimeError(ref.run_id + chunk_id)

    nights.write(id=_of([1, 2], pa.int8()), v=[1, 2])
    with pytest.raises(RuntimeError):
        enrich(nights.spec(), steps=replace(Steps(), poll=dies))
    nights.write(id=[1, 2, 1000], v=[1.0, 2.0, 0.5])
    ready = prepare_run(nights.spec(), Settings())
    settle(ready.table, DatasetFolder(ready.spec.output)).declared.write(
        DatasetFolder(ready.spec.output)
    )
    enrich(nights.spec())
    assert nights.type_of("id") == pa.int64()
    enrich(nights.spec())
    assert nights.column("v") == {1: 1.0, 2: 2.0, 1000: 0.5}


def test_what_is_in_flight_has_a_say(nights: Nights) -> None:
    """A type that could not hold what was sent is refused, since that is still to land."""

    def dies(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        raise RuntimeError(ref.run_id + chunk_id)

    nights.write(id=[-1, 2], v=[1, 2])
    with pytest.raises(RuntimeError):
        enrich(nights.spec(), steps=replace(Steps(), poll=dies))
    nights.write(id=_of([2, 2**63], pa.uint64()), v=[1, 2])
    with pytest.raises(SpecError, match=r"row 1 of batch .* has -1"):
        nights.plan()


def test_a_lost_record_is_made_anew(nights: Nights) -> None:
    """From the parts: so it is for datasets of older versions, and the source has no say."""
    nights.run(id=[1, 2], v=[1.0, 2.5])
    record = (nights.output / _TYPES).read_bytes()
    (nights.output / _TYPES).unlink()
    nights.write(id=_of([1], pa.int8()), v=_of([4], pa.int64()))
    assert nights.plan().requests == 0
    assert not (nights.output / _TYPES).exists()
    assert nights.run(id=_of([1], pa.int8()), v=_of([4], pa.int64())) == 0
    assert nights.column("v") == {1: 4.0, 2: 2.5}
    assert b"int64" in record
    made = _declared(nights)
    (nights.output / _TYPES).write_bytes(record)
    assert made.types() == _declared(nights).types()


def test_prompt_columns_keep_their_type(nights: Nights) -> None:
    """An integer column that is double for a night, since a row has none, sends no row again."""
    spec = {"prompt": "{{ text }} {{ n }}", "on_null": "empty", "columns": []}
    assert nights.run(spec, id=[1, 2], n=[5, 6]) == 2
    assert nights.run(spec, id=[1, 2, 3], n=[5.0, 6.0, None]) == 1


def test_answers_that_a_new_model_cannot_hold_are_counted(nights: Nights) -> None:
    """Each value that fits stays, the others are in `_response`, and the plan says how many."""
    first = {"properties": {"n": {"type": "string"}, "s": {"type": "integer"}}}
    second = {"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}
    for schema in (first, second):
        schema |= {"type": "object", "required": ["n", "s"]}
    nights.run({"response_schema": first}, id=[1, 2], v=["x", "y"])
    before = nights.column("s")
    kept = {"response_schema": second, "rerun_on": ["new"]}
    assert nights.plan(**kept).misfits == {"n: int64": 2}
    assert nights.run(kept, id=[1, 2], v=["x", "y"]) == 0
    assert nights.column("s") == {key: str(value) for key, value in before.items()}
    assert set(nights.column("n").values()) == {None}
    assert all(nights.column("_response").values())


def test_answers_in_a_field_that_is_gone_are_counted(nights: Nights) -> None:
    """A field that the model has no more is told before its column goes; `_response` stays."""
    first = {"properties": {"n": {"type": "string"}, "s": {"type": "integer"}}}
    second = {"properties": {"s": {"type": "integer"}}}
    for schema in (first, second):
        schema |= {"type": "object", "required": list(schema["properties"])}
    nights.run({"response_schema": first}, id=[1, 2], v=["x", "y"])
    kept = {"response_schema": second, "rerun_on": ["new"]}
    told = nights.plan(**kept)
    assert told.misfits == {"n": 2}
    assert told.misfit_texts() == [
        "the response model has no field `n` any more: its 2 answers stay in `_response` alone"
    ]
    assert nights.run(kept, id=[1, 2], v=["x", "y"]) == 0
    assert nights.plan(**kept).misfits == {}
    assert all("n" in json.loads(text) for text in nights.column("_response").values())
