"""The response model: what is asked of the model, what its answer becomes.

A response model comes as a Pydantic class or as JSON Schema. Both are read into one small tree of
nodes, and everything else follows from the tree: the strict schema for the wire, the canonical form
for the fingerprint, the Arrow types of the columns and, for JSON Schema, the validator.

What the providers' strict modes cannot express (maps, recursion, unions) is refused here, naming
the field, since a provider would refuse it hours later and line by line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from uuid import UUID

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, RootModel, TypeAdapter, ValidationError, create_model
from pydantic_core import SchemaError

from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import as_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCALARS: dict[str, tuple[Any, pa.DataType]] = {
    "string": (str, pa.string()),
    "integer": (int, pa.int64()),
    "number": (float, pa.float64()),
    "boolean": (bool, pa.bool_()),
}
_FORMATS: dict[str, tuple[Any, pa.DataType]] = {
    "date": (date, pa.date32()),
    "date-time": (datetime, pa.timestamp("us", tz="UTC")),
    "time": (time, pa.time64("us")),
}
# keywords that both providers' strict modes lack; the model is told of them in the description,
# and the answer is checked against them here
_CONSTRAINTS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minItems": "min_length",
    "maxItems": "max_length",
}
_TEXT_FORMATS = {"email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference", "json-pointer", "regex"}
_STRICT_FORMATS = {"date", "date-time", "time", "email", "hostname", "ipv4", "ipv6", "uuid"}  # of both providers
_HARMLESS = {"title", "description", "default", "examples", "type", "format", "enum", "const", "$defs", "deprecated"}
_STRUCTURE = {"properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "allOf", "$ref", "$schema", "$id"}
_INT64 = 2**63
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One field's type: a scalar (`kind` from JSON Schema), an array or an object."""

    kind: Literal["string", "integer", "number", "boolean", "array", "object"]
    nullable: bool = False
    format: str | None = None
    enum: tuple[Any, ...] | None = None
    items: Node | None = None
    fields: tuple[tuple[str, Node], ...] = ()
    description: str | None = None
    constraints: tuple[tuple[str, Any], ...] = ()

    def canonical(self) -> Any:
        """Return names and types alone, independent of any library's way of writing schemas."""
        mark = "?" if self.nullable else ""
        if self.kind == "object":
            return {"object" + mark: {name: node.canonical() for name, node in self.fields}}
        if self.items is not None:
            return {"array" + mark: self.items.canonical()}
        name = (self.format or self.kind) + mark
        return {name: sorted(map(str, self.enum))} if self.enum else name

    def wire(self) -> dict[str, Any]:
        """Return the strict JSON Schema: every property required, none beside them."""
        schema: dict[str, Any] = {"type": self.kind}
        if self.kind == "object":
            schema["properties"] = {name: node.wire() for name, node in self.fields}
            schema["required"] = [name for name, _ in self.fields]
            schema["additionalProperties"] = False
        if self.items is not None:
            schema["items"] = self.items.wire()
        if self.format in _STRICT_FORMATS:
            schema["format"] = self.format
        if self.enum is not None:
            schema["enum"] = list(self.enum)
        form = () if self.format is None or self.format in _STRICT_FORMATS else (("format", self.format),)
        told = ", ".join(f"{key}: {value}" for key, value in (*form, *self.constraints))
        if text := " ".join(filter(None, (self.description, f"({told})" if told else ""))):
            schema["description"] = text
        if not self.nullable:
            return schema
        return {"anyOf": [schema, {"type": "null"}]}

    def arrow(self) -> pa.DataType:
        """Return the type of the column."""
        if self.kind == "object":
            return pa.struct([pa.field(name, node.arrow()) for name, node in self.fields])
        if self.items is not None:
            return pa.list_(self.items.arrow())
        return _FORMATS.get(self.format or "", _SCALARS[self.kind])[1]

    def python(self) -> Any:
        """Return the Python type that Pydantic checks an answer against."""
        kind: Any
        if self.kind == "object":
            kind = _model(self)
        elif self.items is not None:
            kind = list[self.items.python()]  # pyright: ignore[reportInvalidTypeArguments]
        elif self.enum is not None:
            kind = Literal[self.enum]
        else:
            kind = _FORMATS.get(self.format or "", _SCALARS[self.kind])[0]
        if self.constraints:
            kind = Annotated[kind, Field(**{_CONSTRAINTS[key]: value for key, value in self.constraints})]
        return kind | None if self.nullable else kind


