"""Fingerprints are stored for years: their form is pinned, typed and free of clashes."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.canonical import (
    base32,
    canonical,
    canonical_records,
    canonical_rows,
    digest,
    key_digest,
    key_digests,
)
from batchata_tasks.planning.fingerprint import (
    changed,
    fingerprint,
    inputs_of,
    inputs_v1_of,
    other_parts,
    part,
)
from batchata_tasks.types.ids import row_id, row_ids
from tests.support.by_day import examples

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "fingerprints.json").read_text(encoding="utf-8")
)
BERLIN_WINTER = timezone(timedelta(hours=1))
DATASET = "d" * 40
KINDS = ("input", "prompt", "model", "schema")


class Colour(Enum):
    """A model's choice."""

    RED = "red"


# name: (input, turns, model facts, schema canonical); the golden file holds what they become
MODEL = {
    "provider": "anthropic",
    "endpoint": "chat",
    "model": "claude-haiku-5-5",
    "max_tokens": 256,
    "params": {},
}
TURNS = [["system", "Label."], ["user", "{{ a }}"]]
LABEL = {"object": {"label": "string"}}
INPUTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "text-01": {"a": "01"},
    "text-1": {"a": "1"},
    "integer-1": {"a": 1},
    "float-1": {"a": 1.0},
    "true": {"a": True},
    "false": {"a": False},
    "text-true": {"a": "true"},
    "null": {"a": None},
    "text-null": {"a": "null"},
    "empty-text": {"a": ""},
    "zero": {"a": 0},
    "minus-zero": {"a": -0.0},
    "big-integer": {"a": 2**63 - 1},
    "small-float": {"a": 5e-324},
    "tenth": {"a": 0.1},
    "big-float": {"a": 1e16},
    "nan": {"a": math.nan},
    "infinity": {"a": math.inf},
    "minus-infinity": {"a": -math.inf},
    "unicode": {"a": "Größe 東京 🦊\u2028"},
    "composed": {"a": "\u00e9"},
    "decomposed": {"a": "e\u0301"},
    "escapes": {"a": 'quote " slash \\ tab \t nul \x00 del \x7f'},
    "date": {"a": date(2026, 11, 22)},
    "datetime-naive": {"a": datetime(2026, 11, 22, 10, 30)},  # noqa: DTZ001 - a naive one
    "datetime-utc": {"a": datetime(2026, 11, 22, 10, 30, tzinfo=UTC)},
    "datetime-micro": {"a": datetime(2026, 11, 22, 10, 30, 0, 1, tzinfo=UTC)},
    "time": {"a": time(10, 30, 1)},
    "duration": {"a": timedelta(days=1, microseconds=5)},
    "decimal": {"a": Decimal("1.5")},
    "decimal-whole": {"a": Decimal(100)},
    "decimal-exponent": {"a": Decimal("1E+20")},
    "bytes": {"a": b"\x00\xff"},
    "uuid": {"a": UUID("12345678-1234-5678-1234-567812345678")},
    "list": {"a": [1, "1", 1.0, None, [True]]},
    "empty-list": {"a": []},
    "struct": {"a": {"z": date(2026, 1, 1), "b": {"c": [Decimal("0.10")]}}},
    "empty-struct": {"a": {}},
    "several": {"b": 1, "a": 2, "ä": 3, "B": 4},
}
CASES: dict[str, tuple[Any, Any, Any, Any]] = {
    name: (value, TURNS, MODEL, LABEL) for name, value in INPUTS.items()
}
CASES |= {
    "other-turn": ({"a": "1"}, [["user", "{{ a }}"]], MODEL, LABEL),
    "other-model": ({"a": "1"}, TURNS, {**MODEL, "model": "gpt-6-luna"}, LABEL),
    "other-endpoint": ({"a": "1"}, TURNS, {**MODEL, "endpoint": "responses"}, LABEL),
    "other-cap": ({"a": "1"}, TURNS, {**MODEL, "max_tokens": 257}, LABEL),
    "other-params": ({"a": "1"}, TURNS, {**MODEL, "params": {"temperature": 0}}, LABEL),
    "plain-text": ({"a": "1"}, TURNS, MODEL, None),
}
FORMS = {
    "aware": (datetime(2026, 11, 22, 11, 30, tzinfo=BERLIN_WINTER), "datetime-utc"),
    "trailing-zeros": (Decimal("1.500"), "decimal"),
    "plain-digits": (Decimal(10**20), "decimal-exponent"),
    "tuple": ((1, "1", 1.0, None, (True,)), "list"),
}


def outcome(case: tuple[Any, Any, Any, Any]) -> dict[str, str]:
    """Return all stored values of a case."""
    first, *others = [part(kind, value) for kind, value in zip(KINDS, case, strict=True)]
    found = fingerprint(first, other_parts(*others), "v1")
    key = canonical(list(case[0].values()))
    (unified,) = inputs_of({name: [value] for name, value in case[0].items()}, 1)
    return {
        "canonical": canonical(case[0]).decode(),
        "fingerprint": found,
        "v2": fingerprint(unified.hex(), other_parts(*others)),
        "key": key.decode(),
        "key_digest": key_digest(key).hex(),
        "row_id": row_id(DATASET, key, found),
    }


