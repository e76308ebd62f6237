"""Response models: what is sent, how answers are parsed, and what is refused before sending."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    create_model,
    field_serializer,
)
from typing_extensions import TypedDict

from batchata_tasks.common.errors import SpecError
from batchata_tasks.schema.reader import MAX_DEPTH
from batchata_tasks.schema.response import ResponseSchema
from tests.support.by_day import examples


class Colour(Enum):  # noqa: D101 - a docstring would reach the model
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):  # noqa: D101 - a docstring would reach the model
    LOW = 1
    HIGH = 2


class Point(BaseModel):  # noqa: D101 - a docstring would reach the model
    x: int
    label: str | None


class Node(BaseModel):  # noqa: D101 - a docstring would reach the model
    child: Node | None


class Pair(NamedTuple):
    """A fixed list of types."""

    a: int
    b: int


POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "label": {"type": ["string", "null"]}},
    "required": ["x", "label"],
}
POINT_TYPE = pa.struct([pa.field("x", pa.int64()), pa.field("label", pa.string())])
UUID_TEXT = "12345678-1234-5678-1234-567812345678"
MOMENT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)

# name: (Pydantic type, JSON Schema, canonical, Arrow type, a good answer, what lands, a bad answer)
FIELDS: dict[str, tuple[Any, dict[str, Any], Any, pa.DataType, Any, Any, Any]] = {
    "string": (str, {"type": "string"}, "string", pa.string(), "ü\u2028", "ü\u2028", 1),
    "integer": (int, {"type": "integer"}, "integer", pa.int64(), -3, -3, "x"),
    "integer-64": (int, {"type": "integer"}, "integer", pa.int64(), 2**63 - 1, 2**63 - 1, 2**63),
    "number": (float, {"type": "number"}, "number", pa.float64(), 2.5, 2.5, "x"),
    "number-whole": (float, {"type": "number"}, "number", pa.float64(), 2, 2.0, [2]),
    "boolean": (bool, {"type": "boolean"}, "boolean", pa.bool_(), True, True, "maybe"),
    "nullable": (
        str | None,
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "string?",
        pa.string(),
        None,
        None,
        1,
    ),
    "nullable-kinds": (
        int | None,
        {"type": ["null", "integer"]},
        "integer?",
        pa.int64(),
        4,
        4,
        "x",
    ),
    "date": (
        date,
        {"type": "string", "format": "date"},
        "date",
        pa.date32(),
        "2026-11-22",
        date(2026, 11, 22),
        "22/11/2026",
    ),
    "datetime": (
        datetime,
        {"type": "string", "format": "date-time"},
        "date-time",
        pa.timestamp("us", tz="UTC"),
        "2026-11-22T11:30:00+01:00",
        MOMENT,
        "noon",
    ),
    "time": (
        time,
        {"type": "string", "format": "time"},
        "time",
        pa.time64("us"),
        "10:30:00",
        time(10, 30),
        "25:00",
    ),
    "literal": (
        Literal["b", "a"],
        {"enum": ["b", "a"]},
        {"string": ["a", "b"]},
        pa.string(),
        "a",
        "a",
        "c",
    ),
    "literal-integers": (
        Literal[1, 2],
        {"type": "integer", "enum": [1, 2]},
        {"integer": ["1", "2"]},
        pa.int64(),
        2,
        2,
        3,
    ),
    "const": (
        Literal["only"],
        {"const": "only"},
        {"string": ["only"]},
        pa.string(),
        "only",
        "only",
        "other",
    ),
    "enum": (
        Colour,
        {"type": "string", "enum": ["red", "blue"]},
        {"string": ["blue", "red"]},
        pa.string(),
        "red",
        "red",
        "green",
    ),
    "enum-integers": (
        Level,
        {"type": "integer", "enum": [1, 2]},
        {"integer": ["1", "2"]},
        pa.int64(),
        1,
        1,
        9,
    ),
    "enum-nullable": (
        Literal["a"] | None,
        {"enum": ["a", None]},
        {"string?": ["a"]},
        pa.string(),
        None,
        None,
        "b",
    ),
    "list": (
        list[str],
        {"type": "array", "items": {"type": "string"}},
        {"array": "string"},
        pa.list_(pa.string()),
        ["a"],
        ["a"],
        "a",
    ),
    "list-empty": (
        list[int],
        {"type": "array", "items": {"type": "integer"}},
        {"array": "integer"},
        pa.list_(pa.int64()),
        [],
        [],
        [None],
    ),
    "list-nullable": (
        list[int] | None,
        {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        {"array?": "integer"},
        pa.list_(pa.int64()),
        None,
        None,
        ["x"],
    ),
    "list-of-nullable": (
        list[int | None],
        {"type": "array", "items": {"type": ["integer", "null"]}},
        {"array": "integer?"},
        pa.list_(pa.int64()),
        [1, None],
        [1, None],
        ["x"],
    ),
    "list-of-lists": (
        list[list[float]],
        {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        {"array": {"array": "number"}},
        pa.list_(pa.list_(pa.float64())),
        [[1.5], []],
        [[1.5], []],
        [1.5],
    ),
    "list-of-enum": (
        list[Colour],
        {"type": "array", "items": {"enum": ["red", "blue"]}},
        {"array": {"string": ["blue", "red"]}},
        pa.list_(pa.string()),
        ["blue"],
        ["blue"],
        ["green"],
    ),
    "nested": (
        Point,
        POINT,
        {"object": {"x": "integer", "label": "string?"}},
        POINT_TYPE,
        {"x": 1, "label": None},
        {"x": 1, "label": None},
        {"x": 1},
    ),
    "nested-nullable": (
        Point | None,
        {"anyOf": [POINT, {"type": "null"}]},
        {"object?": {"x": "integer", "label": "string?"}},
        POINT_TYPE,
        None,
        None,
        {"x": "y", "label": None},
    ),
    "nested-list": (
        list[Point],
        {"type": "array", "items": POINT},
        {"array": {"object": {"x": "integer", "label": "string?"}}},
        pa.list_(POINT_TYPE),
        [{"x": 1, "label": "l"}],
        [{"x": 1, "label": "l"}],
        [{"x": 1, "label": 2}],
    ),
    "uuid": (
        UUID,
        {"type": "string", "format": "uuid"},
        "uuid",
        pa.string(),
        UUID_TEXT,
        UUID_TEXT,
        None,
    ),
    "lengths": (
        Annotated[str, Field(min_length=2, max_length=3)],
        {"type": "string", "minLength": 2, "maxLength": 3},
        "string",
        pa.string(),
        "ab",
        "ab",
        "abcd",
    ),
    "pattern": (
        Annotated[str, Field(pattern="^a+$")],
        {"type": "string", "pattern": "^a+$"},
        "string",
        pa.string(),
        "aa",
        "aa",
        "ab",
    ),
    "range": (
        Annotated[int, Field(ge=0, le=9)],
        {"type": "integer", "minimum": 0, "maximum": 9},
        "integer",
        pa.int64(),
        9,
        9,
        10,
    ),
    "open-range": (
        Annotated[float, Field(gt=0, lt=1)],
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "number",
        pa.float64(),
        0.5,
        0.5,
        1,
    ),
    "multiple": (
        Annotated[int, Field(multiple_of=5)],
        {"type": "integer", "multipleOf": 5},
        "integer",
        pa.int64(),
        10,
        10,
        11,
    ),
    "range-nullable": (
        Annotated[int, Field(ge=0)] | None,
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "integer?",
        pa.int64(),
        None,
        None,
        -1,
    ),
    "items": (
        Annotated[list[str], Field(min_length=1, max_length=2)],
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        {"array": "string"},
        pa.list_(pa.string()),
        ["a"],
        ["a"],
        [],
    ),
    "described": (
        Annotated[str, Field(description="A label.")],
        {"type": "string", "description": "A label."},
        "string",
        pa.string(),
        "x",
        "x",
        None,
    ),
}


def from_type(kind: Any) -> ResponseSchema:
    return ResponseSchema.from_model(create_model("Answer", value=(kind, ...)), "response_model")


def from_schema(schema: Any, **more: Any) -> ResponseSchema:
    whole = {"type": "object", "properties": {"value": schema}, "required": ["value"], **more}
    return ResponseSchema.from_json_schema(whole, "response_schema")


def landed(schema: ResponseSchema, values: dict[str, Any]) -> dict[str, Any]:
    """Bring parsed values through Arrow and back."""
    return pa.Table.from_pylist([values], schema=schema.arrow).to_pylist()[0]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("form", ["class", "schema"])
def test_a_field_from_schema_to_column(name: str, form: str) -> None:
    """Each type has its canonical name and its column.

    A good answer lands with its type, a bad one is refused with the field's name.
    """
    kind, schema, canonical, arrow, good, lands, bad = FIELDS[name]
    found = from_type(kind) if form == "class" else from_schema(schema)
    assert found.canonical == {"object": {"value": canonical}}
    assert found.arrow == pa.schema([pa.field("value", arrow)])
    values, error = found.parse(json.dumps({"value": good}))
    assert (values, error) != (None, error)
    assert landed(found, values or {}) == {"value": lands}
    if name == "uuid" and form == "schema":
        return  # a format that has no column type of its own is not checked
    values, error = found.parse(json.dumps({"value": bad}))
    assert values is None
    assert error.startswith("value") or name == "integer-64"
    assert error


@pytest.mark.parametrize("name", FIELDS)
def test_a_class_and_its_json_schema_are_one(name: str) -> None:
    """All spellings of a model have one wire schema, canonical form and columns.

    So nothing is paid for again.
    """
    one, other = from_type(FIELDS[name][0]), from_schema(FIELDS[name][1])
    assert (one.wire, one.canonical, one.arrow) == (other.wire, other.canonical, other.arrow)


@pytest.mark.parametrize("name", FIELDS)
def test_the_wire_schema_is_strict_and_takes_the_good_answer(name: str) -> None:
    """The wire schema is valid JSON Schema, and the good answer satisfies it.

    It has no references, requires all properties and allows no others.
    """
    wire = from_type(FIELDS[name][0]).wire
    jsonschema.Draft202012Validator.check_schema(wire)
    jsonschema.validate({"value": FIELDS[name][4]}, wire)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, wire)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"value": FIELDS[name][4], "more": 1}, wire)
    assert "$ref" not in json.dumps(wire)


@pytest.mark.parametrize("name", FIELDS)
def test_a_resumed_run_reads_its_model_from_the_wire_schema(name: str) -> None:
    """The wire schema is what the ledger stores.

    Read back, it makes the same columns and the same canonical form.
    """
    one = from_type(FIELDS[name][0])
    other = ResponseSchema.from_json_schema(one.wire, "response_model")
    assert (other.canonical, other.arrow) == (one.canonical, one.arrow)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lengths", "(minLength: 2, maxLength: 3)"),
        ("range", "(minimum: 0, maximum: 9)"),
        ("pattern", "(pattern: ^a+$)"),
        ("items", "(minItems: 1, maxItems: 2)"),
    ],
)
def test_constraints_are_told_in_words(name: str, told: str) -> None:
    """Strict modes take no constraints, so the description has them for the model."""
    field = from_type(FIELDS[name][0]).wire["properties"]["value"]
    assert field["description"] == told
    assert not {"minLength", "minimum", "pattern", "minItems"} & field.keys()


def test_constraints_are_no_part_of_the_canonical_form() -> None:
    """A raised maximum does not send every row again; another type or name does."""
    assert (
        from_schema({"type": "string", "maxLength": 5}).canonical
        == from_schema({"type": "string", "description": "d"}).canonical
    )
    assert from_schema({"type": "string"}).canonical != from_schema({"type": "integer"}).canonical
    assert from_schema({"enum": ["1"]}).canonical != from_schema({"enum": [1]}).canonical


REFUSED: dict[str, tuple[Any, str]] = {
    "dict": (dict[str, int], "the field value is a map with free keys"),
    "union": (int | str, "the field value is a union of several types"),
    "any": (Any, "the field value has no type"),
    "decimal": (Decimal, "the field value is a Decimal without its size"),
    "tuple": (tuple[int, str], "the field value uses the JSON Schema keyword 'prefixItems'"),
    "named-tuple": (Pair, "the field value"),
    "set": (set[str], "the field value uses the JSON Schema keyword 'uniqueItems'"),
    "list": (list, "the field value"),
    "recursive": (Node, "refers to itself"),
    "floats": (Literal["a", 1], "the field value is an enum of mixed or unusual values"),
    "nested-dict": (list[dict[str, str]], "the field value[] is a map with free keys"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_batch_can_ask_for_is_refused(name: str) -> None:
    """Maps, unions, tuples and recursion are refused before anything is sent, naming the field."""
    kind, sentence = REFUSED[name]
    with pytest.raises(SpecError) as caught:
        from_type(kind)
    assert str(caught.value).startswith("response_model: the field ")
    assert sentence in str(caught.value)


DRAFT_7 = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$comment": "as older tools write it",
    "definitions": {
        "Point": POINT,
        "Area/Line": {
            "type": "object",
            "properties": {
                "from": {"$ref": "#/definitions/Point"},
                "to": {"anyOf": [{"$ref": "#/definitions/Point"}, {"type": "null"}]},
            },
            "required": ["from", "to"],
        },
    },
    "type": "object",
    "properties": {
        "lines": {"type": "array", "items": {"$ref": "#/definitions/Area~1Line"}},
        "spot": {"$ref": "#/definitions/Point"},
    },
    "required": ["lines", "spot"],
}


def test_definitions_of_draft_7_are_read_as_defs() -> None:
    """References to them give the same schema as `$defs`, in whatever depth they are used."""
    old = ResponseSchema.from_json_schema(DRAFT_7, "x")
    text = json.dumps(DRAFT_7).replace("definitions", "$defs")
    assert old.root == ResponseSchema.from_json_schema(json.loads(text), "x").root
    assert "definitions" not in json.dumps(old.wire)
    answer = {
        "lines": [{"from": {"x": 1, "label": None}, "to": None}],
        "spot": {"x": 2, "label": "a"},
    }
    assert old.parse(json.dumps(answer)) == (answer, "")


def test_definitions_that_refer_to_themselves_are_refused() -> None:
    """Recursion is refused, however it is written."""
    child = {"type": "object", "properties": {"next": {"$ref": "#/definitions/Child"}}}
    schema = {
        "definitions": {"Child": child},
        "type": "object",
        "properties": {"first": {"$ref": "#/definitions/Child"}},
    }
    with pytest.raises(SpecError, match="refers to itself"):
        ResponseSchema.from_json_schema(schema, "response_schema")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        None,
        1,
        "string",
        [],
        {"type": "null"},
        {"type": "strnig"},
        {"type": ["string", "integer"]},
        {"type": ["null"]},
        {"type": []},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [True, {"type": "null"}]},
        {"anyOf": []},
        {"not": {}},
        {"type": "string", "if": {}},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/x"},
        {"enum": []},
        {"enum": [1.5]},
        {"enum": [None]},
        {"enum": ["a", 1]},
        {"const": [1]},
        {"type": "array"},
        {"type": "array", "items": True},
        {"type": "array", "items": [{"type": "string"}]},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": 1},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "additionalProperties": {"type": "string"},
        },
        {"allOf": [{"type": "string"}, {"minLength": 2}]},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "^(?=x)"},
        {"type": "integer", "minimum": "x"},
    ],
    ids=json.dumps,
)
def test_a_senseless_json_schema_is_refused(schema: Any) -> None:
    """For any content of a schema file, the error is one sentence, never a traceback."""
    with pytest.raises(SpecError, match=r"^response_schema: "):
        from_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {},
        "x",
        1,
        None,
        {"type": "array", "items": {"type": "string"}},
        {"type": "string"},
        {"type": ["object", "null"], "properties": POINT["properties"]},
    ],
)
def test_the_root_must_be_an_object(schema: Any) -> None:
    """Columns have names, so the answer is an object."""
    with pytest.raises(SpecError, match=r"^response_schema: "):
        ResponseSchema.from_json_schema(schema, "response_schema")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minLength": 2},
        {"type": "string", "minimum": 2},
        {"type": "string", "format": "date", "minLength": 2},
        {"type": "string", "enum": ["2026-11-22", 3][:1], "minLength": 2},
        {"type": "array", "items": {"type": "string"}, "maxLength": 1},
    ],
    ids=json.dumps,
)
def test_constraints_of_another_type_mean_nothing(schema: dict[str, Any]) -> None:
    """As in JSON Schema, `minLength` means nothing for an integer.

    No answer fails for it, and no run dies of it.
    """
    good = {"integer": 1, "array": ["a", "b"]}.get(schema["type"], "2026-11-22")
    values, error = from_schema(schema).parse(json.dumps({"value": good}))
    assert values is not None
    assert error == ""


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"n": schema}, "required": ["n"]}
    return schema


def test_depth_has_a_limit() -> None:
    """A model nested too deep is refused, the deepest allowed one is not."""
    assert ResponseSchema.from_json_schema(nested(MAX_DEPTH), "response_schema").arrow.names == [
        "n"
    ]
    with pytest.raises(SpecError, match="is nested more than 8 levels deep"):
        ResponseSchema.from_json_schema(nested(MAX_DEPTH + 1), "response_schema")


def test_dots_in_names_are_no_depth() -> None:
    """Dots in a field's name, as in a version or a path, are no depth."""
    schema = {"type": "object", "properties": {"1.2.3.4.5.6.7.8.9": {"type": "string"}}}
    assert ResponseSchema.from_json_schema(schema, "response_schema").arrow.names == [
        "1.2.3.4.5.6.7.8.9"
    ]


