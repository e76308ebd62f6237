"""Columns of JSON: each value is its own, whatever the values of other rows hold.

In memory such a column is of Arrow's type `arrow.json`: texts of JSON, and null for a null. What
looks at values (templates, keys, digests) gets them loaded.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow as pa

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.json import not_json

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON = pa.json_()
_SHOWN = 200  # characters of a type
MOST_LEVELS = 100  # of lists and objects in each other, since what walks values is recursive


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is that of JSON columns."""
    return isinstance(kind, pa.JsonType)


def is_nested(kind: pa.DataType) -> bool:
    """Whether values of a type are lists or objects."""
    return is_json(kind) or is_list(kind) or pa.types.is_nested(kind)


def type_name(kind: pa.DataType) -> str:
    """Return a type's name for people."""
    if is_json(kind):
        return "JSON"
    text = str(kind)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def python_list(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return a column in Python values, those of JSON loaded."""
    values = column.to_pylist()
    if not is_json(column.type):
        return values
    return [None if text is None else orjson.loads(text) for text in values]


def texts_of(array: pa.Array) -> pa.Array:
    """Return the texts of a JSON column."""
    return array.cast(pa.string())


def json_of(texts: pa.Array) -> pa.Array:
    """Return texts of JSON as a JSON column."""
    return pa.ExtensionArray.from_storage(JSON, texts)


def json_array(values: Iterable[object], *, from_json: bool = False) -> pa.Array:
    """Return values as a JSON column; `from_json`: they were read from strict JSON.

    Raises:
        ValueError: JSON cannot hold one, or it is nested deeper than 100 levels.
    """
    return json_of(pa.array([json_text(v, from_json=from_json) for v in values], pa.string()))


def json_text(value: object, *, from_json: bool) -> bytes | None:
    """Return the text that stands for a value in a JSON column, see `json_array`."""
    if value is None:
        return None
    try:
        text = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if len(text) > 2 * MOST_LEVELS and text.count(b"[") + text.count(b"{") > MOST_LEVELS:
        _require_shallow(value)
    if not from_json and (wrong := not_json(value)) is not None:  # orjson writes NaN as null
        message = f"JSON cannot hold {wrong}"
        raise ValueError(message)
    return text


def _require_shallow(value: object) -> None:
    if levels(value) > MOST_LEVELS:
        message = f"it is nested deeper than {MOST_LEVELS} levels"
        raise ValueError(message)


def levels(value: object) -> int:
    """Return how deep lists and objects are nested: 0 of a value that is neither."""
    count, inner = 0, _parts(value)
    while inner is not None:
        count += 1
        nested = [parts for part in inner if (parts := _parts(part)) is not None]
        inner = list(chain.from_iterable(nested)) if nested else None
    return count


def _parts(value: object) -> Iterable[object] | None:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else None
