"""How the type of a column may change without losing a value, and how its values are converted.

`widened` proposes types, `converted` proves them value by value: it never rounds, cuts, or drops
anything, and raises `UnfitError` where it would have to.
"""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.arrow_types import is_list, plain

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = ("s", "ms", "us", "ns")
_EXACT = 2**53  # a double holds every integer up to here
_DIGITS_OF_128, _MOST_DIGITS = 38, 76  # of decimals in 128 bits, and in 256
_MOST_PROPOSALS = 32  # of a struct: the product of those of its fields


class UnfitError(Exception):
    """A value that a type cannot hold: its place (from 0) and the value."""

    def __init__(self, place: int, value: object) -> None:
        super().__init__(f"the value at {place} does not fit: {value!r}")
        self.place = place
        self.value = value


def widened(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    """Return the types that may hold values of both, to be tried in this order.

    The declared type comes first where it may hold all there is. Where nothing else can, it is the
    only one: then it holds what is null tonight.
    """
    declared, tonight = plain(declared), plain(tonight)
    if declared == tonight or pa.types.is_null(tonight):
        return [declared]
    if pa.types.is_null(declared):
        return [tonight]
    if is_list(declared) and is_list(tonight):
        return [pa.list_(kind) for kind in widened(declared.value_type, tonight.value_type)]
    if pa.types.is_struct(declared) and pa.types.is_struct(tonight):
        return _structs(declared, tonight)
    if pa.types.is_map(declared) and pa.types.is_map(tonight):
        keys = widened(declared.key_type, tonight.key_type)
        items = widened(declared.item_type, tonight.item_type)
        return [pa.map_(key, item) for key, item in product(keys, items)]
    others = [kind for kind in _leaves(declared, tonight) if kind != declared]
    return others if _holds_all(others, declared, tonight) else [declared, *others]


def _holds_all(others: list[pa.DataType], declared: pa.DataType, tonight: pa.DataType) -> bool:
    """Whether the other type holds all of both, so that the values need not be looked at."""
    return bool(others) and fits_always(declared, others[0]) and fits_always(tonight, others[0])


def _structs(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    fields = {field.name: [plain(field.type)] for field in declared}
    for field in tonight:
        before = fields.get(field.name)
        fields[field.name] = [field.type] if before is None else widened(before[0], field.type)
    choices = islice(product(*fields.values()), _MOST_PROPOSALS)
    return [
        pa.struct([pa.field(name, kind) for name, kind in zip(fields, choice, strict=True)])
        for choice in choices
    ]


def _leaves(  # noqa: PLR0911 - one line per pair of kinds reads best as a table
    declared: pa.DataType, tonight: pa.DataType
) -> list[pa.DataType]:
    """Return what beside the declared type may hold both, if anything."""
    if fits_always(tonight, declared):
        return []
    match kind_of(declared), kind_of(tonight):
        case "integer", "integer":
            return _integers(declared, tonight)
        case "integer", "float":
            return [pa.int64(), pa.float64()]
        case "float", ("integer" | "float"):
            return [pa.float64()]
        case (("integer" | "decimal"), ("integer" | "decimal")):
            return _decimals(declared, tonight)
        case "date", "date":
            return [pa.date32()]
        case ("moment" | "time" | "duration") as kind, other if kind == other:
            return _times(kind, declared, tonight)
        case "bytes", "bytes":
            return [pa.binary()]
        case _:
            return []


def _integers(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    # straight to 64 bits: a type that changes rewrites the dataset, so it should do so once
    if not (pa.types.is_uint64(declared) or pa.types.is_uint64(tonight)):
        return [pa.int64()]
    both = pa.types.is_unsigned_integer(declared) and pa.types.is_unsigned_integer(tonight)
    return [pa.uint64()] if both else [pa.int64(), pa.uint64()]


def _times(kind: str, declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    """Return the type with the finer unit of both."""
    unit = max(declared.unit, tonight.unit, key=_UNITS.index)
    match kind:
        case "moment" if (declared.tz is None) != (tonight.tz is None):
            return []
        case "moment":
            return [pa.timestamp(unit, declared.tz)]
        case "time":
            return [pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)]
        case _:
            return [pa.duration(unit)]


def _decimals(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    """Return the decimal with the integer digits and the scale of both, if there is one."""
    sizes = [_digits(declared), _digits(tonight)]
    scale = max(scale for _, scale in sizes)
    precision = max(digits for digits, _ in sizes) + scale
    if precision > _MOST_DIGITS:
        return []
    # decimal128 holds 38
    is_wide = pa.types.is_decimal256(declared) or pa.types.is_decimal256(tonight)
    wide = is_wide or precision > _DIGITS_OF_128
    return [pa.decimal256(precision, scale) if wide else pa.decimal128(precision, scale)]


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Return how many digits a number has before and behind its point."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, max(kind.scale, 0)
    return {8: 3, 16: 5, 32: 10, 64: 20}[kind.bit_width], 0


def kind_of(kind: pa.DataType) -> str:
    """Return what a value is, whatever its width or unit."""
    types = pa.types
    kinds: dict[str, Callable[[pa.DataType], bool]] = {
        "integer": types.is_integer,
        "float": types.is_floating,
        "decimal": types.is_decimal,
        "truth": types.is_boolean,
        "date": types.is_date,
        "moment": types.is_timestamp,
        "time": types.is_time,
        "duration": types.is_duration,
    }
    for name, holds in kinds.items():
        if holds(kind):
            return name
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return "bytes" if types.is_binary_view(kind) else str(kind)


def fits_always(kind: pa.DataType, into: pa.DataType) -> bool:  # noqa: PLR0911 - a table
    """Whether every value of one type fits into the other, so that none needs to be looked at."""
    kind, types = plain(kind), pa.types
    if kind == into or types.is_null(kind):
        return True
    if is_list(kind) and is_list(into):
        return fits_always(kind.value_type, into.value_type)
    if types.is_struct(kind) and types.is_struct(into):
        known = {field.name: field.type for field in into}
        return all(f.name in known and fits_always(f.type, known[f.name]) for f in kind)
    match kind_of(kind), kind_of(into):
        case "integer", "integer":
            low, high = _range(kind)
            least, most = _range(into)
            return least <= low and high <= most
        case "float", "float":
            return kind.bit_width <= into.bit_width
        case "bytes", "bytes":
            return types.is_binary(into)
        case "decimal", "decimal":
            return all(a <= b for a, b in zip(_digits(kind), _digits(into), strict=True))
        case (("integer" | "truth" | "date"), "text"):
            return True
        case _:
            return False


def keeps_identity(declared: pa.DataType, tonight: pa.DataType, into: pa.DataType) -> bool:
    """Whether keys of the declared type stay the same keys, and tonight's may be compared to them.

    Identity is typed: 1, "1" and 1.0 differ. So a key never becomes a number of another kind, and
    tonight's numbers are no texts.
    """
    return _same_kinds(declared, into) and not _becomes_text(tonight, into)


def _same_kinds(one: pa.DataType, other: pa.DataType) -> bool:
    if is_list(one) and is_list(other):
        return _same_kinds(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        names = [[field.name for field in kind] for kind in (one, other)]
        pairs = zip(one, other, strict=False)
        return names[0] == names[1] and all(_same_kinds(a.type, b.type) for a, b in pairs)
    return pa.types.is_null(one) or kind_of(one) == kind_of(other)


def _becomes_text(kind: pa.DataType, into: pa.DataType) -> bool:
    if is_list(kind) and is_list(into):
        return _becomes_text(kind.value_type, into.value_type)
    if pa.types.is_struct(kind) and pa.types.is_struct(into):
        known = {field.name: field.type for field in kind}
        return any(f.name in known and _becomes_text(known[f.name], f.type) for f in into)
    return kind_of(into) == "text" and kind_of(kind) not in ("text", "null")


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits = kind.bit_width
    if pa.types.is_unsigned_integer(kind):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


_CONVERTIBLE = frozenset(
    {
        ("integer", "float"),
        ("float", "integer"),
        ("integer", "decimal"),
        ("decimal", "integer"),
        ("integer", "text"),
        ("float", "text"),
        ("decimal", "text"),
        ("truth", "text"),
        ("date", "text"),
    }
)


def converted(array: pa.Array, to: pa.DataType) -> pa.Array:  # noqa: PLR0911 - a table
    """Return the same values in another type.

    Raises:
        UnfitError: the first value that it cannot hold.
    """
    types = pa.types
    if array.type == to:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), to)
    if types.is_dictionary(array.type):
        return converted(array.dictionary_decode(), to)
    if types.is_run_end_encoded(array.type):
        return converted(pc.run_end_decode(array), to)
    if is_list(array.type) and types.is_list(to):
        return _list(array, to)
    if types.is_struct(array.type) and types.is_struct(to):
        return _struct(array, to)
    if types.is_map(array.type) and types.is_map(to):
        return _map(array, to)
    kinds = kind_of(array.type), kind_of(to)
    nested = types.is_nested(array.type) or types.is_nested(to)
    if nested or (kinds[0] != kinds[1] and kinds not in _CONVERTIBLE):
        raise _unfit(array, pc.is_valid(array))
    return _leaf(array, to)


def _unfit(array: pa.Array, fails: pa.Array | pa.ChunkedArray) -> UnfitError:
    place = pc.index(fails, pa.scalar(value=True)).as_py()
    return UnfitError(place, value_at(array, place))


def value_at(array: pa.Array, place: int) -> object:
    """Return a value for people; one that Python has no type for as Arrow writes it."""
    try:
        return array[place].as_py()
    except (ValueError, OverflowError):
        return str(array[place])


def _within(array: pa.Array, offsets: pa.Array, error: UnfitError) -> UnfitError:
    """Return the row of a list that has an unfit item."""
    rows = pc.sum(pc.less_equal(offsets, error.place)).as_py() - 1
    return UnfitError(rows, value_at(array, rows))


def _offsets(array: pa.Array) -> pa.Array:
    """Return where the items of each list begin among those of all, and the end."""
    lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])


def _list(array: pa.Array, to: pa.DataType) -> pa.ListArray:
    offsets = _offsets(array)
    try:
        items = converted(array.flatten(), to.value_type)
    except UnfitError as error:
        raise _within(array, offsets, error) from error
    return pa.ListArray.from_arrays(offsets.cast(pa.int32()), items, to, mask=array.is_null())


def _map(array: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        lists = _list(array.cast(pa.list_(_entry(array.type))), pa.list_(_entry(to)))
    except UnfitError as error:
        raise UnfitError(error.place, value_at(array, error.place)) from error
    keys, items = lists.values.flatten()
    return pa.MapArray.from_arrays(lists.offsets, keys, items, to, mask=lists.is_null())


def _entry(kind: pa.DataType) -> pa.DataType:
    """Return the struct that each entry of a map is."""
    return pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])


