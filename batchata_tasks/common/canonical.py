"""Canonical JSON and digests: the same value always gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PLAIN_TYPES = frozenset({str, int, bool, type(None)})


def canonical(value: object) -> bytes:
    """Return `value` as canonical, typed JSON: keys sorted, no blanks, UTF-8.

    Identity is typed: `"01"`, `1`, `1.0` and `true` all differ. Dates, times, decimals, bytes and
    non-finite floats become one-key objects such as `{"$date":"2026-11-22"}`.
    """
    return _ENCODER.encode(value if _is_flat(value) else _finite(value)).encode()


def canonical_rows(columns: Sequence[Sequence[object]]) -> Iterable[bytes]:
    """Return `canonical` of every row of some columns, each row as a list of its values."""
    return _encoded(zip(*columns, strict=True), columns)


def canonical_records(columns: Mapping[str, Sequence[object]]) -> Iterable[bytes]:
    """Return `canonical` of every row of some columns, each row as an object."""
    names = sorted(columns)
    values = [columns[name] for name in names]
    rows = (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
    if any(name.startswith("$") for name in names):
        return map(canonical, rows)
    return _encoded(rows, values)


def _encoded(rows: Iterable[object], columns: Sequence[Sequence[object]]) -> Iterator[bytes]:
    """Yield rows of these columns; the keys of those that are objects are sorted."""
    if not all(_SAME_IN_ORJSON.issuperset(map(type, column)) for column in columns):
        yield from map(canonical, rows)
        return
    for row in rows:
        try:
            text = orjson.dumps(row, default=_tagged, option=_UNTOUCHED)
            # a copy: what orjson returns takes 4 kB for as long as it is kept, however short it is
            yield bytes(memoryview(text))
        except TypeError:  # an integer of more than 64 bits, or half of a surrogate pair
            yield canonical(row)


def _is_flat(value: object) -> bool:
    """Whether nothing in a value needs replacing, as in most rows: this saves a walk."""
    match value:
        case dict():
            pairs = cast("dict[Any, Any]", value)
            plain = _PLAIN_TYPES.issuperset(map(type, pairs.values()))
            return plain and not any(str(k)[:1] == "$" for k in pairs)
        case list() | tuple():
            return _PLAIN_TYPES.issuperset(map(type, cast("list[Any]", value)))
        case _:
            return False


def _tagged(value: object) -> object:  # noqa: PLR0911 - one line per type reads best as a table
    match value:
        case datetime():
            moment = value.astimezone(UTC) if value.tzinfo else value
            return {"$datetime": moment.isoformat()}
        case date():
            return {"$date": value.isoformat()}
        case time():
            return {"$time": value.isoformat()}
        case timedelta():
            return {"$seconds": str(Decimal(value // timedelta(microseconds=1)).scaleb(-6))}
        case Decimal():
            return {"$decimal": _plain_decimal(value)}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case UUID():
            return {"$uuid": str(value)}
        case Enum():
            return value.value
        case _:
            message = f"a value of type {type(value).__name__} cannot be part of a row"
            raise TypeError(message)


def _plain_decimal(value: Decimal) -> str:
    """Return all digits, without exponent or trailing zeros: 1.10 and 1.1 are the same number."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_tagged
)


def _finite(value: object) -> object:
    """Replace NaN and the infinities, which JSON cannot hold, by tagged objects."""
    match value:
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case dict():
            # a struct's own key "$date" must not read as a date
            pairs = cast("dict[object, object]", value).items()
            return {f"${k}" if str(k).startswith("$") else str(k): _finite(v) for k, v in pairs}
        case list() | tuple():
            return [_finite(v) for v in cast("list[object] | tuple[object, ...]", value)]
        case _:
            return value


# orjson, which is faster, spells these as the encoder does; of floats and objects it does not
_SAME_IN_ORJSON = _PLAIN_TYPES | {datetime, date, time, timedelta, Decimal, bytes}
_UNTOUCHED = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def digest(kind: str, *parts: bytes) -> bytes:
    """Return 32 bytes: the SHA-256 of length-prefixed `parts`; `kind` keeps uses apart."""
    hasher = hashlib.sha256(kind.encode())
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def base32(raw: bytes) -> str:
    """Return lower-case base 32 without padding: safe in custom ids, file names and URLs."""
    return base64.b32encode(raw).decode().rstrip("=").lower()


def digests(kind: str, values: Iterable[bytes]) -> list[bytes]:
    """Return `digest(kind, value)` of each value."""
    start, sha256 = kind.encode(), hashlib.sha256
    return [sha256(start + len(one).to_bytes(8, "big") + one).digest() for one in values]


def key_digest(key: bytes) -> bytes:
    """Return the 16 bytes under which a canonical key is indexed."""
    return digest("key", key)[:16]


def key_digests(keys: Iterable[bytes]) -> list[bytes]:
    """Return `key_digest` of each key."""
    return [one[:16] for one in digests("key", keys)]
