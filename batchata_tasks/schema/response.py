"""The response model: the form of answers that a model is asked for.

A response model comes as a Pydantic class or as JSON Schema. Both are read into one small tree of
nodes (`reader.py`), and everything else follows from the tree: the strict schema for the wire, the
canonical form for the fingerprint, the Arrow types of the columns and the validator.
docs/structured-output.md shows it type by type.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import orjson
import pyarrow as pa
from pydantic import BaseModel, PydanticUserError, RootModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import (
    InitErrorDetails,
    PydanticCustomError,
    SchemaError,
    from_json,
    to_json,
)

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.text import is_unicode
from batchata_tasks.common.validation import first_error
from batchata_tasks.schema.model_code import code_digest
from batchata_tasks.schema.moments import first_number, has_moments
from batchata_tasks.schema.nodes import CONSTRAINTS, DECIMAL, Node, in_order, model_of
from batchata_tasks.schema.plain_values import NotPlainError, plain_check
from batchata_tasks.schema.quotes import QUOTED, fields_text, quotes_in, quoting
from batchata_tasks.schema.reader import NO_SCHEMA, read_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core.core_schema import DecimalSchema

    from batchata_tasks.schema.quotes import MinGrade, Quote

_INT64 = 2**63


class ResponseSchema:
    """The response model of a spec: wire schema, columns and validator.

    Of a class, the fields' own names are used everywhere, never their aliases. `quoted` answers say
    beside their fields which passages of documents these rest on; with a `min_grade`, an answer is
    invalid of which a value has no evidence of that grade.
    """

    def __init__(
        self,
        name: str,
        label: str,
        root: Node,
        model: type[BaseModel],
        *,
        built: bool,
        quoted: bool | MinGrade = False,
    ) -> None:
        self.name = name
        self.label = label  # the spec's key of it, for errors
        self.root = root
        self.quoted = bool(quoted)
        self.min_grade: MinGrade | None = None if isinstance(quoted, bool) else quoted
        if self.min_grade == "high" and (path := _boolean_in(root)) is not None:
            message = (
                f"min_grade: {path} is a boolean, of which the evidence is graded medium at best; "
                "write medium, or make it a text or an enum."
            )
            raise SpecError(message)
        self.wire = quoting(root.wire()) if quoted else root.wire()  # is sent
        # goes into ledgers: JSON Schema that gives the same columns, canonical form and checks
        self.stored = root.stored() | ({QUOTED: quoted} if quoted else {})
        # the same for models that differ in `min_grade` alone: what is asked for, and how it lands
        self.form = root.stored() | ({QUOTED: True} if quoted else {})
        self.canonical = root.canonical()
        self.arrow = pa.schema([pa.field(field, node.arrow()) for field, node in root.fields])
        self._model = model
        self._has_moments = has_moments(root)
        # built from JSON Schema: the fields have made-up names, and their real ones as aliases
        self._built = built
        self._plain = plain_check(model, root, built=built)

    @classmethod
    def from_model(
        cls, model: type[BaseModel], label: str, *, quoted: bool | MinGrade = False
    ) -> ResponseSchema:
        """Read a Pydantic class; raises SpecError for what a batch cannot ask for."""
        try:
            schema = model.model_json_schema(by_alias=False, schema_generator=_Generator)
        except PydanticUserError as error:
            message = f"{label}: {model.__name__} has no JSON Schema: {error.message}"
            raise SpecError(message) from error
        root = read_root(schema, label, of_class=True)
        return cls(model.__name__, label, root, model, built=False, quoted=quoted)

    @classmethod
    def from_json_schema(
        cls, schema: Mapping[str, Any], label: str, *, quoted: bool | MinGrade = False
    ) -> ResponseSchema:
        """Read JSON Schema, as given or `stored`; raises SpecError for what a batch cannot ask."""
        if isinstance(schema, dict) and QUOTED in schema:
            stored = as_dict(schema)
            schema = {name: value for name, value in stored.items() if name != QUOTED}
            quoted = quoted if isinstance(quoted, str) else stored[QUOTED]
        root = read_root(schema, label, of_class=False)
        try:
            model = model_of(root)
        except (PydanticUserError, SchemaError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            message = f"{label}: answers cannot be checked against the schema: {reason}"
            raise SpecError(message) from error
        name = str(schema.get("title") or "Response")
        return cls(name, label, root, model, built=True, quoted=quoted)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any], label: str) -> ResponseSchema:
        """Return the response model that has this `stored` form, which may have been sorted."""
        return cls.from_json_schema(in_order(stored), label)

    @property
    def has_class(self) -> bool:
        """Whether a class checks answers, which may have validators of its own."""
        return not self._built

    @cached_property
    def code(self) -> str | None:
        """A digest of the code that decides on answers; None if there is none but the schema.

        It is taken once, since it is of the files, which may change while this goes on as it is.
        """
        return None if self._built else code_digest(self._model)

    def parse(self, text: str) -> tuple[dict[str, Any] | None, str]:
        """Return the answer's columns, or None and a sentence about the first error.

        An enum's value is accepted in upper or lower case, unless that is ambiguous, and lands as
        the enum spells it: no provider promises the case
        (https://platform.claude.com/docs/en/build-with-claude/structured-outputs).
        """
        text = self._own_text(text)
        try:
            return self._fields(_unwrapped(self._checked(text)[0]), self.root), ""
        except Exception as error:  # noqa: BLE001 - a user's validator raises anything
            return None, _sentence(error)

    def columns(self, text: str) -> tuple[Any, ...] | None:
        """Return the values of the answer's columns; None if `parse` has something to say."""
        text = self._own_text(text)
        if self._plain is not None:
            try:
                return tuple(self._plain(orjson.loads(text)))
            except (NotPlainError, ValueError):
                pass
        fields, _ = self.parse(text)
        return None if fields is None else tuple(fields.values())

    def read(self, text: str) -> tuple[BaseModel | dict[str, Any] | None, str]:
        """Return the answer as `answer` does, or None and a sentence about the first error."""
        try:
            return self.answer(text), ""
        except Exception as error:  # noqa: BLE001 - a user's validator raises anything
            return None, _sentence(error)

    def answer(self, text: str) -> BaseModel | dict[str, Any]:
        """Return an answer that `parse` accepts: an object of the class, or a dict for JSON Schema.

        Raises:
            ValidationError: it does not satisfy the response model.
        """
        text = self._own_text(text)
        if self._built and self._plain is not None:
            try:
                parsed: dict[str, Any] = orjson.loads(text)
                self._plain(parsed)
            except (NotPlainError, ValueError):
                pass
            else:
                return parsed
        answer, accepted = self._checked(text)
        return as_dict(json.loads(accepted)) if self._built else answer

    def quotes(self, text: str) -> list[Quote]:
        """Return the passages that an answer quotes."""
        return quotes_in(text) if self.quoted else []

    def _own_text(self, text: str) -> str:
        """Return an answer's fields alone, as JSON."""
        return fields_text(text) if self.quoted else text

    def _checked(self, text: str) -> tuple[BaseModel, str | bytes]:
        """Return the answer, and the text that was accepted: its enums may be spelt differently."""
        check = partial(
            self._model.model_validate_json, by_alias=self._built, by_name=not self._built
        )
        try:
            answer, accepted = check(text), text
        except ValidationError:
            if (respelt := _respelt(text, self.root)) is None:
                raise
            answer, accepted = check(respelt), respelt
        if self._has_moments and (number := first_number(accepted, self.root)) is not None:
            raise _no_moment(self.name, *number)
        return answer, accepted

    def _fields(self, answer: object, node: Node) -> dict[str, Any]:
        """Return an object's fields, read from its attributes: no serializer changes them."""
        get: Callable[[str], Any] = partial(getattr, answer)
        if isinstance(answer, dict):
            get = as_dict(cast("object", answer)).__getitem__
        return {
            name: self._value(get(f"field_{i}" if self._built else name), child)
            for i, (name, child) in enumerate(node.fields)
        }

    def _value(self, value: Any, node: Node) -> Any:
        value = _unwrapped(value)
        if value is None:
            return None
        if node.kind == "object":
            return self._fields(value, node)
        if node.items is not None:
            return [self._value(item, node.items) for item in value]
        plain = _plain(value)
        if not isinstance(plain, _PYTHON.get(node.format or "") or _PYTHON[node.kind]):
            kind = node.format or node.kind
            message = f"a validator returned {type(plain).__name__} for a {kind}"
            raise TypeError(message)
        # a class of one's own may have its reasons
        if self._built and isinstance(plain, float) and not math.isfinite(plain):
            message = f"{plain} is no number that JSON has"
            raise ValueError(message)
        if isinstance(plain, str) and not is_unicode(plain):
            message = "a validator returned a text with half of a surrogate pair"
            raise ValueError(message)
        if node.format == DECIMAL:
            # Arrow raises if the column cannot hold all digits
            return pa.array([plain], type=node.arrow()).to_pylist()[0]
        return plain


def _boolean_in(node: Node, path: str = "") -> str | None:
    """Return the path of the first boolean in a tree; None if it has none."""
    if node.kind == "boolean":
        return path
    below = [(f"{path}.{name}" if path else name, child) for name, child in node.fields]
    if node.items is not None:
        below.append((f"{path}[]", node.items))
    return next((at for name, child in below if (at := _boolean_in(child, name))), None)


def _no_moment(
    model: str, path: tuple[str | int, ...], form: str, value: object
) -> ValidationError:
    """Return the error for a number in place of a date or a time."""
    kind = PydanticCustomError(
        "no_moment", "Input should be a {form} in ISO 8601, not a number", {"form": form}
    )
    return ValidationError.from_exception_data(
        model, [InitErrorDetails(type=kind, loc=path, input=value)]
    )


def _sentence(error: Exception) -> str:
    """Return a sentence about the first error in an answer."""
    if not isinstance(error, ValidationError):
        return f"answer: {type(error).__name__}: {error}"
    path, first = first_error(error, unknown_first=False)
    return f"{path or 'answer'}: {first['msg']}"


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "date": (date,),
    "date-time": (datetime,),
    "time": (time,),
    DECIMAL: (Decimal,),
}
# of Pydantic's constraints of numbers, the keywords of JSON Schema
_NUMBER_KEYWORDS = {
    value: key for key, value in CONSTRAINTS.items() if not key.endswith(("Length", "Items"))
}


