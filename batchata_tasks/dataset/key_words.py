"""A row's key, as people write it on a command line.

A value is written as text (dates and times in ISO 8601), and as JSON if its column has objects or
lists. Bytes that are no text are `{"$bytes": "…"}`, in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.conversion import UnfitError, converted
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.json_columns import (
    is_json,
    is_nested,
    json_array,
    python_list,
    type_name,
)
from batchata_tasks.dataset.columns import keys_of

KeyWords = Sequence[str] | Mapping[str, str]
"""A key as it is written: words, as `typed_key` describes them, or what is written of each column.
"""
_BYTES = "$bytes"
_TIME = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d{1,6})?)?")  # Python cuts further digits
_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d{1,6})?)")  # as it prints one
_ISO_DURATION = TypeAdapter(timedelta)


def typed_key(names: list[str], words: KeyWords, schema: pa.Schema) -> pa.RecordBatch:
    """Return a key as a row of its columns.

    It is given as words: the value of the key column, `column=value` of each, or one JSON object of
    several columns.

    Raises:
        SpecError: a column is not given, or a word is no value of its column.
    """
    values = _named_values(names, words)
    if missing := [name for name in names if name not in values]:
        example = " ".join(f"--key {name}=…" for name in names)
        reason = f"--key: the key has {len(names)} columns, and {missing[0]!r} is not given"
        message = f"{reason}; write {example}, or one JSON object."
        raise SpecError(message)
    arrays = [_array(name, values[name], schema.field(name).type) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def word_of(value: object) -> str:
    """Return how a value of Python is written as one of a key."""
    match value:
        case str():
            return value
        case date() | time():
            return value.isoformat()
        case bytes():
            return orjson.dumps({_BYTES: base64.b64encode(value).decode()}).decode()
        case dict() | list() | tuple():
            return orjson.dumps(value).decode()
        case _:
            return str(value)


def key_options(key: Mapping[str, Any]) -> str:
    """Return a key as options of a command: `--key k4`, or `--key a=1 --key b=2`."""
    words = list[str]()
    for name, value in key.items():
        word = word_of(value)
        # of one column its name is left out, unless the value could be taken for a name
        is_plain = len(key) == 1 and not word.startswith((f"{name}=", "-"))
        words.append(word if is_plain else f"{name}={word}")
    return " ".join(
        f"--key={shlex.quote(word)}" if word.startswith("-") else f"--key {shlex.quote(word)}"
        for word in words
    )


def key_values(key: pa.RecordBatch) -> dict[str, Any]:
    """Return the values of a key, by column."""
    return {name: python_list(key.column(name))[0] for name in key.schema.names}


def places_of(key: pa.RecordBatch, rows: pa.RecordBatch) -> list[int]:
    """Return the places of the rows that have a key, in whatever types they have it."""
    same, nested = np.ones(rows.num_rows, np.bool_), list[str]()
    for name in key.schema.names:
        kind = key.schema.field(name).type
        if is_nested(kind):
            nested.append(name)
            continue
        try:
            column = rows.column(name).cast(kind)
        except pa.ArrowException:  # it has other values by now
            return []
        found = pc.equal(column, key.column(name)[0])
        found = found.fill_null(False)  # noqa: FBT003 - its only form
        same &= found.to_numpy(zero_copy_only=False)
    places = np.flatnonzero(same).tolist()
    return _same_nested(key.select(nested), rows, places) if nested and places else places


def _same_nested(key: pa.RecordBatch, rows: pa.RecordBatch, places: list[int]) -> list[int]:
    """Return those of the places at which the columns of a key, objects or lists, are the same."""
    names = key.schema.names
    try:
        arrays = [
            converted(rows.column(name).take(pa.array(places)), key.schema.field(name).type)
            for name in names
        ]
    except UnfitError:
        return []
    wanted = keys_of(key, names)[0]
    others = keys_of(pa.RecordBatch.from_arrays(arrays, names=names), names)
    return [place for place, one in zip(places, others, strict=True) if one == wanted]


def _named_values(names: list[str], words: KeyWords) -> dict[str, Any]:
    """Return what is written of each column."""
    if isinstance(words, Mapping):
        return dict(words)
    if len(words) > len(names):
        message = f"--key: {len(words)} values are given, and the key is {', '.join(names)}."
        raise SpecError(message)
    if len(words) == 1 < len(names) and words[0].lstrip().startswith("{"):
        whole = _loaded(words[0])
        if isinstance(whole, dict):
            return as_dict(cast("object", whole))
    values, longest_first = dict[str, Any](), sorted(names, key=len, reverse=True)
    for word in words:
        named = next((name for name in longest_first if word.startswith(f"{name}=")), None)
        if named is not None:
            values[named] = word.removeprefix(f"{named}=")
        elif len(names) == 1:  # a value may hold the sign itself
            values[names[0]] = word
    return values


def _array(name: str, value: Any, kind: pa.DataType) -> pa.Array:
    """Return what is written of a column as a column of one value."""
    try:
        loaded = _loaded(value) if isinstance(value, str) and _is_json_of(value, kind) else value
        array = json_array([loaded]) if is_json(kind) else _exact(loaded, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        shown = value if isinstance(value, str) else orjson.dumps(value).decode()
        what = f"{shown!r:.80} is no value of the column {name!r}, which is {type_name(kind)}"
        message = f"--key: {what}{_remedy(kind)}."
        raise SpecError(message) from error
    if array.null_count:
        message = f"--key: {name!r} is null, which no key is."
        raise SpecError(message)
    return array


def _is_json_of(text: str, kind: pa.DataType) -> bool:
    """Whether the text of a value is JSON."""
    types = pa.types
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
    is_bytes = is_bytes or types.is_fixed_size_binary(kind) or types.is_binary_view(kind)
    return is_nested(kind) or (is_bytes and text.startswith(f'{{"{_BYTES}"'))


def _loaded(text: str) -> Any:
    return orjson.loads(text)


def _exact(value: Any, kind: pa.DataType) -> pa.Array:
    """Return a column of one value; ValueError if its type cannot hold it as it is written."""
    plain = _plain(value, kind)
    array = pa.array([plain], kind) if not isinstance(plain, pa.Array) else plain
    if not isinstance(plain, pa.Array) and not _is_same(array.to_pylist()[0], plain):
        message = f"{kind} does not hold it"
        raise ValueError(message)
    return array


def _is_same(stored: object, plain: object) -> bool:
    return not isinstance(plain, time | timedelta) or stored == plain


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value of JSON, or a text, as a value of a type: for Python, or as an array."""
    if value is None:
        return None
    return _nested(value, kind) if pa.types.is_nested(kind) else _leaf(value, kind)