@pytest.mark.parametrize(
    "name", ["a b", "größe", "model_config", "class", "", "_x", "field_0", "x.y", "1"]
)
def test_any_name_can_be_a_field(name: str) -> None:
    """Names of JSON properties need not be Python's."""
    schema = {
        "type": "object",
        "properties": {"first": {"type": "integer"}, name: {"type": "string"}},
        "required": ["first", name],
    }
    found = ResponseSchema.from_json_schema(schema, "response_schema")
    values, _ = found.parse(json.dumps({"first": 1, name: "x"}))
    assert landed(found, values or {}) == {"first": 1, name: "x"}


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", '"x"', "```json\n{}\n```", '{"value": }', "\ufeff{}", "{} {}"]
)
def test_an_answer_that_is_no_object_is_refused(text: str) -> None:
    """Truncated JSON, other types and Markdown fences are an invalid answer with a reason."""
    values, error = from_type(str).parse(text)
    assert values is None
    assert error


def test_more_than_was_asked_for_is_ignored() -> None:
    """A field that the model adds is neither a column nor an error."""
    assert from_type(int).parse('{"value": 1, "more": 2}') == ({"value": 1}, "")


def test_a_class_keeps_its_own_rules() -> None:
    """Defaults and strictness of the class decide, extra fields included."""

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        value: int
        note: str = "none"

    schema = ResponseSchema.from_model(Strict, "response_model")
    assert schema.parse('{"value": 1}') == ({"value": 1, "note": "none"}, "")
    assert schema.parse('{"value": "1"}')[0] is None
    assert schema.parse('{"value": 1, "more": 2}')[0] is None