def _model(node: Node) -> type[BaseModel]:
    """Build the Pydantic class of an object node; aliases carry names Python cannot."""
    fields: dict[str, Any] = {
        f"field_{i}": (child.python(), Field(alias=name)) for i, (name, child) in enumerate(node.fields)
    }
    return create_model("Response", __config__=ConfigDict(extra="ignore"), **fields)


class _Reader:
    """Reads JSON Schema into nodes; `field` in errors is the path of the property."""

    def __init__(self, root: Mapping[str, Any], label: str) -> None:
        self._root = root
        self._label = label

    def _refuse(self, path: str, why: str) -> SpecError:
        return SpecError(f"{self._label}: the field {path or '(root)'} {why}")

    def read(self, schema: object, path: str = "", seen: frozenset[str] = frozenset(), depth: int = 0) -> Node:
        if not isinstance(schema, dict):
            raise self._refuse(path, "is described by no JSON Schema object; give it a type.")
        return self._read(as_dict(cast("object", schema)), path, seen, depth)

    def _read(self, schema: Mapping[str, Any], path: str, seen: frozenset[str], depth: int) -> Node:
        schema, seen = self._resolved(schema, path, seen)
        schema, nullable = self._without_null(schema, path)
        schema, seen = self._resolved(schema, path, seen)
        for keyword in sorted(set(schema) - _HARMLESS - _STRUCTURE - set(_CONSTRAINTS)):
            raise self._refuse(path, f"uses the JSON Schema keyword {keyword!r}, which batches cannot ask for.")
        if depth > MAX_DEPTH:
            raise self._refuse(path, f"is nested more than {MAX_DEPTH} levels deep.")
        description = schema.get("description") if path else None
        match schema.get("type"):
            case "object":
                return Node("object", nullable, fields=self._fields(schema, path, seen, depth), description=description)
            case "array":
                return self._array(schema, nullable, path, seen, depth)
            case "string" | "integer" | "number" | "boolean":
                return self._scalar(schema, nullable, path)
            case None if "enum" in schema or "const" in schema:
                return self._scalar(schema, nullable, path)
            case other:
                raise self._refuse(path, f"has the type {other!r}; give it one of string, integer, number, boolean, array, object.")

    def _resolved(
        self, schema: Mapping[str, Any], path: str, seen: frozenset[str]
    ) -> tuple[Mapping[str, Any], frozenset[str]]:
        found: dict[str, Any] = dict(schema)
        while "$ref" in found or ("allOf" in found and len(found["allOf"]) == 1):
            rest = {k: v for k, v in found.items() if k not in ("$ref", "allOf")}
            if "allOf" in found:
                found = {**as_dict(found["allOf"][0]), **rest}
                continue
            ref = str(found["$ref"])
            if ref in seen:
                raise self._refuse(path, "refers to itself; recursive models cannot be asked for.")
            seen |= {ref}
            found = {**self._lookup(ref, path), **rest}
        return found, seen

    def _lookup(self, ref: str, path: str) -> Mapping[str, Any]:
        node: Any = self._root
        for step in ref.removeprefix("#/").split("/") if ref.startswith("#/") else [""]:
            node = node.get(step) if isinstance(node, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(node, dict):
            raise self._refuse(path, f"refers to {ref!r}, which is not in the schema.")
        return node  # pyright: ignore[reportUnknownVariableType]

    def _without_null(self, schema: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], bool]:
        if isinstance(kinds := schema.get("type"), list):
            others = [kind for kind in kinds if kind != "null"]  # pyright: ignore[reportUnknownVariableType]
            if len(others) != 1:  # pyright: ignore[reportUnknownArgumentType]
                raise self._refuse(path, f"may be of several types ({kinds}); a column has one type.")
            return {**schema, "type": others[0]}, len(others) < len(kinds)  # pyright: ignore[reportUnknownArgumentType]
        found = schema.get("anyOf", schema.get("oneOf"))
        if found is None:
            return schema, False
        options = [as_dict(option) for option in found]
        others = [option for option in options if option.get("type") != "null"]
        if len(others) != 1:
            raise self._refuse(path, "is a union of several types; a column has one type (or null).")
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
        return {**others[0], **rest}, len(others) < len(options)

    def _fields(self, schema: Mapping[str, Any], path: str, seen: frozenset[str], depth: int) -> tuple[tuple[str, Node], ...]:
        properties = as_dict(schema.get("properties"))
        if not properties or schema.get("additionalProperties") not in (None, False, True):
            raise self._refuse(path, "is a map with free keys (dict); name its keys in a nested model, or use a list of pairs.")
        if not isinstance(names := schema.get("required", []), list):
            raise self._refuse(path, "has a `required` that is no list of names.")
        required = set(map(str, names))  # pyright: ignore[reportUnknownArgumentType]
        fields: list[tuple[str, Node]] = []
        for name, child in properties.items():
            node = self.read(child, f"{path}.{name}" if path else str(name), seen, depth + 1)
            if name not in required and "default" not in child and not node.nullable:
                node = replace(node, nullable=True)
            fields.append((str(name), node))
        return tuple(fields)

    def _array(self, schema: Mapping[str, Any], nullable: bool, path: str, seen: frozenset[str], depth: int) -> Node:  # noqa: FBT001
        if not isinstance(items := schema.get("items"), dict):
            raise self._refuse(path, "is a list without an item type; name it (list[str], …).")
        return Node(
            "array", nullable, items=self.read(items, f"{path}[]", seen, depth),  # pyright: ignore[reportUnknownArgumentType]
            description=schema.get("description"), constraints=_constraints(schema, "array"),
        )

    def _scalar(self, schema: Mapping[str, Any], nullable: bool, path: str) -> Node:  # noqa: FBT001
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None and any(value is None for value in values):
            values, nullable = [value for value in values if value is not None], True
        kind: Any = schema.get("type") or _kind_of(values or [])
        if kind is None or (values is not None and _kind_of(values) != kind):
            raise self._refuse(path, "is an enum of mixed or unusual values; use strings or integers.")
        form = schema.get("format") if kind == "string" else None
        if form is not None and form not in _FORMATS and form not in _TEXT_FORMATS:
            raise self._refuse(path, f"has the format {form!r}, which batches cannot ask for; use a plain string.")
        node = Node(
            kind, nullable, format=form,
            enum=tuple(values) if values is not None else None,
            description=schema.get("description"), constraints=_constraints(schema, kind),
        )
        if node.constraints:
            try:
                TypeAdapter(node.python())
            except (PydanticUserError, SchemaError, TypeError) as error:
                told = ", ".join(f"{key}: {value}" for key, value in node.constraints)
                raise self._refuse(path, f"has a constraint that cannot be checked ({told}): mend or remove it.") from error
        return node


