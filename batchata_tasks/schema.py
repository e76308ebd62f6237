"""The response model: what is asked of the model, what its answer becomes.

A response model comes as a Pydantic class or as JSON Schema. Both are read into one small tree of
nodes (`schema_nodes.py`), and everything else follows from the tree: the strict schema for the
wire, the canonical form for the fingerprint, the Arrow types of the columns and the validator.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pyarrow as pa
from pydantic import BaseModel, PydanticUserError, RootModel, ValidationError
from pydantic_core import SchemaError

from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import as_dict
from batchata_tasks.schema_nodes import Node, model_of, read_root

if TYPE_CHECKING:
    from collections.abc import Mapping

_INT64 = 2**63


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
        return cls(model.__name__, read_root(schema, label), model, built=False)

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any], label: str) -> ResponseSchema:
        """Read JSON Schema; raises SpecError for what a batch cannot ask for."""
        root = read_root(schema, label)
        try:
            model = model_of(root)
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

    def answer(self, text: str) -> BaseModel | dict[str, Any]:
        """Return an answer that `parse` accepts: an object of the class, or a dict where JSON Schema was given.

        Raises:
            ValidationError: it does not satisfy the response model.
        """
        if self._built:
            return as_dict(json.loads(text))
        return self._model.model_validate_json(text, by_alias=False, by_name=True)

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
