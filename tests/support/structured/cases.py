"""Structured output, type by type: what is sent, and its column, or the sentence that refuses it.

All of it is stated here by hand, and nothing comes from the code that is checked. `outcome` is what
the code makes of the same class; tests/stories/structured/test_structured_output.py compares both,
and page.py writes the table for people.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers import provider_type
from batchata_tasks.schema.response import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

PROVIDERS = ("anthropic", "openai")
PREAMBLE = '''from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, Json, PositiveInt
from pydantic import RootModel, SecretStr, StringConstraints, computed_field, create_model
from typing_extensions import TypedDict

T = TypeVar("T")


class Area(StrEnum):
    ELECTRONICS = "electronics"
    GARDEN = "Home & Garden"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Place(BaseModel):
    """Where it is."""

    city: str
    since: date | None


class Road(TypedDict):
    number: int


@dataclass
class Spot:
    x: float


class Words(RootModel[list[str]]):
    pass


class Pair(NamedTuple):
    first: int
    second: int


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Tree(BaseModel):
    branches: list["Tree"]


class Page(BaseModel, Generic[T]):
    first: T
'''
PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "since": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    },
    "required": ["city", "since"],
    "additionalProperties": False,
}
WHERE = {**PLACE, "description": "Where it is."}
PLACE_COLUMN = "struct<city: string, since: date32[day]>"
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
AREA = {"type": "string", "enum": ["electronics", "Home & Garden"]}


@dataclass(frozen=True)
class Case:
    """A field of a class, or a whole class, with `sent` and `column`, or why it is `refused`.

    `refused` is for both providers, or by provider if only one of them refuses.
    """

    what: str
    source: str
    sent: dict[str, Any] = field(default_factory=dict)
    column: str = ""
    refused: str | dict[str, str] = ""

    @property
    def whole(self) -> bool:
        """Whether the source is a whole class called Answer, and no field of one."""
        return "Answer" in self.source

    @property
    def name(self) -> str:
        """The field's name."""
        return self.source.partition(":")[0]

    def text(self) -> str:
        """Return Python code with the class Answer."""
        return f"{PREAMBLE}\n\n{self.source if self.whole else answer_class([self])}\n"

    def model(self) -> type[BaseModel]:
        """Return the class."""
        # Pydantic looks names up in it
        module = sys.modules["structured_output_answer"] = ModuleType("structured_output_answer")
        exec(compile(self.text(), "answer", "exec", dont_inherit=True), module.__dict__)
        return module.__dict__["Answer"]

    def outcome(self, provider: str) -> tuple[dict[str, Any] | None, str]:
        """Return what the code sends and the column's type, or None and the refusal."""
        try:
            schema = ResponseSchema.from_model(self.model(), "response_model")
            provider_type(provider).check_schema(schema)
        except SpecError as error:
            return None, str(error)
        if self.whole:
            return schema.wire, ", ".join(
                f"{column.name}: {column.type}" for column in schema.arrow
            )
        (name,) = schema.wire["properties"]
        return schema.wire["properties"][name], str(schema.arrow.field(0).type)

    def stated(self, provider: str) -> tuple[dict[str, Any] | None, str]:
        """Return the statement by hand, in the form of `outcome`."""
        why = self.refused.get(provider, "") if isinstance(self.refused, dict) else self.refused
        return (None, f"response_model: {why}") if why else (self.sent, self.column)


def answer_class(cases: Iterable[Case]) -> str:
    """Return Python code of one class with a field for each case."""
    return "class Answer(BaseModel):\n" + "\n".join(f"    {case.source}" for case in cases)


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _told(text: str, **schema: Any) -> dict[str, Any]:
    return {**schema, "description": text}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


_MAP = "is a map with free keys (dict); name its keys in a nested model, or use a list of pairs."
_UNION = (
    "is a union of several types; a column has one type (or null): "
    "use one model whose fields may be null."
)
_KIND = "; give it one of string, integer, number, boolean, array, object."
_MIXED = "is an enum of mixed or unusual values; use strings or integers."
_NULLS = (
    "the field f16 is one too many that may be null, of which Anthropic takes 16; let fewer be "
    "null (an empty text or list may say as much)."
)
_VALUES = (
    "the field n brings all enums to 1,001 values, of which OpenAI takes 1,000; ask for plain text."
)

