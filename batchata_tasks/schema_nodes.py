"""JSON Schema read into a small tree of nodes, and what follows from the tree.

What the providers' strict modes cannot express (maps, recursion, unions) is refused here, naming
the field, since a provider would refuse it hours later and line by line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, create_model
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
FORMATS: dict[str, tuple[Any, pa.DataType]] = {
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
_TEXTFORMATS = {"email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference", "json-pointer", "regex"}
_STRICTFORMATS = {"date", "date-time", "time", "email", "hostname", "ipv4", "ipv6", "uuid"}  # of both providers
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
        if self.format in _STRICTFORMATS:
            schema["format"] = self.format
        if self.enum is not None:
            schema["enum"] = list(self.enum)
        form = () if self.format is None or self.format in _STRICTFORMATS else (("format", self.format),)
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
        else:
            kind = FORMATS.get(self.format or "", _SCALARS[self.kind])[0]
        if self.constraints:
            kind = Annotated[kind, Field(**{_CONSTRAINTS[key]: value for key, value in self.constraints})]
        return kind | None if self.nullable else kind


def model_of(node: Node) -> type[BaseModel]:
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
        """Read the schema of the property at `path`; `seen` are the references on the way to it."""
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
        if form is not None and form not in FORMATS and form not in _TEXTFORMATS:
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
    fitting = set[str]() if schema.get("format") in FORMATS or "enum" in schema else _FITTING.get(kind, set[str]())
    return tuple((key, schema[key]) for key in _CONSTRAINTS if key in schema and key in fitting)


def read_root(schema: Mapping[str, Any], label: str) -> Node:
    """Read a whole schema; `label` is the spec's key. Raises SpecError for what cannot be asked for."""
    root = _Reader(schema, label).read(schema)
    if root.kind != "object" or root.nullable:
        message = f"{label}: the response model must be an object with named fields."
        raise SpecError(message)
    return root