ALIASES = {
    "alias": Field(alias="other"),
    "validation": Field(validation_alias="other"),
    "serialization": Field(serialization_alias="other"),
    "choices": Field(validation_alias=AliasChoices("other", "third")),
}


@pytest.mark.parametrize("name", ALIASES)
@pytest.mark.parametrize("deep", [False, True])
def test_no_alias_loses_an_answer(name: str, deep: bool) -> None:
    """The names of the wire schema are those that are read and that land, nested or not."""
    inner = create_model("Inner", text=(str, ALIASES[name]))
    schema = ResponseSchema.from_model(
        create_model("Outer", inner=(inner, ...)) if deep else inner, "response_model"
    )
    wire = schema.wire["properties"]["inner"] if deep else schema.wire
    (asked,) = wire["properties"]
    answer: dict[str, Any] = {"inner": {asked: "kept"}} if deep else {asked: "kept"}
    values, error = schema.parse(json.dumps(answer))
    assert error == ""
    assert landed(schema, values or {}) == answer


def test_no_serializer_changes_a_column() -> None:
    """A class's serializers do not matter: the column has the field's type and value."""

    class Model(BaseModel):
        day: date

        @field_serializer("day")
        def _text(self, value: date) -> str:
            return f"{value:%d.%m.%Y}"

    schema = ResponseSchema.from_model(Model, "response_model")
    values, _ = schema.parse('{"day": "2026-11-22"}')
    assert landed(schema, values or {}) == {"day": date(2026, 11, 22)}


