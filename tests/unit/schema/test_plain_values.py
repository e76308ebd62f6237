"""Answers of plain shapes are read without Pydantic, as Pydantic reads them."""

from __future__ import annotations

import json
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, field_validator

from batchata_tasks.schema.plain_values import plain_check
from batchata_tasks.schema.response import ResponseSchema
from tests.support.by_day import examples

MANY = settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
TEXTS = st.sampled_from(
    ["", "a", "b", "ab", "A", "é", "🙂🙂", "2", "2.0", "true", "2024-02-30", "\0"]
)
VALUES = TEXTS | st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2, 2.0, 2.5, -0.0, 1e300, 2**53, 2**53 + 1, -(2**63), 2**63),
        *(10**30, 1e23, 5e-324, float("nan"), float("inf"), "\ud800", [], {}, ["a"], [1], [None]),
    ]
)
EDGES = st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30])
# what a JSON text may hold that no Python value is dumped as
ODD_TEXTS = [
    "-0",
    "1e400",
    "1E2",
    "0.1e1",
    "01",
    "1.",
    '"\\u00e9"',
    '"\\ud83d\\ude00"',
    '"\t"',
    "nan",
]


def scalars() -> st.SearchStrategy[dict[str, Any]]:
    number = st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "multipleOf"])
    length = st.sampled_from(["minLength", "maxLength"])
    return st.one_of(
        st.builds(
            lambda kind, bounds: {"type": kind, **bounds},
            st.sampled_from(["integer", "number"]),
            st.dictionaries(number, st.integers(1, 3), max_size=1),
        ),
        st.builds(
            lambda sizes: {"type": "string", **sizes},
            st.dictionaries(length, st.integers(0, 2), max_size=1),
        ),
        st.sampled_from(
            [
                {"type": "boolean"},
                {"type": "string", "format": "date"},
                {"type": "string", "format": "email"},
                {"type": "string", "pattern": "^a"},
                {"enum": ["a", "b", "ab"]},
                {"enum": [1, 2, 3]},
                {"type": ["string", "null"]},
                {"type": ["integer", "null"]},
            ]
        ),
    )


def objects(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.dictionaries(st.sampled_from("abcd"), children, min_size=1, max_size=4)

    def made(properties: dict[str, Any], optional: str) -> dict[str, Any]:
        required = [name for name in properties if name != optional]
        return {"type": "object", "properties": properties, "required": required}

    return st.builds(made, fields, st.sampled_from("abcde"))


NODES = st.recursive(
    scalars(),
    lambda inner: st.one_of(
        objects(inner),
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 2}),
        objects(inner).map(lambda one: {"anyOf": [one, {"type": "null"}]}),
    ),
    max_leaves=6,
)


def fitting(draw: st.DrawFn, schema: dict[str, Any]) -> Any:  # noqa: PLR0911 - a table
    """Draw a value that a schema mostly takes; now and then any other one."""
    if draw(st.integers(0, 11)) == 0:
        return draw(VALUES)
    if "anyOf" in schema:
        return fitting(draw, schema["anyOf"][0])
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    match schema["type"]:
        case "object":
            names = [name for name in schema["properties"] if draw(st.integers(0, 19))]
            value = {name: fitting(draw, schema["properties"][name]) for name in names}
            return value | ({} if draw(st.integers(0, 19)) else {"more": draw(VALUES)})
        case "array":
            return [fitting(draw, schema["items"]) for _ in range(draw(st.integers(0, 3)))]
        case "integer":
            return draw(st.integers(-3, 3) | EDGES)
        case "number":
            return draw(st.integers(-3, 3) | st.floats() | EDGES)
        case "boolean":
            return draw(st.booleans())
        case _:
            return draw(TEXTS)


