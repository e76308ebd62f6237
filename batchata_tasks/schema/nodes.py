"""A response model as a small tree of nodes, one for each field, and everything derived from it.

`reader.py` reads JSON Schema into nodes. From them follow the schema that is sent, the canonical
form for the fingerprint, the column's type, and the Python type that checks an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, create_model

from batchata_tasks.common.json import as_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SCALARS: dict[str, tuple[Any, pa.DataType]] = {
    "string": (str, pa.string()),
    "integer": (int, pa.int64()),
    "number": (float, pa.float64()),
    "boolean": (bool, pa.bool_()),
}
FORMATS: dict[str, tuple[Any, pa.DataType]] = {
    "date": (date, pa.date32()),
    "date-time": (datetime, pa.timestamp("us", tz="UTC")),
    "time": (time, pa.time64("us")),
}
# a text with an exact number; Field(max_digits=…, decimal_places=…) says how exact
DECIMAL = "decimal"
MOST_DIGITS = 38  # of a column of decimals
# keywords that not all strict modes take: they go into the description, for the model to read, and
# answers are checked against them here
CONSTRAINTS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "maxDigits": "max_digits",
    "decimalPlaces": "decimal_places",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minItems": "min_length",
    "maxItems": "max_length",
}
# formats that both providers take: https://platform.openai.com/docs/guides/structured-outputs and
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs
_STRICT_FORMATS = {"date", "date-time", "time", "email", "hostname", "ipv4", "ipv6", "uuid"}


@dataclass(frozen=True, slots=True)
class Node:
    """One field's type: a scalar (`kind` from JSON Schema), an array or an object.

    `defaulted` marks a field of a class that may be absent from an answer, but not null.
    """

    kind: Literal["string", "integer", "number", "boolean", "array", "object"]
    nullable: bool = False
    format: str | None = None
    enum: tuple[Any, ...] | None = None
    items: Node | None = None
    fields: tuple[tuple[str, Node], ...] = ()
    description: str | None = None
    constraints: tuple[tuple[str, Any], ...] = ()
    defaulted: bool = False

    def canonical(self) -> Any:
        """Return names and types alone, whatever a library's way of writing schemas is."""
        mark = "?" if self.nullable or self.defaulted else ""
        if self.kind == "object":
            return {"object" + mark: {name: node.canonical() for name, node in self.fields}}
        if self.items is not None:
            return {"array" + mark: self.items.canonical()}
        name = str(self.arrow()) if self.format == DECIMAL else self.format or self.kind
        return {name + mark: sorted(map(str, self.enum))} if self.enum else name + mark

    def wire(self) -> dict[str, Any]:
        """Return the strict JSON Schema: every property is required, and no other is allowed."""
        keywords, constraints = dict[str, Any](), list(self.constraints)
        if self.format in _STRICT_FORMATS:
            keywords["format"] = self.format
        elif self.format is not None:
            constraints.insert(0, ("format", self.format))
        notes = ", ".join(f"{key}: {value}" for key, value in constraints)
        text = " ".join(filter(None, (self.description, f"({notes})" if notes else "")))
        return self._json_schema(Node.wire, keywords, text)

    def stored(self) -> dict[str, Any]:
        """Return JSON Schema that reads back as this node; the strict one leaves things out."""
        keywords = {"format": self.format} if self.format else {}
        keywords |= dict(self.constraints)
        return self._json_schema(Node.stored, keywords, self.description, strict=False)

    def _json_schema(
        self,
        child_schema: Callable[[Node], dict[str, Any]],
        keywords: dict[str, Any],
        description: str | None,
        *,
        strict: bool = True,
    ) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": self.kind}
        if self.kind == "object":
            schema["properties"] = {name: child_schema(node) for name, node in self.fields}
            schema["required"] = [
                name for name, node in self.fields if strict or not node.defaulted
            ]
            schema["additionalProperties"] = False
        if self.items is not None:
            schema["items"] = child_schema(self.items)
        schema |= keywords
        if self.enum is not None:
            schema["enum"] = list(self.enum)
        if description:
            schema["description"] = description
        return {"anyOf": [schema, {"type": "null"}]} if self.nullable else schema

    def arrow(self) -> pa.DataType:
        """Return the type of the column."""
        if self.kind == "object":
            return pa.struct([pa.field(name, node.arrow()) for name, node in self.fields])
        if self.items is not None:
            return pa.list_(self.items.arrow())
        if self.format == DECIMAL:
            constraints = dict(self.constraints)
            digits = constraints.get("maxDigits", MOST_DIGITS)
            return pa.decimal128(digits, constraints["decimalPlaces"])
        return FORMATS.get(self.format or "", _SCALARS[self.kind])[1]

    def python(self) -> Any:
        """Return the Python type that Pydantic checks an answer against."""
        kind: Any
        if self.kind == "object":
            kind = model_of(self)
        elif self.items is not None:
            kind = list[self.items.python()]  # pyright: ignore[reportInvalidTypeArguments]
        elif self.enum is not None:
            kind = Literal[self.enum]
        elif self.format == DECIMAL:
            kind = Decimal
        else:
            kind = FORMATS.get(self.format or "", _SCALARS[self.kind])[0]
        if self.constraints:
            arguments = {CONSTRAINTS[key]: value for key, value in self.constraints}
            kind = Annotated[kind, Field(**arguments)]
        return kind | None if self.nullable else kind

    def below(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield all nodes below this one, each with its path as errors name it."""
        children = [(f".{name}" if path else name, node) for name, node in self.fields]
        if self.items is not None:
            children = [("[]", self.items)]
        for step, node in children:
            yield path + step, node
            yield from node.below(path + step)


def in_order(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Node.stored` gave, with the fields of objects in their order.

    Commits, and ledgers of older versions, sort them, but not what is `required`. Of sorted fields
    those that may be absent come last, since nothing tells their places.
    """
    schema = {key: _in_order(value) for key, value in stored.items()}
    fields, required = schema.get("properties"), schema.get("required")
    if not isinstance(fields, dict) or not isinstance(required, list):
        return schema
    fields = as_dict(cast("object", fields))
    names = [name for name in cast("list[str]", required) if name in fields]
    if [name for name in fields if name in names] != names:
        others = [name for name in fields if name not in names]
        schema["properties"] = {name: fields[name] for name in (*names, *others)}
    return schema


def _in_order(value: object) -> Any:
    match value:
        case dict():
            return in_order(as_dict(cast("object", value)))
        case list():
            return [_in_order(item) for item in cast("list[object]", value)]
        case _:
            return value


def model_of(node: Node) -> type[BaseModel]:
    """Build the Pydantic class of an object node; aliases hold names that Python cannot."""
    fields: dict[str, Any] = {
        f"field_{i}": (child.python(), Field(alias=name))
        for i, (name, child) in enumerate(node.fields)
    }
    return create_model("Response", __config__=ConfigDict(extra="ignore"), **fields)
