"""What makes two requests the same: canonical JSON, digests and the four-part fingerprint.

The forms here are stored in datasets and decide what is paid for again, so they may never change
under a version: tests pin them with a golden file. Nothing in them depends on a library's way of
writing JSON: the standard library's encoder writes floats by `repr`, the shortest exact form.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

FINGERPRINT_VERSION = "v1"
_AS_IT_IS = frozenset({str, int, bool, type(None)})
_PART_BYTES = 12  # 96 bits: no clash to be expected below 10^14 rows


def canonical(value: object) -> bytes:
    """Return `value` as canonical, typed JSON: keys sorted, no blanks, UTF-8.

    Identity is typed: `"01"`, `1`, `1.0` and `true` all differ. Dates, times, decimals, bytes and
    non-finite floats become one-key objects such as `{"$date":"2026-11-22"}`.
    """
    return _ENCODER.encode(value if _is_flat(value) else _finite(value)).encode()


def _is_flat(value: object) -> bool:
    """Whether there is nothing to replace, as in most rows: saves a walk through every value."""
    match value:
        case dict():
            pairs = cast("dict[Any, Any]", value)
            return _AS_IT_IS.issuperset(map(type, pairs.values())) and not any(str(k)[:1] == "$" for k in pairs)
        case list() | tuple():
            return _AS_IT_IS.issuperset(map(type, cast("list[Any]", value)))
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
    """Return all digits, without an exponent or trailing zeros: 1.10 and 1.1 are the same number."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_tagged
)


def _finite(value: object) -> object:
    """Replace NaN and the infinities, which JSON lacks, by tagged objects."""
    match value:
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case dict():
            # a struct's own "$date" must not read as a date
            return {f"${k}" if str(k).startswith("$") else str(k): _finite(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_finite(v) for v in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return value


def digest(kind: str, *parts: bytes) -> bytes:
    """Return 32 bytes of SHA-256 over length-prefixed `parts`; `kind` keeps uses apart."""
    hasher = hashlib.sha256(kind.encode())
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def part(kind: str, value: object) -> str:
    """Return one part of a fingerprint: 24 hexadecimal digits (96 bits) over canonical JSON."""
    return digest(kind, canonical(value))[:_PART_BYTES].hex()


def fingerprint(input_part: str, prompt_part: str, model_part: str, schema_part: str) -> str:
    """Return `v1:<input>.<prompt>.<model+params>.<schema>`."""
    return f"{FINGERPRINT_VERSION}:{input_part}.{prompt_part}.{model_part}.{schema_part}"


_PARTS = ("input", "prompt", "model", "schema")


@lru_cache(maxsize=4096)  # rows of one table share the last three parts, so few pairs recur often
def _parts(text: str) -> tuple[str, tuple[str, ...]]:
    version, _, rest = text.partition(":")
    return version, tuple(rest.split("."))


def changed(old: str, new: str) -> list[str]:
    """Name the parts in which two fingerprints differ: prompt, input, model, schema.

    Empty means they are equal. The prompt comes first, since a template that reads other columns
    changes the input too. A fingerprint of another version differs in its input.
    """
    if old == new:
        return []
    (old_version, old_parts), (_, new_parts) = _parts(old), _parts(new)
    if old_version != FINGERPRINT_VERSION or len(old_parts) != len(new_parts):
        return ["input"]
    before, after = dict(zip(_PARTS, old_parts, strict=True)), dict(zip(_PARTS, new_parts, strict=True))
    return [reason for reason in ("prompt", "input", "model", "schema") if before[reason] != after[reason]]


def base32(raw: bytes) -> str:
    """Return lower-case base 32 without padding: safe in custom ids, file names and URLs."""
    return base64.b32encode(raw).decode().rstrip("=").lower()


def row_id(dataset_id: str, key: bytes, row_fingerprint: str) -> str:
    """Return the id of one row's request: 120 bits, the same wherever and whenever it is made."""
    return base32(digest("row", dataset_id.encode(), key, row_fingerprint.encode())[:15])


def key_digest(key: bytes) -> bytes:
    """Return the 16 bytes under which a canonical key is indexed."""
    return digest("key", key)[:16]