@st.composite
def schemas_and_texts(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    schema = draw(objects(NODES))
    texts = [json.dumps(fitting(draw, schema), ensure_ascii=draw(st.booleans())) for _ in range(6)]
    odd = draw(st.sampled_from(ODD_TEXTS))
    texts.append(texts[0].replace(draw(st.sampled_from(["1", "2", '"a"', "true"])), odd))
    texts.append(texts[1][: draw(st.integers(0, len(texts[1])))])  # cut off
    texts.append(texts[2].replace("}", ', "a": 1}', 1))  # a name that comes twice
    return schema, texts


def check(schema: ResponseSchema, text: str) -> None:
    """Compare types and signs, too: 1 is not 1.0, nor -0.0 what 0.0 is."""
    fields, _ = schema.parse(text)
    expected = None if fields is None else tuple(fields.values())
    assert repr(schema.columns(text)) == repr(expected)


@MANY
@given(schemas_and_texts())
def test_answers_read_as_pydantic_reads_them(drawn: tuple[dict[str, Any], list[str]]) -> None:
    """Whatever the schema and the answer are: the same values, or none."""
    schema, texts = drawn
    response = ResponseSchema.from_json_schema(schema, "response_schema")
    for text in texts:
        check(response, text)


class Mood(StrEnum):
    """A list of texts."""

    CALM = "calm"
    ANGRY = "angry"


class Inner(BaseModel):
    """A nested model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    n: int


class Plain(BaseModel):
    """What most response models are."""

    topic: Literal["a", "b"]
    text: str = Field(max_length=3, description="short")
    mood: Mood
    share: Annotated[float, Field(ge=0, le=1)]
    yes: bool = True
    inner: Inner
    inners: list[Inner]
    perhaps: Inner | None = None


PLAIN: dict[str, Any] = {
    "topic": "a",
    "text": "abc",
    "mood": "calm",
    "share": 1,
    "yes": False,
    "inner": {"n": 1},
    "inners": [{"n": 2}],
    "perhaps": None,
}


def test_usual_models_are_plain_ones() -> None:
    """They do not need Pydantic, or nothing would be gained."""
    stored = ResponseSchema.from_model(Plain, "response_model").stored
    for response in (
        ResponseSchema.from_model(Plain, "response_model"),
        ResponseSchema.from_json_schema(stored, "response_schema"),
    ):
        read = plain_check(response._model, response.root, built=response._built)
        assert read is not None
        assert read(PLAIN) == list(PLAIN.values())
        for name in PLAIN:
            for odd in (*(None, 0, 5, 2**70, "CALM", "abcd", {}, [{"n": "1"}], ...), *INNERS):
                changed = {**PLAIN, name: odd}
                if odd is ...:
                    del changed[name]
                check(response, json.dumps(changed))


INNERS = [{"n": 1, "m": 2}, {"n": 2**63}, {"n": -(2**63)}, [{"n": 2**63}]]


class Whole(Enum):
    """A list of numbers."""

    ONE = 1
    TWO = 2


class OfEnum(BaseModel):
    """A field with it."""

    value: Whole


class Shouting(BaseModel):
    """A validator before."""

    value: Annotated[str, BeforeValidator(lambda value: str(value).upper())]


class Stripped(BaseModel, str_strip_whitespace=True):
    """A setting of the class."""

    value: str


class Strict(BaseModel, strict=True):
    """Another one."""

    value: float


class Added(BaseModel):
    """A validator after."""

    value: str

    @field_validator("value")
    @classmethod
    def more(cls, value: str) -> str:
        return value + "!"


class Posted(BaseModel):
    """A change at the end."""

    value: str

    def model_post_init(self, _: Any) -> None:
        self.value = "posted"


class Read(BaseModel):
    """A field that reads otherwise."""

    value: str

    def __getattribute__(self, name: str) -> Any:
        return "read" if name == "value" else super().__getattribute__(name)


class Validated(BaseModel):
    """A reader of its own."""

    value: str

    @classmethod
    def model_validate_json(cls, *_: Any, **__: Any) -> Any:
        return cls(value="validated")


class Made(BaseModel):
    """A constructor of its own."""

    value: str

    def __init__(self, **_: Any) -> None:
        super().__init__(value="made")


class Wrapping(BaseModel):
    """A wrapped text."""

    value: RootModel[str]


class Renamed(BaseModel):
    """An alias."""

    value: str = Field(alias="other")


@pytest.mark.parametrize(
    "model",
    [
        *(OfEnum, Shouting, Stripped, Strict, Added, Posted, Read, Validated, Made, Wrapping),
        Renamed,
    ],
)
def test_classes_with_ways_of_their_own_keep_them(model: type[BaseModel]) -> None:
    """A validator, a setting or a method of a class changes what is read, as it always does."""
    response = ResponseSchema.from_model(model, "response_model")
    for value in ("a", " a ", "1", 1, 1.0, True, None):
        check(response, json.dumps({"value": value}))
        check(response, json.dumps({"other": value}))