def _nested(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_struct(kind):
        return _object(value, kind)
    if pa.types.is_map(kind):
        is_object = isinstance(value, dict)
        pairs: Any = as_dict(cast("object", value)).items() if is_object else value
        return [(_item(k, kind.key_type), _item(v, kind.item_type)) for k, v in pairs]
    if not is_list(kind):
        message = f"{kind} has no form in JSON"
        raise ValueError(message)
    return [_item(one, kind.value_type) for one in value]


def _leaf(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, dict):
        return _bytes(as_dict(cast("object", value)))
    types = pa.types
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if types.is_time(kind):
        return _time(text)
    if types.is_duration(kind):
        return _duration(text)
    return pa.array([text], pa.string()).cast(kind)


def _item(value: Any, kind: pa.DataType) -> Any:
    """Return a value within an object or a list, for Python."""
    plain = _plain(value, kind)
    return plain.to_pylist()[0] if isinstance(plain, pa.Array) else plain


def _object(value: Any, kind: pa.DataType) -> dict[str, Any]:
    fields = as_dict(value)
    names = [field.name for field in kind]
    if not isinstance(value, dict) or not fields.keys() <= set(names):
        message = f"it is no object of {', '.join(names)}"
        raise ValueError(message)
    return {field.name: _item(fields.get(field.name), field.type) for field in kind}


def _bytes(value: dict[str, Any]) -> bytes:
    text = value.get(_BYTES)
    if not isinstance(text, str) or len(value) > 1:
        message = f"an object other than {_BYTES} stands for no value"
        raise ValueError(message)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _time(text: str) -> time:
    if _TIME.fullmatch(text) is None:
        message = f"{text} is no time"
        raise ValueError(message)
    return time.fromisoformat(text.zfill(len("00:00")))


def _duration(text: str) -> timedelta:
    if (match := _DURATION.fullmatch(text)) is None:
        return _ISO_DURATION.validate_python(text)
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    micros = int(Decimal(match[4]).scaleb(6))
    return timedelta(days=days, hours=hours, minutes=minutes, microseconds=micros)


def _remedy(kind: pa.DataType) -> str:
    """Return how a value of a type is written, if people may wonder."""
    types = pa.types
    if is_nested(kind):
        return "; write it as JSON"
    if types.is_timestamp(kind):
        zone = "" if kind.tz is None else "+00:00"
        return f"; write it as 2026-01-31T09:30:00{zone}"
    forms = {
        types.is_date: "2026-01-31",
        types.is_time: "09:30:00",
        types.is_duration: "PT90S, or 0:01:30",
    }
    return next((f"; write it as {form}" for is_it, form in forms.items() if is_it(kind)), "")
