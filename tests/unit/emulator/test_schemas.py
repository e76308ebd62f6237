"""The schemas that the emulated APIs refuse, and what their models read in descriptions."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest

from batchata_tasks.emulator.answers.schema_values import Draw
from batchata_tasks.emulator.answers.schemas import compiled
from batchata_tasks.emulator.anthropic.schemas import schema_problem as anthropic_problem
from batchata_tasks.emulator.openai.schemas import schema_problem as openai_problem

TEXT = {"type": "string"}


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(levels: int) -> dict[str, Any]:
    schema = an_object(n=TEXT)
    for _ in range(levels - 1):
        schema = an_object(n=schema)
    return schema


def or_null(schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (
            an_object(u={"type": "string", "format": "uri"}),
            "In context=('properties', 'u'), 'uri' is not a valid format.",
        ),
        (
            an_object(u={"type": "array", "items": TEXT, "uniqueItems": True}),
            "In context=('properties', 'u'), 'uniqueItems' is not permitted.",
        ),
        (
            an_object(u={"type": "array", "items": {"allOf": [TEXT]}}),
            "In context=('properties', 'u', 'items'), 'allOf' is not permitted.",
        ),
        (
            an_object(u=or_null({"oneOf": [TEXT]})),
            "In context=('properties', 'u', 'anyOf', '0'), 'oneOf' is not permitted.",
        ),
        ({"type": "array", "items": TEXT}, "got 'type: \"array\"'"),
        (
            an_object(n={"type": "integer", "enum": list(range(1001))}),
            "Expected at most 1000 enum values in total",
        ),
        (
            an_object(**{f"f{i}": TEXT for i in range(5001)}),
            "Expected at most 5000 object properties",
        ),
        (nested(11), "11 levels of nesting exceeds limit of 10."),
        ({**an_object(n=TEXT), "required": []}, "Missing 'n'."),
        (
            an_object(n={"type": "object", "properties": {}}),
            "In context=('properties', 'n'), 'additionalProperties' is required",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_openai_refuses_in_strict_mode(schema: dict[str, Any], says: str) -> None:
    """What strict mode does not support is refused with its place; without strict it passes."""
    assert says in (openai_problem(orjson.dumps(schema), strict=True) or "")
    assert openai_problem(orjson.dumps(schema), strict=False) is None


@pytest.mark.parametrize(
    "schema",
    [
        nested(10),
        an_object(n={"type": "integer", "enum": list(range(1000))}),
        an_object(**{f"f{i}": or_null(TEXT) for i in range(40)}),
    ],
    ids=["levels", "values", "unions"],
)
def test_openai_takes_what_is_just_within(schema: dict[str, Any]) -> None:
    """The limits themselves pass."""
    assert openai_problem(orjson.dumps(schema), strict=True) is None


@pytest.mark.parametrize(("count", "taken"), [(16, True), (17, False)])
@pytest.mark.parametrize(
    "spelling", [or_null(TEXT), {"type": ["string", "null"]}], ids=["anyOf", "type"]
)
def test_anthropic_counts_unions(count: int, taken: bool, spelling: dict[str, Any]) -> None:
    """16 parameters may be of a union, in any spelling, nested ones included."""
    inner = {f"f{i}": spelling for i in range(count - 8)}
    schema = an_object(
        one={"type": "array", "items": an_object(**inner)}, **{f"g{i}": spelling for i in range(8)}
    )
    problem = anthropic_problem(orjson.dumps(schema))
    assert (
        problem is None
        if taken
        else f"({count} parameters with type arrays or anyOf)" in (problem or "")
    )


@pytest.mark.parametrize(("count", "taken"), [(24, True), (25, False)])
def test_anthropic_counts_optional_parameters(count: int, taken: bool) -> None:
    """24 parameters may be optional."""
    problem = anthropic_problem(
        orjson.dumps({**an_object(**{f"f{i}": TEXT for i in range(count)}), "required": []})
    )
    assert (
        problem is None if taken else f"too many optional parameters ({count})" in (problem or "")
    )


def test_models_read_formats_and_sizes_in_descriptions() -> None:
    """Descriptions hold what strict modes have no keywords for, and answers follow them."""
    schema = an_object(
        link={**TEXT, "description": "Where. (format: uri, maxLength: 2083)"},
        price={
            **TEXT,
            "description": (
                "(format: decimal, maxDigits: 5, decimalPlaces: 2, minimum: 0, maximum: 20)"
            ),
        },
        any_price={**TEXT, "description": "(format: decimal, maxDigits: 3, decimalPlaces: 0)"},
        count={"type": "integer", "description": "(exclusiveMinimum: 0, exclusiveMaximum: 3)"},
    )
    for seed in range(200):
        answer = json.loads(orjson.dumps(compiled(orjson.dumps(schema))(Draw(seed.to_bytes(8)), 0)))
        assert answer["link"].startswith("https://")
        assert 0 <= Decimal(answer["price"]) <= 20
        assert Decimal(answer["price"]).as_tuple().exponent == -2
        assert 0 <= Decimal(answer["any_price"]) <= 999
        assert answer["count"] in (1, 2)