ACCEPTED = (
    Case("text", "title: str", STRING, "string"),
    Case("integer", "count: int", INTEGER, "int64"),
    Case("number", "score: float", {"type": "number"}, "double"),
    Case("yes or no", "flag: bool", {"type": "boolean"}, "bool"),
    Case("date", "day: date", {"type": "string", "format": "date"}, "date32[day]"),
    Case(
        "moment (without offset it is UTC)",
        "moment: datetime",
        {"type": "string", "format": "date-time"},
        "timestamp[us, tz=UTC]",
    ),
    Case(
        "time of day (as it stands, without offset)",
        "at: time",
        {"type": "string", "format": "time"},
        "time64[us]",
    ),
    Case(
        "exact number",
        "price: Decimal = Field(max_digits=12, decimal_places=2, ge=0)",
        _told("(format: decimal, maxDigits: 12, decimalPlaces: 2, minimum: 0)", **STRING),
        "decimal128(12, 2)",
    ),
    Case("UUID", "ident: UUID", {"type": "string", "format": "uuid"}, "string"),
    Case(
        "URL",
        "link: HttpUrl",
        _told("(format: uri, minLength: 1, maxLength: 2083)", **STRING),
        "string",
    ),
    Case("IP address", "address: IPv4Address", {"type": "string", "format": "ipv4"}, "string"),
    Case(
        "Literal",
        'medium: Literal["book", "Film"]',
        {"type": "string", "enum": ["book", "Film"]},
        "string",
    ),
    Case(
        "Literal of integers",
        "size: Literal[1, 2, 3]",
        {"type": "integer", "enum": [1, 2, 3]},
        "int64",
    ),
    Case(
        "Literal of one boolean",
        "agreed: Literal[True]",
        {"type": "boolean", "enum": [True]},
        "bool",
    ),
    Case("enum of texts", "area: Area", AREA, "string"),
    Case("enum of integers", "level: Level", {"type": "integer", "enum": [1, 2]}, "int64"),
    Case("optional", "note: str | None", _or_null(STRING), "string"),
    Case("optional with a default", "rank: int | None = None", _or_null(INTEGER), "int64"),
    Case(
        "optional Literal",
        'choice: Literal["Yes", "No"] | None',
        _or_null({"type": "string", "enum": ["Yes", "No"]}),
        "string",
    ),
    Case("default (the model is asked all the same)", 'unit: str = "piece"', STRING, "string"),
    Case(
        "default factory",
        "hints: list[str] = Field(default_factory=list)",
        _list(STRING),
        "list<item: string>",
    ),
    Case("list", "tags: list[str]", _list(STRING), "list<item: string>"),
    Case("list of enum", "areas: list[Area]", _list(AREA), "list<item: string>"),
    Case(
        "list of optionals", "gaps: list[int | None]", _list(_or_null(INTEGER)), "list<item: int64>"
    ),
    Case(
        "list of lists",
        "grid: list[list[int]]",
        _list(_list(INTEGER)),
        "list<item: list<item: int64>>",
    ),
    Case("tuple of any length", "sizes: tuple[int, ...]", _list(INTEGER), "list<item: int64>"),
    Case("nested model (its docstring is told)", "place: Place", WHERE, PLACE_COLUMN),
    Case("optional nested model", "origin: Place | None", _or_null(WHERE), PLACE_COLUMN),
    Case(
        "list of nested models", "places: list[Place]", _list(WHERE), f"list<item: {PLACE_COLUMN}>"
    ),
    Case("generic model", "first_page: Page[int]", _object(first=INTEGER), "struct<first: int64>"),
    Case("TypedDict", "road: Road", _object(number=INTEGER), "struct<number: int64>"),
    Case("dataclass", "spot: Spot", _object(x={"type": "number"}), "struct<x: double>"),
    Case("RootModel in a field", "words: Words", _list(STRING), "list<item: string>"),
    Case(
        "description",
        'colour: str = Field(description="Its main colour.")',
        _told("Its main colour.", **STRING),
        "string",
    ),
    Case(
        "range, with a description",
        'share: float = Field(ge=0, le=1, description="How much of it.")',
        _told("How much of it. (minimum: 0, maximum: 1)", type="number"),
        "double",
    ),
    Case(
        "open range",
        "length: float = Field(gt=0, lt=9)",
        _told("(exclusiveMinimum: 0, exclusiveMaximum: 9)", type="number"),
        "double",
    ),
    Case(
        "constrained type", "pages: PositiveInt", _told("(exclusiveMinimum: 0)", **INTEGER), "int64"
    ),
    Case(
        "multiple_of",
        "step: int = Field(multiple_of=5)",
        _told("(multipleOf: 5)", **INTEGER),
        "int64",
    ),
    Case(
        "lengths",
        "code: str = Field(min_length=3, max_length=20)",
        _told("(minLength: 3, maxLength: 20)", **STRING),
        "string",
    ),
    Case(
        "pattern",
        'mark: str = Field(pattern="^[0-9a-f]{12} ")',
        _told("(pattern: ^[0-9a-f]{12} )", **STRING),
        "string",
    ),
    Case(
        "lengths of a list",
        "few: list[str] = Field(min_length=1, max_length=2)",
        _told("(minItems: 1, maxItems: 2)", **_list(STRING)),
        "list<item: string>",
    ),
    Case("validator", "loud: Annotated[str, AfterValidator(str.upper)]", STRING, "string"),
    Case(
        "constrained text",
        "quiet: Annotated[str, StringConstraints(to_lower=True)]",
        STRING,
        "string",
    ),
    Case(
        "alias (the field's own name counts)",
        'shown: str = Field(alias="displayName")',
        STRING,
        "string",
    ),
    Case(
        "docstring of the class",
        'class Answer(BaseModel):\n    """One thing."""\n    n: int',
        {**_object(n=INTEGER), "description": "One thing."},
        "n: int64",
    ),
    Case(
        "computed field (neither asked for nor a column)",
        (
            "class Answer(BaseModel):\n    n: int\n\n    @computed_field\n    @property\n    def "
            "twice(self) -> int:\n        return 2 * self.n"
        ),
        _object(n=INTEGER),
        "n: int64",
    ),
    Case(
        "extra fields (never asked for)",
        'class Answer(BaseModel, extra="allow"):\n    n: int',
        _object(n=INTEGER),
        "n: int64",
    ),
    Case(
        "RootModel of a model",
        "class Answer(RootModel[Cat]): pass",
        _object(kind={"type": "string", "enum": ["cat"]}),
        "kind: string",
    ),
    Case("generic model of a type", "Answer = Page[Area]", _object(first=AREA), "first: string"),
)
REFUSED = (
    Case("map", "prices: dict[str, int]", refused=f"the field prices {_MAP}"),
    Case("map without types", "facts: dict", refused=f"the field facts {_MAP}"),
    Case("map in a list", "rows: list[dict[str, str]]", refused=f"the field rows[] {_MAP}"),
    Case(
        "typed extra fields",
        (
            'class Answer(BaseModel, extra="allow"):\n    __pydantic_extra__: dict[str, int]\n    '
            "n: int"
        ),
        refused=f"the response model {_MAP}",
    ),
    Case("plain union", "value: int | str", refused=f"the field value {_UNION}"),
    Case("union of numbers", "value: int | float", refused=f"the field value {_UNION}"),
    Case("union of models", "pet: Cat | Dog", refused=f"the field pet {_UNION}"),
    Case(
        "discriminated union",
        'pet: Cat | Dog = Field(discriminator="kind")',
        refused=f"the field pet {_UNION}",
    ),
    Case(
        "recursion",
        "tree: Tree",
        refused="the field tree.branches[] refers to itself; recursive models cannot be asked for.",
    ),
    Case("Any", "value: Any", refused=f"the field value has no type (Any, perhaps){_KIND}"),
    Case(
        "generic model without a type",
        "first_page: Page",
        refused=f"the field first_page.first has no type (Any, perhaps){_KIND}",
    ),
    Case(
        "list without a type",
        "tags: list",
        refused="the field tags is a list without an item type; name it (list[str], …).",
    ),
    Case(
        "set",
        "tags: set[str]",
        refused=(
            "the field tags uses the JSON Schema keyword 'uniqueItems', which batches cannot ask "
            "for; use a list instead of a set."
        ),
    ),
    Case(
        "tuple of fixed length",
        "pair: tuple[int, str]",
        refused=(
            "the field pair uses the JSON Schema keyword 'prefixItems', which batches cannot ask "
            "for; use a nested model instead of a tuple of fixed length."
        ),
    ),
    Case(
        "named tuple",
        "pair: Pair",
        refused=(
            "the field pair uses the JSON Schema keyword 'prefixItems', which batches cannot ask "
            "for; use a nested model instead of a tuple of fixed length."
        ),
    ),
    Case(
        "exact number of any size",
        "price: Decimal",
        refused=(
            "the field price is a Decimal without its size; say it, up to 38 digits: "
            "Field(max_digits=12, decimal_places=2)."
        ),
    ),
    Case("Literal of floats", "rate: Literal[0.5]", refused=f"the field rate {_MIXED}"),
    Case("Literal of mixed types", 'rate: Literal[1, "a"]', refused=f"the field rate {_MIXED}"),
    Case(
        "bytes",
        "raw: bytes",
        refused=(
            "the field raw has the format 'binary', "
            "which batches cannot ask for; use a plain string."
        ),
    ),
    Case(
        "duration",
        "took: timedelta",
        refused=(
            "the field took has the format 'duration', "
            "which batches cannot ask for; use a plain string."
        ),
    ),
    Case(
        "secret",
        "key: SecretStr",
        refused=(
            "the field key uses the JSON Schema keyword 'writeOnly', which batches cannot ask for."
        ),
    ),
    Case(
        "JSON in a text",
        "raw: Json",
        refused=(
            "the field raw uses the JSON Schema keyword 'contentMediaType', "
            "which batches cannot ask for."
        ),
    ),
    Case(
        "type that JSON cannot hold",
        "act: Callable[[], int]",
        refused=(
            "the field act has a type without JSON Schema (core_schema.CallableSchema); "
            "use a type that JSON can hold."
        ),
    ),
    Case(
        "own keyword",
        'title: str = Field(json_schema_extra={"x-tone": "dry"})',
        refused=(
            "the field title uses the JSON Schema keyword 'x-tone', which batches cannot ask for."
        ),
    ),
    Case(
        "pattern beyond Pydantic's",
        'class Answer(BaseModel):\n    model_config = ConfigDict(regex_engine="python-re")\n'
        '    mark: str = Field(pattern="^(?=x)")',
        refused=(
            "the field mark has a constraint that cannot be checked (pattern: "
            "^(?=x)): fix or remove it."
        ),
    ),
    Case(
        "list at the top",
        "class Answer(RootModel[list[int]]): pass",
        refused="the response model must be an object with named fields.",
    ),
    Case(
        "no fields",
        "class Answer(BaseModel): pass",
        refused="the response model has no fields; name at least one.",
    ),
    Case(
        "nesting beyond 8 levels",
        "Answer = " + "Page[" * 9 + "int" + "]" * 9,
        refused=f"the field {'.'.join(['first'] * 9)} is nested more than 8 levels deep.",
    ),
    Case(
        "more than 16 optionals",
        'Answer = create_model("Answer", **{f"f{i}": (str | None, ...) for i in range(17)})',
        _object(**{f"f{i}": _or_null(STRING) for i in range(17)}),
        ", ".join(f"f{i}: string" for i in range(17)),
        {"anthropic": _NULLS},
    ),
    Case(
        "more than 1,000 values of enums",
        'Answer = create_model("Answer", n=(Literal[tuple(range(1001))], ...))',
        _object(n={"type": "integer", "enum": list(range(1001))}),
        "n: int64",
        {"openai": _VALUES},
    ),
)
CASES = (*ACCEPTED, *REFUSED)
