"""Reading JSON Schema into nodes.

What the providers' strict modes cannot express (maps, recursion, unions) is refused here, naming
the field, since a provider would refuse it hours later and line by line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from pydantic import PydanticUserError, TypeAdapter
from pydantic_core import SchemaError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.schema.nodes import CONSTRAINTS, DECIMAL, FORMATS, MOST_DIGITS, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_SCHEMA = (
    "x-no-json-schema"  # stands for a type that Pydantic has no JSON Schema for, and says which
)
MAX_DEPTH = 8
MAX_FIELDS = 5000  # OpenAI's limit; Anthropic gives none: https://platform.openai.com/docs/guides/structured-outputs
_TEXTFORMATS = {
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
    "uri-reference",
    "json-pointer",
    "regex",
}
_HARMLESS = {
    "title",
    "description",
    "default",
    "examples",
    "type",
    "format",
    "enum",
    "const",
    "$defs",
    "deprecated",
}
_STRUCTURE = {
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "$schema",
    "$id",
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
    """Where a schema stands: its path in errors, the references on the way to it, how deep it is."""

    path: str = ""
    seen: frozenset[str] = frozenset()
    depth: int = 0
    lists: int = 0

    def field(self, name: str) -> _Place:
        return replace(
            self, path=f"{self.path}.{name}" if self.path else name, depth=self.depth + 1
        )

    def item(self) -> _Place:
        return replace(self, path=f"{self.path}[]", lists=self.lists + 1)


class _SchemaReader:
    """Reads one schema into nodes; `of_class` is whether a Pydantic class made it."""

    def __init__(self, root: Mapping[str, Any], label: str, *, of_class: bool) -> None:
        self._root = root
        self._label = label
        self._of_class = of_class
        self._fields_read = 0

    def _refuse(self, at: _Place, why: str) -> SpecError:
        return SpecError(
            f"{self._label}: the {f'field {at.path}' if at.path else 'response model'} {why}"
        )

    def read(self, schema: object, at: _Place) -> Node:
        """Read the schema that stands at a place."""
        if not isinstance(schema, dict):
            raise self._refuse(at, "is described by no JSON Schema object; give it a type.")
        found, at = self._resolved(as_dict(cast("object", schema)), at)
        found, nullable = self._without_null(found, at)
        found, at = self._resolved(found, at)
        self._check(found, at)
        description = text if isinstance(text := found.get("description"), str) else None
        match found.get("type"):
            case "object":
                return Node(
                    "object", nullable, fields=self._fields(found, at), description=description
                )
            case "array":
                return Node(
                    "array",
                    nullable,
                    items=self._items(found, at),
                    description=description,
                    constraints=_constraints(found, "array"),
                )
            case "string" | "integer" | "number" | "boolean":
                return self._scalar(found, nullable, description, at)
            case None if "enum" in found or "const" in found:
                return self._scalar(found, nullable, description, at)
            case other:
                had = "has no type (Any, perhaps)" if other is None else f"has the type {other!r}"
                raise self._refuse(
                    at, f"{had}; give it one of string, integer, number, boolean, array, object."
                )

    def _check(self, schema: Mapping[str, Any], at: _Place) -> None:
        if (kind := schema.get(NO_SCHEMA)) is not None:
            raise self._refuse(
                at, f"has a type without JSON Schema ({kind}); use a type that JSON can hold."
            )
        for keyword in sorted(set(schema) - _HARMLESS - _STRUCTURE - set(CONSTRAINTS)):
            instead = f"; {_INSTEAD[keyword]}" if keyword in _INSTEAD else ""
            raise self._refuse(
                at,
                f"uses the JSON Schema keyword {keyword!r}, which batches cannot ask for{instead}.",
            )
        if max(at.depth, at.lists) > MAX_DEPTH:
            raise self._refuse(at, f"is nested more than {MAX_DEPTH} levels deep.")

    def _resolved(self, schema: Mapping[str, Any], at: _Place) -> tuple[Mapping[str, Any], _Place]:
        found: dict[str, Any] = dict(schema)
        while "$ref" in found or ("allOf" in found and len(found["allOf"]) == 1):
            rest = {k: v for k, v in found.items() if k not in ("$ref", "allOf")}
            if "allOf" in found:
                found = {**as_dict(found["allOf"][0]), **rest}
                continue
            ref = str(found["$ref"])
            if ref in at.seen:
                raise self._refuse(at, "refers to itself; recursive models cannot be asked for.")
            at = replace(at, seen=at.seen | {ref})
            found = {**self._lookup(ref, at), **rest}
        return found, at

    def _lookup(self, ref: str, at: _Place) -> Mapping[str, Any]:
        node: Any = self._root
        for step in ref.removeprefix("#/").split("/") if ref.startswith("#/") else [""]:
            node = node.get(step) if isinstance(node, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(node, dict):
            raise self._refuse(at, f"refers to {ref!r}, which is not in the schema.")
        return node  # pyright: ignore[reportUnknownVariableType]

    def _without_null(
        self, schema: Mapping[str, Any], at: _Place
    ) -> tuple[Mapping[str, Any], bool]:
        if isinstance(kinds := schema.get("type"), list):
            others = [kind for kind in kinds if kind != "null"]  # pyright: ignore[reportUnknownVariableType]
            if len(others) != 1:  # pyright: ignore[reportUnknownArgumentType]
                raise self._refuse(at, f"may be of several types ({kinds}); a column has one type.")
            return {**schema, "type": others[0]}, len(others) < len(kinds)  # pyright: ignore[reportUnknownArgumentType]
        found = schema.get("anyOf", schema.get("oneOf"))
        if found is None:
            return schema, False
        options = [as_dict(option) for option in found]
        others = [option for option in options if option.get("type") != "null"]
        if len(others) != 1:
            raise self._refuse(
                at,
                "is a union of several types; a column has one type (or null): use one model whose fields may be null.",
            )
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
        return {**others[0], **rest}, len(others) < len(options)

    def _fields(self, schema: Mapping[str, Any], at: _Place) -> tuple[tuple[str, Node], ...]:
        properties, more = as_dict(schema.get("properties")), schema.get("additionalProperties")
        if schema.get("properties") == {} and more in (None, False):
            raise self._refuse(at, "has no fields; name at least one.")
        if not properties or more not in (None, False, True):
            raise self._refuse(
                at,
                "is a map with free keys (dict); name its keys in a nested model, or use a list of pairs.",
            )
        if not isinstance(names := schema.get("required", []), list):
            raise self._refuse(at, "has a `required` that is no list of names.")
        self._fields_read += len(properties)
        if self._fields_read > MAX_FIELDS:
            raise self._refuse(
                at,
                f"brings the fields to more than {MAX_FIELDS:,}, nested ones included: more than a provider takes.",
            )
        required = set(map(str, names))  # pyright: ignore[reportUnknownArgumentType]
        fields: list[tuple[str, Node]] = []
        for name, child in properties.items():
            node = self.read(child, at.field(str(name)))
            if name not in required and "default" not in child and not node.nullable:
                # a class has its own value for what is absent, which need not be null
                node = (
                    replace(node, defaulted=True)
                    if self._of_class
                    else replace(node, nullable=True)
                )
            fields.append((str(name), node))
        return tuple(fields)

    def _items(self, schema: Mapping[str, Any], at: _Place) -> Node:
        if not isinstance(items := schema.get("items"), dict) or not items:
            raise self._refuse(at, "is a list without an item type; name it (list[str], …).")
        return self.read(items, at.item())  # pyright: ignore[reportUnknownArgumentType]

    def _scalar(
        self,
        schema: Mapping[str, Any],
        nullable: bool,  # noqa: FBT001
        description: str | None,
        at: _Place,
    ) -> Node:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None and any(value is None for value in values):
            values, nullable = [value for value in values if value is not None], True
        kind: Any = schema.get("type") or _kind_of(values or [])
        if kind is None or (values is not None and _kind_of(values) != kind):
            raise self._refuse(
                at, "is an enum of mixed or unusual values; use strings or integers."
            )
        form = schema.get("format") if kind == "string" else None
        if (
            form is not None
            and form not in FORMATS
            and form not in _TEXTFORMATS
            and form != DECIMAL
        ):
            raise self._refuse(
                at, f"has the format {form!r}, which batches cannot ask for; use a plain string."
            )
        node = Node(
            kind,
            nullable,
            format=form,
            enum=tuple(values) if values is not None else None,
            description=description,
            constraints=_constraints(schema, kind),
        )
        if form == DECIMAL:
            self._check_decimal(node, at)
        if node.constraints:
            try:
                TypeAdapter(node.python())
            except (PydanticUserError, SchemaError, TypeError) as error:
                told = ", ".join(f"{key}: {value}" for key, value in node.constraints)
                raise self._refuse(
                    at, f"has a constraint that cannot be checked ({told}): mend or remove it."
                ) from error
        return node

    def _check_decimal(self, node: Node, at: _Place) -> None:
        said = dict(node.constraints)
        digits, places = said.get("maxDigits", MOST_DIGITS), said.get("decimalPlaces")
        if (
            not isinstance(places, int)
            or not isinstance(digits, int)
            or node.enum is not None
            or not 0 <= places <= digits <= MOST_DIGITS
        ):
            why = f"is a Decimal without its size; say it, up to {MOST_DIGITS} digits: Field(max_digits=12, decimal_places=2)."
            raise self._refuse(at, why)


def _kind_of(values: list[Any]) -> str | None:
    kinds = {type(value).__name__ for value in values}
    return (
        {"str": "string", "int": "integer", "bool": "boolean"}.get(kinds.pop())
        if len(kinds) == 1
        else None
    )


def _constraints(schema: Mapping[str, Any], kind: str) -> tuple[tuple[str, Any], ...]:
    """Return the constraints that speak about this kind; JSON Schema gives others no effect."""
    if schema.get("format") in FORMATS or "enum" in schema:
        return ()
    fitting = _FITTING.get(
        DECIMAL if schema.get("format") == DECIMAL and kind == "string" else kind, set[str]()
    )
    return tuple((key, schema[key]) for key in CONSTRAINTS if key in schema and key in fitting)


def read_root(schema: Mapping[str, Any], label: str, *, of_class: bool) -> Node:
    """Read a whole schema; `label` is the spec's key. Raises SpecError for what cannot be asked for."""
    root = _SchemaReader(schema, label, of_class=of_class).read(schema, _Place())
    if root.kind != "object" or root.nullable:
        message = f"{label}: the response model must be an object with named fields."
        raise SpecError(message)
    return root