@pytest.mark.parametrize("name", CASES)
def test_the_stored_format_never_changes(name: str) -> None:
    """Fingerprints, row ids and key digests are what they were when their version was published."""
    assert outcome(CASES[name]) == GOLDEN[name]


def test_the_golden_file_has_no_case_too_many() -> None:
    """Every pinned case is still tested."""
    assert GOLDEN.keys() == CASES.keys()


def test_no_two_golden_cases_share_a_fingerprint() -> None:
    """The values "01", 1, 1.0 and true, and all other pinned values, differ."""
    assert len({case["fingerprint"] for case in GOLDEN.values()}) == len(GOLDEN)
    assert len({case["canonical"] for case in GOLDEN.values()}) == len(INPUTS)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_digests_follow_from_the_documented_rule(name: str) -> None:
    """Anyone can recompute a digest: SHA-256 over kind and length-prefixed parts.

    It is cut to 96, 120 or 128 bits.
    """

    def sha(kind: str, *blocks: bytes) -> bytes:
        return hashlib.sha256(
            kind.encode() + b"".join(len(b).to_bytes(8, "big") + b for b in blocks)
        ).digest()

    case = GOLDEN[name]
    assert case["fingerprint"].startswith(
        f"v1:{sha('input', case['canonical'].encode())[:12].hex()}."
    )
    assert case["key_digest"] == sha("key", case["key"].encode())[:16].hex()
    raw = sha("row", DATASET.encode(), case["key"].encode(), case["fingerprint"].encode())[:15]
    assert case["row_id"] == base64.b32encode(raw).decode().lower()


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_one_value_are_one(name: str) -> None:
    """Equal values are one: a moment in any zone, a decimal with zeros at its end, a tuple."""
    value, same_as = FORMS[name]
    assert canonical({"a": value}).decode() == GOLDEN[same_as]["canonical"]


def test_an_enum_is_its_value() -> None:
    """A response model's enum and its text are one."""
    assert canonical([Colour.RED]) == b'["red"]'


def test_an_unknown_type_is_refused_by_name() -> None:
    """A value without a canonical form raises instead of being guessed at."""
    with pytest.raises(TypeError, match="a value of type complex cannot be part of a row"):
        canonical({"a": 1j})


def decoded(value: Any) -> Any:
    """Undo `canonical` after JSON: a left inverse shows that no two values share a form."""
    if isinstance(value, list):
        return ["list", [decoded(item) for item in value]]
    if not isinstance(value, dict):
        return [type(value).__name__, repr(value)]
    if len(value) == 1 and re.match(r"\$(?!\$)", tag := next(iter(value))):
        return [tag, value[tag]]
    return [
        "dict",
        {
            key.removeprefix("$") if key.startswith("$$") else key: decoded(item)
            for key, item in value.items()
        },
    ]


def described(value: Any) -> Any:  # noqa: PLR0911 - one line per type
    """Return a value with its type, by rules of this test alone."""
    match value:
        case float() if not math.isfinite(value):
            return ["$float", str(value)]
        case datetime():
            return ["$datetime", (value.astimezone(UTC) if value.tzinfo else value).isoformat()]
        case date():
            return ["$date", f"{value.year:04}-{value.month:02}-{value.day:02}"]
        case Decimal():
            text = format(value, "f")
            text = text.rstrip("0").rstrip(".") if "." in text else text
            return ["$decimal", "0" if text == "-0" else text]
        case bytes():
            return ["$bytes", base64.b64encode(value).decode()]
        case list():
            return ["list", [described(item) for item in value]]
        case dict():
            return ["dict", {key: described(item) for key, item in value.items()}]
        case _:
            return [type(value).__name__, repr(value)]


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes()
    | st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.just(BERLIN_WINTER),
    )
    | st.integers(-(10**27), 10**27).map(lambda n: Decimal(n).scaleb(-6))
    | st.decimals(allow_nan=False, allow_infinity=False)
)
_NAMES = st.text() | st.sampled_from(["$date", "$", "$$", "$$date", "$float"])
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
@settings(deadline=None, max_examples=examples(300), derandomize=True)
def test_canonical_loses_nothing(value: Any) -> None:
    """From the canonical form, value and type can be read back, so no two values share one."""
    assert decoded(json.loads(canonical(value))) == described(value)


