"""Reads JSON Schema into nodes.

Everything that the providers' strict modes cannot express (maps, recursion, unions) is refused
here, naming the field: a provider would refuse it hours later, line by line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from pydantic import PydanticUserError, TypeAdapter
from pydantic_core import SchemaError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.schema.nodes import CONSTRAINTS, DECIMAL, FORMATS, MOST_DIGITS, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

# the keyword that marks a type without JSON Schema; its value describes the type
NO_SCHEMA = "x-no-json-schema"
MAX_DEPTH = 8
# OpenAI's limit (https://platform.openai.com/docs/guides/structured-outputs); Anthropic states none
MAX_FIELDS = 5000
_URI_FORMATS = {"uri", "uri-reference", "json-pointer"}
_TEXT_FORMATS = {"email", "hostname", "ipv4", "ipv6", "uuid", "regex"} | _URI_FORMATS
_TYPE_KEYWORDS = {"type", "format", "enum", "const", "items"}
_OBJECT_KEYWORDS = {"properties", "required", "additionalProperties"}
_COMBINING = {"anyOf", "oneOf", "allOf", "$ref", "$defs"}
_DRAFT_7 = {"definitions", "$comment"}  # `definitions` became `$defs`
_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$schema", "$id"}
_KEYWORDS = {
    *_TYPE_KEYWORDS,
    *_OBJECT_KEYWORDS,
    *_COMBINING,
    *_DRAFT_7,
    *_ANNOTATIONS,
    *CONSTRAINTS,
}
_INSTEAD = {
    "uniqueItems": "use a list instead of a set",
    "prefixItems": "use a nested model instead of a tuple of fixed length",
    "patternProperties": "name the keys in a nested model",
}
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_FITTING = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "array": {"minItems", "maxItems"},
    DECIMAL: _BOUNDS | {"maxDigits", "decimalPlaces"},
}


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a schema: its path in errors, the references on the way to it, its depth."""

    path: str = ""
    seen: frozenset[str] = frozenset()
    depth: int = 0
    lists: int = 0

    def field(self, name: str) -> _Place:
        path = f"{self.path}.{name}" if self.path else name
        return replace(self, path=path, depth=self.depth + 1)

    def item(self) -> _Place:
        return replace(self, path=f"{self.path}[]", lists=self.lists + 1)


