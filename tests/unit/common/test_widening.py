"""Types widen so that nothing is lost, and what does not fit is found."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.arrow_types import as_stored, plain
from batchata_tasks.common.canonical import canonical
from batchata_tasks.common.conversion import UnfitError, converted
from batchata_tasks.common.json_columns import json_array, python_list
from batchata_tasks.common.widening import keeps_identity, widened

_INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]
_LEAVES = [
    *_INTS,
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.date32(),
    pa.binary(),
    pa.decimal128(6, 2),
    pa.decimal128(12, 0),
    pa.timestamp("ms"),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.null(),
]


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    types = pa.types
    if types.is_integer(kind):
        signed = types.is_signed_integer(kind)
        bits = kind.bit_width - signed
        return st.integers(-(2**bits) if signed else 0, 2**bits - 1)
    if types.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False) | st.integers(-99, 99).map(float)
    if types.is_decimal(kind):
        most = 10**kind.precision - 1
        return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-kind.scale))
    if types.is_timestamp(kind):
        zone = UTC if kind.tz else None
        moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - both kinds are tried
        return moments.map(
            lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000, tzinfo=zone)
        )
    plain_values = {
        "bool": st.booleans(),
        "string": st.text(max_size=5),
        "date32[day]": st.dates(),
        "binary": st.binary(max_size=4),
        "null": st.none(),
    }
    return plain_values[str(kind)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**64 - 1) | st.just(0.5) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=5,
).filter(lambda value: value is None or isinstance(value, list | dict))


@st.composite
def _arrays(draw: st.DrawFn, depth: int = 2) -> pa.Array:
    if depth > 1 and draw(st.booleans()):
        return json_array(draw(st.lists(_JSON, max_size=4)))
    kind = draw(_types(depth))
    values = draw(st.lists(st.none() | _of(kind), max_size=6))
    return pa.array(values, kind)


def _types(depth: int) -> st.SearchStrategy[pa.DataType]:
    leaves = st.sampled_from(_LEAVES)
    if not depth:
        return leaves
    inner = _types(depth - 1)
    structs = st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
    return leaves | inner.map(pa.list_) | structs.map(lambda f: pa.struct(list(f.items())))


def _of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.lists(st.none() | _of(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({f.name: st.none() | _of(f.type) for f in kind})
    return _values(kind)


def _same(before: Any, after: Any) -> bool:
    """Whether a value is the same one, in whatever type; a field that came is null."""
    if isinstance(before, dict):
        return (
            all(_same(before.get(name), value) for name, value in after.items())
            and {name for name, value in before.items() if value is not None} <= after.keys()
        )
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(after, str) and not isinstance(before, str):
        return before is not None
    return before == after and (before is None) == (after is None)


@given(_arrays(), _arrays())
def test_no_value_is_lost_or_changed(landed: pa.Array, tonight: pa.Array) -> None:
    """Whatever two nights bring: both fit a type, and read the same then, or one is named."""
    for kind in widened(landed.type, tonight.type):
        for array in (landed, tonight):
            try:
                result = converted(array, kind)
            except UnfitError as error:
                unfit = error
                result = None
            if result is None:
                assert unfit.value is not None
                assert python_list(array)[unfit.place] == unfit.value
            else:
                assert result.type == kind
                assert all(map(_same, python_list(array), python_list(result)))
                result.validate(full=True)


@given(_arrays())
def test_the_same_type_again_changes_nothing(array: pa.Array) -> None:
    """An ordinary night keeps the declared type, and a night of nulls does."""
    assert widened(plain(array.type), array.type)[0] == array.type
    assert widened(array.type, pa.null()) == [array.type]
    assert converted(array, array.type) is array
    nulls = pa.nulls(3)
    assert converted(nulls, array.type).to_pylist() == [None] * 3


@given(_arrays(1), _arrays(1))
def test_keys_stay_the_same_keys(landed: pa.Array, tonight: pa.Array) -> None:
    """A key that landed has the same canonical form in a wider type, so that it is found again."""
    for kind in widened(landed.type, tonight.type):
        if not keeps_identity(landed.type, tonight.type, kind):
            continue
        try:
            result = converted(landed, kind)
        except UnfitError:
            continue
        for before, after in zip(landed.to_pylist(), result.to_pylist(), strict=True):
            assert canonical(before) == canonical(after)


@pytest.mark.parametrize(
    ("declared", "tonight", "wide"),
    [
        (pa.int64(), pa.int8(), [pa.int64()]),
        (pa.int8(), pa.int16(), [pa.int64()]),
        (pa.uint8(), pa.uint64(), [pa.uint64()]),
        (pa.int64(), pa.uint64(), [pa.int64(), pa.uint64()]),
        (pa.int64(), pa.float64(), [pa.int64(), pa.float64()]),
        (pa.float64(), pa.int64(), [pa.float64()]),
        (pa.decimal128(10, 2), pa.decimal128(12, 1), [pa.decimal128(13, 2)]),
        (pa.timestamp("us"), pa.timestamp("ns"), [pa.timestamp("us"), pa.timestamp("ns")]),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), [pa.timestamp("us", "UTC")]),
        (pa.string(), pa.int64(), [pa.string()]),
        (pa.int64(), pa.string(), [pa.int64()]),
        (pa.binary(2), pa.binary(3), [pa.binary()]),
        (pa.json_(), pa.struct([("a", pa.int64())]), [pa.json_()]),
        (pa.json_(), pa.string(), [pa.json_()]),
        (pa.list_(pa.null()), pa.json_(), [pa.json_()]),
        (pa.string(), pa.json_(), [pa.string()]),
        (pa.list_view(pa.string_view()), pa.large_list(pa.string()), [pa.list_(pa.string())]),
    ],
)
def test_types_widen_as_told(
    declared: pa.DataType, tonight: pa.DataType, wide: list[pa.DataType]
) -> None:
    """The declared type comes first wherever it may do."""
    assert widened(declared, tonight) == wide


@pytest.mark.parametrize(
    ("values", "to", "place"),
    [
        (pa.array([1.0, None, 2.5, 3.5]), pa.int64(), 2),
        (pa.array([1.0, float(2**53 + 2)]), pa.int64(), 1),
        (pa.array([2**53 + 1]), pa.float64(), 0),
        (pa.array([0, -1]), pa.uint64(), 1),
        (pa.array([[1], [], None, [2, 300]]), pa.list_(pa.int8()), 3),
        (pa.array([{"a": 1}, {"a": None, "b": 2}]), pa.struct([("a", pa.int64())]), 1),
        (
            pa.array([[("k", 1)], [("k", 900)]], pa.map_(pa.string(), pa.int64())),
            pa.map_(pa.string(), pa.int8()),
            1,
        ),
        (pa.array([None, "7"]), pa.int64(), 1),
        (pa.array(["x"]), pa.json_(), 0),
        (pa.array([[1.0], [float("nan")]]), pa.json_(), 1),
        (pa.array([None, {"at": datetime(2026, 1, 1)}]), pa.json_(), 1),  # noqa: DTZ001 - no JSON
        (pa.array([datetime(2026, 1, 1)]), pa.timestamp("us", "UTC"), 0),  # noqa: DTZ001 - that is the case
    ],
)
def test_the_first_value_that_does_not_fit_is_named(
    values: pa.Array, to: pa.DataType, place: int
) -> None:
    """With its row, at whatever depth it is; and no field of an object goes silently."""
    with pytest.raises(UnfitError) as caught:
        converted(values, to)
    assert (caught.value.place, repr(caught.value.value)) == (place, repr(values[place].as_py()))


def test_slices_convert_as_they_are() -> None:
    """Offsets, nulls and encodings of a block of rows make no difference."""
    whole = pa.array([["a"], None, ["b", None], []], pa.list_view(pa.string_view()))
    assert converted(whole[1:], plain(whole.type)).to_pylist() == [None, ["b", None], []]
    coded = pa.array(["x", None, "x"]).dictionary_encode()[1:]
    assert converted(coded, pa.string()).to_pylist() == [None, "x"]
    sized = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2))[1:]
    assert converted(sized, plain(sized.type)).to_pylist() == [None, [3, 4]]


@pytest.mark.parametrize(
    "kind", [pa.struct([]), pa.list_(pa.struct([])), pa.month_day_nano_interval()]
)
def test_what_parquet_cannot_hold_is_known_beforehand(kind: pa.DataType) -> None:
    """Without a row of it."""
    with pytest.raises(pa.ArrowException):
        as_stored(pa.schema([("v", kind)]))