def _struct(array: pa.Array, to: pa.DataType) -> pa.Array:
    names = [field.name for field in array.type]
    children: dict[str, pa.Array] = dict(zip(names, array.flatten(), strict=True))
    for name in children.keys() - {field.name for field in to}:
        if children[name].null_count < len(array):
            raise _unfit(array, pc.is_valid(children[name]))
    arrays = list[pa.Array]()
    for field in to:
        child = children.get(field.name)
        try:
            arrays.append(
                pa.nulls(len(array), field.type) if child is None else converted(child, field.type)
            )
        except UnfitError as error:
            raise UnfitError(error.place, value_at(array, error.place)) from error
    return pa.StructArray.from_arrays(arrays, fields=list(to), mask=array.is_null())


def _leaf(array: pa.Array, to: pa.DataType) -> pa.Array:
    """Convert values that hold no others."""
    if pa.types.is_timestamp(array.type) and (array.type.tz is None) != (to.tz is None):
        raise _unfit(array, pc.is_valid(array))
    if pa.types.is_floating(array.type) and pa.types.is_integer(to):
        # beyond, a double that looks like an integer may stand for another one
        inexact = pc.greater(pc.abs(array), pa.scalar(_EXACT, pa.float64()))
        if pc.any(inexact).as_py():
            raise _unfit(array, inexact)
    try:
        return _cast(array, to)
    except pa.ArrowException:
        place = _first_unfit(array, to)
        raise UnfitError(place, value_at(array, place)) from None


def _cast(array: pa.Array, to: pa.DataType) -> pa.Array:
    if pa.types.is_integer(array.type) and pa.types.is_decimal(to):
        array = array.cast(pa.decimal256(_MOST_DIGITS, max(to.scale, 0)))  # wide enough for all
    return array.cast(to)


def _first_unfit(array: pa.Array, to: pa.DataType) -> int:
    """Return the place of the first value that a cast refuses; there is one."""
    start, stop = 0, len(array)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            _cast(array.slice(start, middle - start), to)
        except pa.ArrowException:
            stop = middle
        else:
            start = middle
    return start