class Labels(BaseModel):  # noqa: D101 - a docstring would reach the model
    one: Literal["a", "A", "b"]
    many: list[Colour]
    level: Level


@pytest.mark.parametrize("form", ["class", "schema"])
@pytest.mark.parametrize(
    ("answer", "lands"),
    [
        ({"one": "a", "many": ["red"], "level": 1}, {"one": "a", "many": ["red"], "level": 1}),
        (
            {"one": "A", "many": ["RED", "Blue"], "level": 2},
            {"one": "A", "many": ["red", "blue"], "level": 2},
        ),
        ({"one": "B", "many": [], "level": 2, "more": "x"}, {"one": "b", "many": [], "level": 2}),
        ({"one": "a", "many": ["rot"], "level": 1}, "many.0"),
        ({"one": "ä", "many": ["RED"], "level": 1}, "one"),
        ({"one": "a", "many": ["RED"], "level": 3}, "level"),
        ({"one": "B", "many": "RED", "level": 1}, "many"),
        ({"one": ["B"], "many": ["RED"], "level": 1}, "one"),
        (["RED"], "answer"),
    ],
    ids=json.dumps,
)
def test_the_case_of_an_enum_is_mended_and_nothing_else(form: str, answer: Any, lands: Any) -> None:
    """A value that differs only in case lands as the class spells it.

    An exact match goes first, and all else is refused as before.
    """
    schema = ResponseSchema.from_model(Labels, "response_model")
    if form == "schema":
        schema = ResponseSchema.from_json_schema(schema.stored, "response_schema")
    values, error = schema.parse(json.dumps(answer))
    assert (values, error.split(":")[0]) == (
        (lands, "")
        if isinstance(lands, dict)
        else (None, lands if form == "class" else error.split(":")[0])
    )


