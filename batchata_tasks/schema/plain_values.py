"""Reads answers of plain shapes in less time than Pydantic takes; all others are left to it.

A model's core schema says what Pydantic checks. If that is no more than types, bounds, lengths and
lists of values, a reader is built here. It takes an answer only if no field is absent or added, and
no value has to be converted; such an answer it reads as Pydantic does, to the last field.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from batchata_tasks.schema.nodes import DECIMAL, FORMATS

if TYPE_CHECKING:
    from batchata_tasks.schema.nodes import Node

Check = Callable[[Any], Any]
"""Returns a value as its column takes it; raises NotPlainError if Pydantic has to read it."""

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}
_LENGTHS = {"min_length": operator.ge, "max_length": operator.le}
# what the parts of a core schema may say; of one that says more the answers are left to Pydantic
_SAID = {"type", "ref", "metadata", "serialization"}
_SCALARS: dict[str, tuple[str, type, set[str]]] = {
    "string": ("str", str, set(_LENGTHS)),
    "integer": ("int", int, set(_COMPARE)),
    "number": ("float", float, set(_COMPARE)),
    "boolean": ("bool", bool, set[str]()),
}
_MODEL = {"cls", "schema", "config", "custom_init", "root_model", "frozen", "generic_origin"}
_FIELDS = {"fields", "model_name", "computed_fields"}
_FIELD = {"schema", "validation_alias", "serialization_alias", "frozen"}
_CONFIG = {"title", "extra_fields_behavior", "frozen"}
_ENUM = {"cls", "members", "sub_type", "missing"}
_INT64 = 2**63
_EXACT = 2**53  # integers up to here are floats without loss


class NotPlainError(Exception):
    """An answer, or a response model, is not of a plain shape."""


def plain_check(
    model: type[BaseModel], root: Node, *, built: bool
) -> Callable[[Any], list[Any]] | None:
    """Return the check of an answer, parsed by orjson; None for other models.

    It returns the answer's fields in the order of the nodes. `built` says whether the model was
    built from JSON Schema: its fields have made-up names then. The check raises NotPlainError for
    an answer that is left to Pydantic.
    """
    schema = cast("Mapping[str, Any]", model.__pydantic_core_schema__)
    shapes = _Shapes(schema.get("definitions", ()), built=built)
    try:
        return shapes.object_of(schema["schema"] if "definitions" in schema else schema, root)
    except NotPlainError:
        return None


class _Shapes:
    """Builds the checks of one core schema."""

    def __init__(self, definitions: Any, *, built: bool) -> None:
        self._built = built
        self._definitions = {one["ref"]: one for one in definitions}

    def _check(self, schema: Mapping[str, Any], node: Node) -> Check:  # noqa: PLR0911 - a table
        while schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        match schema["type"]:
            case "default":  # is for an absent field
                return self._check(schema["schema"], node)
            case "nullable":
                return _or_null(self._check(schema["schema"], node))
            case "model":
                return _named(self.object_of(schema, node), [name for name, _ in node.fields])
            case "list" if node.items is not None:
                _require(schema.keys() <= _SAID | {"items_schema", *_LENGTHS})
                return _list_of(self._check(schema["items_schema"], node.items), schema)
            case "literal":
                return _one_of(schema["expected"], node)
            case "enum":
                _require(schema.keys() <= _SAID | _ENUM)
                return _one_of([member.value for member in schema["members"]], node)
            case _:
                return _scalar(schema, node)

    def object_of(self, schema: Mapping[str, Any], node: Node) -> Callable[[Any], list[Any]]:
        """Return a check of an object that returns its values alone, in the order of the nodes."""
        while schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        _require(schema["type"] == "model" and node.kind == "object")
        inner = schema["schema"]
        _require(schema.keys() <= _SAID | _MODEL and schema.get("config", {}).keys() <= _CONFIG)
        _require(not schema.get("custom_init") and not schema.get("root_model"))
        _require(inner["type"] == "model-fields" and inner.keys() <= _SAID | _FIELDS)
        fields, names = inner["fields"], [name for name, _ in node.fields]
        keys = [f"field_{i}" for i in range(len(names))] if self._built else names
        _require(set(fields) == set(keys) and _has_no_own_ways(schema["cls"], keys))
        checks = list[tuple[str, Check]]()
        for key, (name, child) in zip(keys, node.fields, strict=True):
            _require(fields[key].keys() <= _SAID | _FIELD)
            checks.append((name, self._check(fields[key]["schema"], child)))
        count = len(checks)

        def values(value: Any) -> list[Any]:
            if type(value) is not dict or len(cast("dict[str, Any]", value)) != count:
                raise NotPlainError
            try:
                return [check(value[name]) for name, check in checks]
            except KeyError:
                raise NotPlainError from None

        return values


def _has_no_own_ways(cls: type[BaseModel], fields: list[str]) -> bool:
    """Whether a class reads JSON, and gives its fields' values, as any model does."""
    return (
        cls.__getattribute__ is BaseModel.__getattribute__
        and cls.__new__ is BaseModel.__new__
        and cast("Any", cls.model_validate_json).__func__
        is cast("Any", BaseModel.model_validate_json).__func__
        and not any(hasattr(cls, name) for name in fields)  # a property, say
    )


