"""One type for a column that comes in several, without loss."""

from __future__ import annotations

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without a writer's encoding, which may vary by file."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def unified(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both; None if there is none.

    Integers of all widths are one, null goes with anything, structs have the fields of both. Text
    is no number, no date and no bytes, and a decimal is no float. Values are still to be cast
    safely: an integer may be too large for the float.
    """
    if one.equals(other):
        return one
    pair = [pa.schema([("column", one)]), pa.schema([("column", other)])]
    try:
        wide = pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
    return wide if _loses_nothing(one, wide) and _loses_nothing(other, wide) else None


def _loses_nothing(kind: pa.DataType, wide: pa.DataType) -> bool:
    """Whether Arrow's common type keeps what the values are, however deep they are."""
    if pa.types.is_struct(kind):
        return all(_loses_nothing(field.type, wide.field(field.name).type) for field in kind)
    if pa.types.is_list(kind):
        return not pa.types.is_list(wide) or _loses_nothing(kind.value_type, wide.value_type)
    if pa.types.is_string(kind):
        return pa.types.is_string(wide)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return not pa.types.is_string(wide)
    return not (pa.types.is_decimal(kind) and pa.types.is_floating(wide))
