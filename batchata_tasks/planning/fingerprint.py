"""Fingerprints: they show whether a row is to be sent again, and why.

A fingerprint is `v2:<input>.<prompt>.<model+params>.<schema>`. Up to v1 the input depended on the
type of a column: an integer was another input once another row had made its column a float. In v2 a
number is the same whatever its column is. Where no number is concerned, inputs of both are equal.
Rows that an emulator answered have `e2` instead: for a real endpoint they are not up to date, and
neither their attempts nor their costs count.
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, cast

from batchata_tasks.common.canonical import canonical, canonical_records, digest, digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchata_tasks.schema.response import ResponseSchema

FINGERPRINT_VERSION = "v2"
REHEARSED_VERSION = "e2"
"""That of rows which an emulator answered; its parts are those of v2."""
VERSIONS = ("v1", FINGERPRINT_VERSION, REHEARSED_VERSION)
"""Those whose parts can be compared."""
INPUT_BYTES = 12  # 96 bits, as in each part: no clash to be expected below 10^14 rows
OTHERS_FROM = len("v2:") + 2 * INPUT_BYTES + 1
"""Where the parts of a fingerprint begin that come after the input: prompt, model, schema."""
_SPELLED_ONCE = frozenset({str, int, bool, type(None), bytes, date, time, datetime})


def part(kind: str, value: object) -> str:
    """Return one part of a fingerprint: 24 hexadecimal digits (96 bits) over canonical JSON."""
    return digest(kind, canonical(value))[:INPUT_BYTES].hex()


def prompt_part(turns: Iterable[tuple[str, str]]) -> str:
    """Return the part of a prompt, of whose turns the roles and templates are given."""
    return part("prompt", [list(turn) for turn in turns])


def fingerprint(input_part: str, others: str, version: str = FINGERPRINT_VERSION) -> str:
    """Return a fingerprint; `others` are its other parts, as `other_parts` returns them."""
    return f"{version}:{input_part}.{others}"


def is_rehearsed(fingerprint: str) -> bool:
    """Whether the fingerprint is of a row that an emulator answered."""
    return fingerprint.startswith(f"{REHEARSED_VERSION}:")


def other_parts(prompt_part: str, model_part: str, schema_part: str) -> str:
    """Return the parts of a fingerprint that rows of one spec share."""
    return f"{prompt_part}.{model_part}.{schema_part}"


def inputs_of(
    columns: Mapping[str, Sequence[object]], rows: int, documents: Sequence[bytes] = ()
) -> list[bytes]:
    """Return the input of each of some rows: the first 12 bytes of its digest.

    Identity is typed, as in keys, except that numbers are equal if their values are. `documents`
    are what those of each row add to it, if rows have any.
    """
    unified = {name: _unified_column(values) for name, values in columns.items()}
    texts = _texts_of(unified, rows)
    if documents:
        texts = (text + added for text, added in zip(texts, documents, strict=True))
    return inputs_of_texts(texts)


def inputs_v1_of(columns: Mapping[str, Sequence[object]], rows: int) -> list[bytes]:
    """Return the inputs of rows as v1 had them."""
    return inputs_of_texts(_texts_of(columns, rows))


def _texts_of(columns: Mapping[str, Sequence[object]], rows: int) -> Iterable[bytes]:
    """Return the values of each row as canonical JSON."""
    return canonical_records(columns) if columns else repeat(canonical({}), rows)


def inputs_of_texts(texts: Iterable[bytes]) -> list[bytes]:
    """Return the inputs of rows whose values have these texts as canonical JSON."""
    return [one[:INPUT_BYTES] for one in digests("input", texts)]


def _unified_column(values: Sequence[object]) -> Sequence[object]:
    if _SPELLED_ONCE.issuperset(map(type, values)):
        return values
    return [_unified(value) for value in values]


def _unified(value: object) -> object:
    """Return a value in which equal numbers are spelled alike."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Decimal() if value.is_finite() and value == value.to_integral_value():
            return int(value)
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return {str(key): _unified(item) for key, item in pairs}
        case list() | tuple():
            return [_unified(item) for item in cast("list[object]", value)]
        case _:
            return value


@lru_cache(maxsize=4096)  # rows of one table share the last three parts, so few pairs recur often
def _parts(text: str) -> tuple[str, tuple[str, ...]]:
    version, _, rest = text.partition(":")
    return version, tuple(rest.split("."))


_PARTS = ("input", "prompt", "model", "schema")


def input_part(text: str) -> str:
    """Return a fingerprint's part of the row's values."""
    return _parts(text)[1][0]


def schema_part(text: str) -> str | None:
    """Return a fingerprint's part of the response model; None if its version is unknown."""
    version, parts = _parts(text)
    return parts[-1] if version in VERSIONS and len(parts) == len(_PARTS) else None


def schema_part_of(schema: ResponseSchema | None) -> str:
    """Return the part of the response model in the fingerprints of a table's rows."""
    return part("schema", None if schema is None else schema.canonical)


def with_schema(text: str, schema: str) -> str:
    """Return a fingerprint of the same request under another response model, by its part."""
    return f"{text.rpartition('.')[0]}.{schema}"


def changed(old: str, new: str) -> list[str]:
    """Return the parts in which two fingerprints differ: prompt, input, model, schema.

    None of them if they are equal. The prompt comes first, since a template that reads other
    columns changes the input too. A fingerprint of an unknown version differs in its input.
    """
    if old == new:
        return []
    (old_version, old_parts), (_, new_parts) = _parts(old), _parts(new)
    if old_version not in VERSIONS or len(old_parts) != len(new_parts):
        return ["input"]
    before = dict(zip(_PARTS, old_parts, strict=True))
    after = dict(zip(_PARTS, new_parts, strict=True))
    reasons = ("prompt", "input", "model", "schema")
    return [reason for reason in reasons if before[reason] != after[reason]]