class _SchemaReader:
    """Reads one schema into nodes; `of_class` says whether it is that of a Pydantic class."""

    def __init__(self, root: Mapping[str, Any], label: str, *, of_class: bool) -> None:
        self._root = root
        self._label = label
        self._of_class = of_class
        self._fields_read = 0

    def _refusal(self, at: _Place, why: str) -> SpecError:
        subject = f"field {at.path}" if at.path else "response model"
        return SpecError(f"{self._label}: the {subject} {why}")

    def read(self, schema: object, at: _Place) -> Node:
        """Read the schema at a place."""
        if not isinstance(schema, dict):
            raise self._refusal(at, "is described by no JSON Schema object; give it a type.")
        resolved, at = self._resolved(as_dict(cast("object", schema)), at)
        resolved, nullable = self._without_null(resolved, at)
        resolved, at = self._resolved(resolved, at)
        self._check(resolved, at)
        node = self._node(resolved, at)
        description = resolved.get("description")
        return replace(
            node,
            nullable=node.nullable or nullable,
            description=description if isinstance(description, str) else None,
        )

    def _node(self, schema: Mapping[str, Any], at: _Place) -> Node:
        match schema.get("type"):
            case "object":
                return Node("object", fields=self._fields(schema, at))
            case "array":
                items = self._items(schema, at)
                return Node("array", items=items, constraints=_constraints(schema, "array"))
            case "string" | "integer" | "number" | "boolean":
                return self._scalar(schema, at)
            case None if "enum" in schema or "const" in schema:
                return self._scalar(schema, at)
            case other:
                kind = "has no type (Any, perhaps)" if other is None else f"has the type {other!r}"
                remedy = "give it one of string, integer, number, boolean, array, object."
                raise self._refusal(at, f"{kind}; {remedy}")

    def _check(self, schema: Mapping[str, Any], at: _Place) -> None:
        if (kind := schema.get(NO_SCHEMA)) is not None:
            why = f"has a type without JSON Schema ({kind}); use a type that JSON can hold."
            raise self._refusal(at, why)
        if unsupported := set(schema) - _KEYWORDS:
            keyword = min(unsupported)
            instead = f"; {_INSTEAD[keyword]}" if keyword in _INSTEAD else ""
            why = (
                f"uses the JSON Schema keyword {keyword!r}, which batches cannot ask for{instead}."
            )
            raise self._refusal(at, why)
        if max(at.depth, at.lists) > MAX_DEPTH:
            raise self._refusal(at, f"is nested more than {MAX_DEPTH} levels deep.")

    def _resolved(self, schema: Mapping[str, Any], at: _Place) -> tuple[Mapping[str, Any], _Place]:
        """Replace references, and `allOf` with one schema, by the schemas that they stand for."""
        resolved: dict[str, Any] = dict(schema)
        while "$ref" in resolved or ("allOf" in resolved and len(resolved["allOf"]) == 1):
            rest = {k: v for k, v in resolved.items() if k not in ("$ref", "allOf")}
            if "allOf" in resolved:
                resolved = {**as_dict(resolved["allOf"][0]), **rest}
                continue
            ref = str(resolved["$ref"])
            if ref in at.seen:
                raise self._refusal(at, "refers to itself; recursive models cannot be asked for.")
            at = replace(at, seen=at.seen | {ref})
            resolved = {**self._lookup(ref, at), **rest}
        return resolved, at

    def _lookup(self, ref: str, at: _Place) -> Mapping[str, Any]:
        node: Any = self._root
        for step in ref.removeprefix("#/").split("/") if ref.startswith("#/") else [""]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")  # RFC 6901
            node = cast("dict[str, Any]", node).get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise self._refusal(at, f"refers to {ref!r}, which is not in the schema.")
        return cast("dict[str, Any]", node)

    def _without_null(
        self, schema: Mapping[str, Any], at: _Place
    ) -> tuple[Mapping[str, Any], bool]:
        if isinstance(kinds := schema.get("type"), list):
            kinds = cast("list[Any]", kinds)
            others = [kind for kind in kinds if kind != "null"]
            if len(others) != 1:
                raise self._refusal(
                    at, f"may be of several types ({kinds}); a column has one type."
                )
            return {**schema, "type": others[0]}, len(others) < len(kinds)
        union = schema.get("anyOf", schema.get("oneOf"))
        if union is None:
            return schema, False
        options = [as_dict(option) for option in union]
        others = [option for option in options if option.get("type") != "null"]
        if len(others) != 1:
            why = (
                "is a union of several types; a column has one type (or null): "
                "use one model whose fields may be null."
            )
            raise self._refusal(at, why)
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
        return {**others[0], **rest}, len(others) < len(options)

    def _fields(self, schema: Mapping[str, Any], at: _Place) -> tuple[tuple[str, Node], ...]:
        properties, more = as_dict(schema.get("properties")), schema.get("additionalProperties")
        if schema.get("properties") == {} and more in (None, False):
            raise self._refusal(at, "has no fields; name at least one.")
        if not properties or more not in (None, False, True):
            why = (
                "is a map with free keys (dict); name its keys in a nested model, "
                "or use a list of pairs."
            )
            raise self._refusal(at, why)
        if not isinstance(names := schema.get("required", []), list):
            raise self._refusal(at, "has a `required` that is not a list of names.")
        self._fields_read += len(properties)
        if self._fields_read > MAX_FIELDS:
            why = (
                f"brings the fields to more than {MAX_FIELDS:,}, nested ones included: "
                "more than a provider takes."
            )
            raise self._refusal(at, why)
        required = set(map(str, names))  # pyright: ignore[reportUnknownArgumentType]
        fields: list[tuple[str, Node]] = []
        for name, child in properties.items():
            node = self.read(child, at.field(str(name)))
            if name not in required and "default" not in child and not node.nullable:
                # a class has its own value for an absent field, which need not be null
                absent = {"defaulted" if self._of_class else "nullable": True}
                node = replace(node, **absent)
            fields.append((str(name), node))
        return tuple(fields)

    def _items(self, schema: Mapping[str, Any], at: _Place) -> Node:
        if not isinstance(items := schema.get("items"), dict) or not items:
            raise self._refusal(at, "is a list without an item type; name it (list[str], …).")
        return self.read(items, at.item())  # pyright: ignore[reportUnknownArgumentType]

    def _scalar(self, schema: Mapping[str, Any], at: _Place) -> Node:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        nullable = values is not None and any(value is None for value in values)
        if values is not None:
            values = [value for value in values if value is not None]
        kind: Any = schema.get("type") or _kind_of(values or [])
        if kind is None or (values is not None and _kind_of(values) != kind):
            why = "is an enum of mixed or unusual values; use strings or integers."
            raise self._refusal(at, why)
        form = schema.get("format") if kind == "string" else None
        if not (form is None or form in FORMATS or form in _TEXT_FORMATS or form == DECIMAL):
            why = f"has the format {form!r}, which batches cannot ask for; use a plain string."
            raise self._refusal(at, why)
        node = Node(
            kind,
            nullable,
            format=form,
            enum=tuple(values) if values is not None else None,
            constraints=_constraints(schema, kind),
        )
        if form == DECIMAL:
            self._check_decimal(node, at)
        if node.constraints:
            self._check_constraints(node, at)
        return node

    def _check_decimal(self, node: Node, at: _Place) -> None:
        constraints = dict(node.constraints)
        digits, places = constraints.get("maxDigits", MOST_DIGITS), constraints.get("decimalPlaces")
        are_sizes = (
            isinstance(places, int)
            and isinstance(digits, int)
            and 0 <= places <= digits <= MOST_DIGITS
        )
        if not are_sizes or node.enum is not None:
            why = (
                f"is a Decimal without its size; say it, up to {MOST_DIGITS} digits: "
                "Field(max_digits=12, decimal_places=2)."
            )
            raise self._refusal(at, why)

    def _check_constraints(self, node: Node, at: _Place) -> None:
        try:
            TypeAdapter(node.python())
        except (PydanticUserError, SchemaError, TypeError) as error:
            constraints = ", ".join(f"{key}: {value}" for key, value in node.constraints)
            why = f"has a constraint that cannot be checked ({constraints}): fix or remove it."
            raise self._refusal(at, why) from error


def _kind_of(values: list[Any]) -> str | None:
    """Return the JSON Schema type of an enum's values, or None if they have no common one."""
    kinds = {type(value).__name__ for value in values}
    if len(kinds) != 1:
        return None
    return {"str": "string", "int": "integer", "bool": "boolean"}.get(kinds.pop())


def _constraints(schema: Mapping[str, Any], kind: str) -> tuple[tuple[str, Any], ...]:
    """Return the constraints that apply to this kind; JSON Schema gives others no effect."""
    form = schema.get("format")
    if form in FORMATS or "enum" in schema:
        return ()
    fitting = _FITTING.get(DECIMAL if form == DECIMAL and kind == "string" else kind, set[str]())
    return tuple((key, schema[key]) for key in CONSTRAINTS if key in schema and key in fitting)


def read_root(schema: Mapping[str, Any], label: str, *, of_class: bool) -> Node:
    """Read a whole schema; `label` is the spec's key.

    Raises:
        SpecError: naming the first field that batches cannot ask for.
    """
    root = _SchemaReader(schema, label, of_class=of_class).read(schema, _Place())
    if root.kind != "object" or root.nullable:
        message = f"{label}: the response model must be an object with named fields."
        raise SpecError(message)
    return root