def test_a_case_that_leaves_a_doubt_is_not_mended() -> None:
    """If two values differ only in case, a third spelling is neither."""
    schema = from_schema({"enum": ["ab", "AB"]})
    assert schema.parse('{"value": "AB"}') == ({"value": "AB"}, "")
    assert schema.parse('{"value": "Ab"}')[0] is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"value": ' * 100_000, '{"value": "\ud800"}'])
def test_a_hostile_answer_to_an_enum_is_invalid(text: str) -> None:
    """The case is only looked at in answers that failed, whatever they are."""
    values, error = from_type(Colour).parse(text)
    assert values is None
    assert error


def test_a_default_factory_is_asked_for_and_never_null() -> None:
    """The class refuses a null, so the schema allows none.

    The canonical form is unchanged, and nothing is sent again.
    """
    schema = ResponseSchema.from_model(
        create_model("Answer", value=(list[str], Field(default_factory=list))), "response_model"
    )
    assert schema.wire["properties"]["value"] == {"type": "array", "items": {"type": "string"}}
    assert schema.wire["required"] == ["value"]
    assert schema.canonical == {"object": {"value": {"array?": "string"}}}
    assert schema.parse("{}") == ({"value": []}, "")


EXACT = {"type": "string", "format": "decimal", "maxDigits": 6, "decimalPlaces": 2, "minimum": 0}