class _Generator(GenerateJsonSchema):
    """Pydantic's JSON Schema, with decimals as exact texts; types without a schema are marked."""

    def decimal_schema(self, schema: DecimalSchema) -> JsonSchemaValue:
        """Return a decimal's schema; JSON's numbers would lose digits."""
        constraints = {
            _NUMBER_KEYWORDS[key]: _number(value)
            for key, value in schema.items()
            if key in _NUMBER_KEYWORDS
        }
        return {"type": "string", "format": DECIMAL, **constraints}

    def handle_invalid_for_json_schema(
        self,
        schema: Any,  # noqa: ARG002 - a given signature
        error_info: str,
    ) -> JsonSchemaValue:
        """Mark a type that the reader refuses, naming the field; Pydantic's error names none."""
        return {NO_SCHEMA: error_info}


def _number(value: Any) -> int | float:
    """Return a bound as a number that JSON can hold."""
    return int(value) if value == int(value) else float(value)


def _respelt(text: str, root: Node) -> bytes | None:
    """Return an answer with enum values as their enums spell them, or None if nothing changes."""
    try:
        answer = from_json(text)
    except ValueError:
        return None
    respelt = _spelt(answer, root)
    return to_json(respelt) if respelt != answer else None


def _spelt(value: Any, node: Node) -> Any:
    match value:
        case dict():
            nodes = dict(node.fields)
            return {
                name: _spelt(item, nodes[name]) if name in nodes else item
                for name, item in as_dict(cast("object", value)).items()
            }
        case list() if node.items is not None:
            return [_spelt(item, node.items) for item in cast("list[Any]", value)]
        case str() if node.enum is not None and value not in node.enum:
            options = [option for option in node.enum if isinstance(option, str)]
            alike = [option for option in options if option.casefold() == value.casefold()]
            return alike[0] if len(alike) == 1 else value
        case _:
            return value


def _unwrapped(value: Any) -> Any:
    """Return the value that a RootModel wraps; its JSON is that of its root."""
    return cast("Any", value).root if isinstance(value, RootModel) else value


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line per type reads best as a table
    """Return a validated scalar as Arrow takes it: no enums, no UUIDs, integers of 64 bits."""
    match value:
        case Enum():
            return _plain(value.value)
        case bool() | str() | float() | Decimal() | None:
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