def _kind_of(values: list[Any]) -> str | None:
    kinds = {type(value).__name__ for value in values}
    return {"str": "string", "int": "integer", "bool": "boolean"}.get(kinds.pop()) if len(kinds) == 1 else None


_FITTING = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {"minItems", "maxItems"},
}


def _constraints(schema: Mapping[str, Any], kind: str) -> tuple[tuple[str, Any], ...]:
    """Return the constraints that speak about this kind; JSON Schema gives others no effect."""
    fitting = set[str]() if schema.get("format") in _FORMATS or "enum" in schema else _FITTING.get(kind, set[str]())
    return tuple((key, schema[key]) for key in _CONSTRAINTS if key in schema and key in fitting)


class ResponseSchema:
    """The response model of a spec: wire schema, columns and validator.

    A class is asked for and read by its fields' own names: aliases are its business elsewhere.
    """

    def __init__(self, name: str, root: Node, model: type[BaseModel], *, built: bool) -> None:
        self.name = name
        self._built = built  # from JSON Schema, with made-up field names and the real ones as aliases
        self.root = root
        self.wire = root.wire()
        self.canonical = root.canonical()
        self.arrow = pa.schema([pa.field(field, node.arrow()) for field, node in root.fields])
        self._model = model

    @classmethod
    def from_model(cls, model: type[BaseModel], label: str) -> ResponseSchema:
        """Read a Pydantic class; raises SpecError for what a batch cannot ask for."""
        try:
            schema = model.model_json_schema(by_alias=False)
        except PydanticUserError as error:
            message = f"{label}: {model.__name__} has no JSON Schema: {error.message}"
            raise SpecError(message) from error
        return cls(model.__name__, _read_root(schema, label), model, built=False)

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any], label: str) -> ResponseSchema:
        """Read JSON Schema; raises SpecError for what a batch cannot ask for."""
        root = _read_root(schema, label)
        try:
            model = _model(root)
        except (PydanticUserError, SchemaError, TypeError) as error:
            message = f"{label}: the schema cannot be checked against: {' '.join(str(error).split())[:300]}"
            raise SpecError(message) from error
        return cls(str(schema.get("title") or "Response"), root, model, built=True)

    def parse(self, text: str) -> tuple[dict[str, Any] | None, str]:
        """Return the answer's columns, or None and the sentence of the first thing wrong."""
        try:
            answer = self._model.model_validate_json(text, by_alias=self._built, by_name=not self._built)
            return self._fields(answer, self.root), ""
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(str(step) for step in first["loc"])
            return None, f"{place or 'answer'}: {first['msg']}"
        except Exception as error:  # noqa: BLE001 - validators of the user's model may raise anything
            return None, f"answer: {type(error).__name__}: {error}"

    def _fields(self, answer: object, node: Node) -> dict[str, Any]:
        """Return an object's fields; read from its attributes, so that no serializer changes them."""
        get = as_dict(cast("object", answer)).__getitem__ if isinstance(answer, dict) else partial(getattr, answer)
        named = enumerate(node.fields)
        return {name: self._value(get(f"field_{i}" if self._built else name), child) for i, (name, child) in named}

    def _value(self, value: Any, node: Node) -> Any:
        value = _unwrapped(value)
        if value is None:
            return None
        if node.kind == "object":
            return self._fields(value, node)
        if node.items is not None:
            return [self._value(item, node.items) for item in value]
        plain, wanted = _plain(value), _PYTHON.get(node.format or "") or _PYTHON[node.kind]
        if not isinstance(plain, wanted):
            message = f"a validator returned {type(plain).__name__} for a {node.format or node.kind}"
            raise TypeError(message)
        return plain


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "date": (date,), "date-time": (datetime,), "time": (time,),
}


def _unwrapped(value: Any) -> Any:
    """Return what a RootModel wraps; its JSON is that of its root."""
    return cast("Any", value).root if isinstance(value, RootModel) else value


def _read_root(schema: Mapping[str, Any], label: str) -> Node:
    root = _Reader(schema, label).read(schema)
    if root.kind != "object" or root.nullable:
        message = f"{label}: the response model must be an object with named fields."
        raise SpecError(message)
    return root


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line per type reads best as a table
    """Bring a validated scalar to what Arrow takes: no enums, no UUIDs, integers of 64 bits."""
    match value:
        case Enum():
            return _plain(value.value)
        case bool() | str() | float() | None:
            return value
        case int():
            if not -_INT64 <= value < _INT64:
                message = f"the integer {value} does not fit in 64 bits"
                raise OverflowError(message)
            return value
        case UUID():
            return str(value)
        case datetime():
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        case date() | time():
            return value
        case _:
            return str(value)