@pytest.mark.parametrize("form", ["class", "schema"])
@pytest.mark.parametrize(
    ("answer", "lands"),
    [
        ('"12.5"', "12.50"),
        ('"1234.56"', "1234.56"),
        ("3", "3.00"),
        ('"0.10"', "0.10"),
        ('"12345"', None),
        ('"1.234"', None),
        ('"-1"', None),
        ('"NaN"', None),
        ('"much"', None),
    ],
)
def test_an_exact_number_stays_exact(form: str, answer: str, lands: str | None) -> None:
    """A Decimal of a stated size lands digit by digit.

    One that the column cannot hold makes its own row invalid.
    """
    kind = Annotated[Decimal, Field(max_digits=6, decimal_places=2, ge=0)]
    schema = from_type(kind) if form == "class" else from_schema(EXACT)
    values, error = schema.parse(f'{{"value": {answer}}}')
    if lands is None:
        assert values is None
        assert error.startswith("value")
        return
    assert str(landed(schema, values or {})["value"]) == lands
    assert schema.arrow == pa.schema([pa.field("value", pa.decimal128(6, 2))])
    assert schema.canonical == {"object": {"value": "decimal128(6, 2)"}}


def test_a_number_of_too_many_digits_costs_its_row_alone() -> None:
    """Without max_digits the column holds 38 digits.

    An answer with more is invalid, and no run dies of it.
    """
    schema = from_type(Annotated[Decimal, Field(decimal_places=2)])
    values, error = schema.parse(json.dumps({"value": "9" * 37}))
    assert values is None
    assert "Decimal" in error