@given(st.dictionaries(_NAMES, VALUES, max_size=6), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_canonical_is_independent_of_order(row: dict[str, Any], random: Any) -> None:
    """The order of a source's columns does not matter."""
    items = list(row.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(row)


@given(VALUES)
@settings(deadline=None, max_examples=examples(50), derandomize=True)
def test_parts_have_96_bits(value: Any) -> None:
    """Every part of a fingerprint is 24 hexadecimal digits, and a fingerprint has four."""
    digest = part("input", value)
    assert re.fullmatch("[0-9a-f]{24}", digest)
    assert re.fullmatch(
        r"v2:[0-9a-f]{24}(\.[0-9a-f]{24}){3}",
        fingerprint(digest, other_parts(digest, digest, digest)),
    )


@given(st.text(), st.binary(), st.text())
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_row_ids_are_safe_everywhere(dataset: str, key: bytes, found: str) -> None:
    """24 characters of a to z and 0 to 9: safe in custom ids, file names and URLs."""
    assert re.fullmatch("[a-z0-9]{24}", row_id(dataset, key, found))


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_digests_know_where_parts_end(left: list[bytes], right: list[bytes]) -> None:
    """Bytes moved from one part to the next make another digest."""
    assert (digest("k", *left) == digest("k", *right)) == (left == right)


def test_digests_of_two_uses_differ() -> None:
    """The same bytes as a key and as an input are different digests."""
    assert digest("key", b"x") != digest("input", b"x")


def printed(first: str, *others: str) -> str:
    return fingerprint(first, other_parts(*others))


@pytest.mark.parametrize("kind", KINDS)
def test_the_one_changed_part_is_named(kind: str) -> None:
    """`changed` names exactly the part that differs."""
    parts = dict.fromkeys(KINDS, "0" * 24)
    other = {**parts, kind: "1" * 24}
    assert changed(printed(*parts.values()), printed(*other.values())) == [kind]


@given(st.sets(st.sampled_from(KINDS)))
def test_all_changed_parts_are_named_prompt_first(kinds: set[str]) -> None:
    """Several changes are all named; the prompt comes first, since it may change the input too."""
    old = [part(kind, "old") for kind in KINDS]
    new = [part(kind, "new" if kind in kinds else "old") for kind in KINDS]
    assert changed(printed(*old), printed(*new)) == [
        k for k in ("prompt", "input", "model", "schema") if k in kinds
    ]


@pytest.mark.parametrize("old", ["v0:a.b.c.d", "v1:a.b.c", "", "nonsense"])
def test_a_foreign_fingerprint_reads_as_another_input(old: str) -> None:
    """A fingerprint of an older version or another program is no crash: the row has changed."""
    assert changed(old, printed(*("0" * 24 for _ in KINDS))) == ["input"]


def test_base32_has_no_padding() -> None:
    """Ids hold no character that a URL or a provider would refuse."""
    assert base32(b"\xff" * 13) == "7" * 20 + "6"


def test_decimals_keep_all_their_digits() -> None:
    """Two decimals of 38 digits that differ in the last are two values.

    `types: decimal` reads such numbers.
    """
    assert canonical(Decimal("12345678901234567890123456789.123456789")) != canonical(
        Decimal("12345678901234567890123456789.123456788")
    )


def test_a_struct_is_no_tagged_value() -> None:
    """A struct whose only field is named like a tag is not the value that the tag stands for."""
    assert canonical({"$date": "2026-11-22"}) != canonical(date(2026, 11, 22))


COLUMNS = st.dictionaries(
    _NAMES, st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=4
) | st.dictionaries(
    st.text(), st.lists(st.text() | st.integers() | st.dates(), min_size=3, max_size=3), min_size=1
)


@given(COLUMNS)
@settings(deadline=None, max_examples=examples(300), derandomize=True)
def test_columns_are_spelled_as_their_rows_are(columns: dict[str, list[Any]]) -> None:
    """Many rows at once have the same canonical form as each by itself, by whatever encoder."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert list(canonical_records(columns)) == [canonical(row) for row in rows]
    lists = list(canonical_rows(list(columns.values())))
    assert lists == [canonical(list(row.values())) for row in rows]
    assert key_digests(lists) == [key_digest(one) for one in lists]


@given(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_a_number_is_the_same_in_columns_of_integers_and_of_floats(
    whole: int, other: float
) -> None:
    """A column becomes one of floats when a row brings a fraction; the other rows are as before."""
    (exact,) = inputs_of({"n": [Decimal(whole).quantize(Decimal("1e-3"))]}, 1)
    assert [exact] == inputs_of({"n": [whole]}, 1)
    inside: list[Any] = [whole, [whole], {"n": whole, "$": [whole]}]
    as_floats: list[Any] = [float(whole), [float(whole)], {"n": float(whole), "$": [float(whole)]}]
    for number, as_float in zip(inside, as_floats, strict=True):
        before, after = inputs_of({"n": [number]}, 1), inputs_of({"n": [as_float, other]}, 2)
        assert before[0] == after[0]
        assert (before[0] == after[1]) == (number == other)
        assert before == inputs_v1_of({"n": [number]}, 1)


@given(st.lists(st.tuples(st.binary(max_size=40), st.text(max_size=120)), max_size=5), st.text())
@settings(deadline=None, max_examples=examples(50), derandomize=True)
def test_ids_of_many_rows_are_those_of_each(rows: list[tuple[bytes, str]], dataset: str) -> None:
    """A row has one id, whether it is computed alone or among others."""
    keys, prints = [key for key, _ in rows], [text for _, text in rows]
    assert row_ids(dataset, keys, prints) == [row_id(dataset, *row) for row in rows]
