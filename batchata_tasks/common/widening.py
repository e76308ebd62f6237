"""How the types of a column join: those of two nights, and those of the files of one night.

`widened` proposes types for values that landed and values of tonight; `converted` of
`common/conversion.py` proves them value by value. `joined` is the type of one source.
"""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.arrow_types import is_list, plain
from batchata_tasks.common.json_columns import JSON, is_json

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = ("s", "ms", "us", "ns")
_DIGITS_OF_128, _MOST_DIGITS = 38, 76  # of decimals in 128 bits, and in 256
_MOST_PROPOSALS = 32  # of a struct: the product of those of its fields


def widened(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    """Return the types that may hold values of both, to be tried in this order.

    The declared type comes first where it may hold all there is. Where nothing else can, it is the
    only one: then it holds what is null tonight.
    """
    return _proposals(declared, tonight, _of_two_nights)


def joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of a column that has two in one source; None if they do not go together.

    Text is no number, no date and no bytes, and a decimal is no float. The values are still to be
    converted: an integer may be too large for a float.
    """
    return next(iter(_proposals(one, other, _of_one_source)), None)


def _proposals(
    one: pa.DataType,
    other: pa.DataType,
    others: Callable[[pa.DataType, pa.DataType], list[pa.DataType]],
) -> list[pa.DataType]:
    """Return types for the values of both; `others` has the rule for values that hold no others."""
    one, other = plain(one), plain(other)
    if one == other or pa.types.is_null(other):
        return [one]
    if pa.types.is_null(one):
        return [other]
    if is_list(one) and is_list(other):
        return [pa.list_(kind) for kind in _proposals(one.value_type, other.value_type, others)]
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: [field.type] for field in one}
        for field in other:
            before = fields.get(field.name)
            kinds = [field.type] if before is None else _proposals(before[0], field.type, others)
            fields[field.name] = kinds
        choices = islice(product(*fields.values()), _MOST_PROPOSALS)
        return [pa.struct(list(zip(fields, choice, strict=True))) for choice in choices]
    if pa.types.is_map(one) and pa.types.is_map(other):
        keys = _proposals(one.key_type, other.key_type, others)
        items = _proposals(one.item_type, other.item_type, others)
        return [pa.map_(key, item) for key, item in product(keys, items)]
    return others(one, other)


def _of_two_nights(declared: pa.DataType, tonight: pa.DataType) -> list[pa.DataType]:
    if is_json(tonight) and declared == pa.list_(pa.null()):
        return [JSON]  # the lists that landed are all empty
    others = [kind for kind in _leaves(declared, tonight) if kind != declared]
    if others and fits_always(declared, others[0]) and fits_always(tonight, others[0]):
        return others  # it holds all of both, so that the values need not be looked at
    return [declared, *others]


def _of_one_source(one: pa.DataType, other: pa.DataType) -> list[pa.DataType]:
    if is_json(one) or is_json(other):
        return [JSON] if all(map(_may_be_json, (one, other))) else []
    kinds = {kind_of(one), kind_of(other)}
    if kinds == {"integer", "float"}:
        return [pa.float64()]
    if len(kinds) > 1 and kinds != {"integer", "decimal"}:
        return []
    fitting = [a for a, b in ((one, other), (other, one)) if fits_always(b, into=a)]
    return fitting or _leaves(one, other)


def _may_be_json(kind: pa.DataType) -> bool:
    return is_json(kind) or is_list(kind) or pa.types.is_struct(kind)


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
    if is_json(into):
        return is_list(kind) and kind_of(kind.value_type) in ("integer", "text", "truth")
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