class Typed(TypedDict):
    """A nested dict with a field named like a method."""

    items: str
    n: int


class Words(RootModel[list[str]]):
    """A list by another name."""


class Word(RootModel[str]):
    """A text by another name."""


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Typed, {"items": "x", "n": 1}), (Words, ["a", "b"]), (Word, "a"), (list[Word], ["a"])],
    ids=["typed-dict", "root-list", "root-text", "list-of-root"],
)
def test_other_nested_kinds_land_or_are_refused(kind: Any, value: Any) -> None:
    """A TypedDict or RootModel inside a model is refused when it is read, or its answers land."""
    try:
        schema = from_type(kind)
    except SpecError:
        return
    values, error = schema.parse(json.dumps({"value": value}))
    assert error == ""
    assert landed(schema, values or {}) == {"value": value}


@pytest.mark.parametrize(("kind", "value"), [("bytes", "abc"), ("timedelta", "PT1H")])
def test_texts_of_other_types_land_as_text(kind: str, value: str) -> None:
    """A type with a text column lands as the text of the answer, or is refused.

    The JSON Schema form agrees.
    """
    from datetime import timedelta

    try:
        schema = from_type({"bytes": bytes, "timedelta": timedelta}[kind])
    except SpecError:
        return
    values, _ = schema.parse(json.dumps({"value": value}))
    assert landed(schema, values or {}) == {"value": value}


@pytest.mark.parametrize("name", ["binary", "color", "password"])
def test_formats_beyond_the_providers_do_not_go_out(name: str) -> None:
    """A format outside of both providers' strict subset is refused, or only in the description."""
    try:
        wire = from_schema({"type": "string", "format": name}).wire
    except SpecError:
        return
    assert "format" not in wire["properties"]["value"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "enum": ["a"]},
        {"type": "string", "enum": [1, 2]},
        {"type": "boolean", "enum": ["yes"]},
    ],
    ids=json.dumps,
)
def test_an_enum_that_its_type_forbids_is_refused(schema: dict[str, Any]) -> None:
    """No answer could satisfy it: every row would be paid for and invalid."""
    with pytest.raises(SpecError, match="the field value is an enum"):
        from_schema(schema)