def _require(is_plain: bool) -> None:  # noqa: FBT001 - the one thing that it is about
    if not is_plain:
        raise NotPlainError


def _scalar(schema: Mapping[str, Any], node: Node) -> Check:
    """Return the check of a text, a number or a boolean."""
    _require(node.kind in _SCALARS and node.format not in {*FORMATS, DECIMAL})
    core_type, kind, keywords = _SCALARS[node.kind]
    _require(schema["type"] == core_type and schema.keys() <= _SAID | keywords)
    if kind is float:
        return _bounded(_float, schema)
    if kind is int:
        return _bounded(_integer, schema)

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise NotPlainError
        return value

    return _sized(check, schema)


def _integer(value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise NotPlainError
    return value


def _float(value: Any) -> float:
    if type(value) is float and -_INT64 < value < _INT64:  # beyond, orjson makes them of integers
        return value
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return float(value)
    raise NotPlainError


def _bounded(check: Check, schema: Mapping[str, Any]) -> Check:
    bounds = [(compare, schema[name]) for name, compare in _COMPARE.items() if name in schema]
    return _all_hold(check, bounds) if bounds else check


def _sized(check: Check, schema: Mapping[str, Any]) -> Check:
    bounds = [(compare, schema[name]) for name, compare in _LENGTHS.items() if name in schema]
    return _all_hold(check, bounds, len) if bounds else check


def _all_hold(
    check: Check, bounds: list[tuple[Callable[[Any, Any], bool], Any]], measure: Check | None = None
) -> Check:
    """Return a check that also compares a value, or what `measure` says of it, with bounds."""

    def bounded(value: Any) -> Any:
        value = check(value)
        measured = value if measure is None else measure(value)
        for compare, bound in bounds:
            if not compare(measured, bound):
                raise NotPlainError
        return value

    return bounded


def _one_of(values: list[Any], node: Node) -> Check:
    """Return the check of a text or an integer that is one of a list."""
    kind = {"string": str, "integer": int}.get(node.kind)
    _require(kind is not None and all(type(value) is kind for value in values))
    allowed = frozenset(values)

    def check(value: Any) -> Any:
        if type(value) is not kind or value not in allowed:
            raise NotPlainError
        return value

    return check


def _or_null(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _named(values: Callable[[Any], list[Any]], names: list[str]) -> Check:
    return lambda value: dict(zip(names, values(value), strict=True))


def _list_of(check: Check, schema: Mapping[str, Any]) -> Check:
    def items(value: Any) -> list[Any]:
        if type(value) is not list:
            raise NotPlainError
        return [check(item) for item in cast("list[Any]", value)]

    return _sized(items, schema)