# --- any schema, any value of it ------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS: list[tuple[dict[str, Any], st.SearchStrategy[Any]]] = [
    ({"type": "string"}, TEXTS),
    ({"type": "integer"}, st.integers(-(2**63), 2**63 - 1)),
    ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False)),
    ({"type": "boolean"}, st.booleans()),
    ({"enum": ["a", "b", "ü"]}, st.sampled_from(["a", "b", "ü"])),
    ({"enum": [1, 2, -5]}, st.sampled_from([1, 2, -5])),
    ({"type": "string", "format": "date"}, st.dates()),
    (
        {"type": "string", "format": "date-time"},
        st.datetimes(
            datetime(1700, 1, 1),  # noqa: DTZ001
            datetime(2200, 1, 1),  # noqa: DTZ001
            timezones=st.just(UTC),
        ),
    ),
]
PairOf = tuple[dict[str, Any], st.SearchStrategy[Any]]


def _nullable(pair: PairOf) -> PairOf:
    return {"anyOf": [pair[0], {"type": "null"}]}, st.none() | pair[1]


def _list(pair: PairOf) -> PairOf:
    return {"type": "array", "items": pair[0]}, st.lists(pair[1], max_size=3)


def _object(pairs: dict[str, PairOf]) -> PairOf:
    schema = {
        "type": "object",
        "properties": {n: s for n, (s, _) in pairs.items()},
        "required": list(pairs),
        "additionalProperties": False,
    }
    return schema, st.fixed_dictionaries({name: values for name, (_, values) in pairs.items()})


_OBJECT = lambda inner: st.dictionaries(  # noqa: E731
    st.text("abü -_", max_size=3), inner, min_size=1, max_size=3
).map(_object)
PAIRS = st.recursive(
    st.sampled_from(SCALARS) | st.sampled_from(SCALARS).map(_nullable),
    lambda inner: inner.map(_list) | _OBJECT(inner) | _OBJECT(inner).map(_nullable),
    max_leaves=5,
)
CASES = _OBJECT(PAIRS).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.lists(pair[1], min_size=1, max_size=3))
)


@given(CASES)
@settings(deadline=None, max_examples=examples(120), derandomize=True)
def test_every_valid_answer_survives_to_the_column(
    case: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    """Any value of any schema goes over the wire as JSON, is parsed, and is in Arrow as it was."""
    schema, answers = case
    found = ResponseSchema.from_json_schema(schema, "response_schema")
    jsonschema.Draft202012Validator.check_schema(found.wire)
    parsed: list[dict[str, Any]] = []
    for answer in answers:
        text = json.dumps(answer, default=lambda value: value.isoformat())
        jsonschema.validate(json.loads(text), found.wire)
        values, error = found.parse(text)
        assert error == ""
        parsed.append(values or {})
    assert pa.Table.from_pylist(parsed, schema=found.arrow).to_pylist() == answers


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"NaN"'])
def test_a_number_that_json_does_not_have_is_invalid(number: str) -> None:
    """An answer to a JSON Schema never lands as a number that it cannot state."""
    schema = ResponseSchema.from_json_schema(
        {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}, "x"
    )
    fields, problem = schema.parse(f'{{"x": {number}}}')
    assert fields is None
    assert "is no number that JSON has" in problem


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_stored_model_keeps_the_order_of_its_fields(is_sorted: bool) -> None:
    """Nested ones, too, through JSON that may sort; then those with a default factory come last.

    Fields may be called as keywords of JSON Schema are.
    """
    inner = create_model(
        "Inner", required=(str, ...), properties=(list[str] | None, ...), a=(int, ...)
    )
    outer = create_model(
        "Outer",
        z=(list[str], Field(default_factory=list)),
        inner=(list[inner], ...),
        enum=(str, ...),
        type=(inner | None, ...),
    )
    schema = ResponseSchema.from_model(outer, "response_model")
    text = json.dumps(schema.stored, sort_keys=is_sorted)
    again = ResponseSchema.from_stored(json.loads(text), "response_model")
    fields = list(schema.arrow)
    assert list(again.arrow) == ([*fields[1:], fields[0]] if is_sorted else fields)
    assert again.canonical == schema.canonical
