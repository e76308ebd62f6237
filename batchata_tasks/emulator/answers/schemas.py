"""Values that satisfy a JSON schema, drawn from a digest: same digest, same value.

A schema is compiled once into a tree of small functions, since a batch carries the same schema in
each of its 100,000 requests.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import orjson

from batchata_tasks.emulator.answers.schema_values import SIMPLE, Draw, Generator, number, string

if TYPE_CHECKING:
    from collections.abc import Callable

JSON: TypeAlias = dict[str, Any]

_DESCRIBED_BOUND = re.compile(
    r"\b(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|minItems|maxItems"
    r"|minLength|maxLength|maxDigits|decimalPlaces): (-?\d+(?:\.\d+)?)\b"
)
_DESCRIBED_FORMAT = re.compile(r"\(format: ([a-z-]+)")
_DESCRIBED_PATTERN = re.compile(
    r"(?:\(|, )pattern: (.*?)(?:, (?:minLength|maxLength): \d+)*\)$", re.DOTALL
)
_DEEP = 5  # recursion stops growing below this depth
_FORMAT_HOLDERS = ("output_config", "text")
_UNSOUND = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The errors that drawing from an invalid schema raises."""


@lru_cache(maxsize=256)
def compiled(schema: bytes) -> Generator:
    """Return the generator of a schema given as JSON bytes."""
    root = orjson.loads(schema)
    return _Compiler(root).node(root)


def as_object(value: Any) -> JSON:
    """Return a JSON object as it is, and an empty one for anything else."""
    return cast("JSON", value) if isinstance(value, dict) else {}


def asked_for(body: JSON) -> JSON | None:
    """Return the schema that a request of either provider gives for its answer."""
    chat = as_object(body.get("response_format"))
    forms = [{**as_object(chat.get("json_schema")), "type": chat.get("type")}]
    forms += [as_object(as_object(body.get(name)).get("format")) for name in _FORMAT_HOLDERS]
    schemas = (form.get("schema") for form in forms if form.get("type") == "json_schema")
    return next((as_object(schema) for schema in schemas if schema is not None), None)


def refusal(schema: bytes, rules: Callable[[Any], str | None]) -> str | None:
    """Return the rules' objection to a schema, or that it cannot be satisfied."""
    try:
        compiled(schema)(Draw(bytes(8)), 0)
        return rules(orjson.loads(schema))
    except _UNSOUND:
        return "Schema is too complex for compilation."


class _Compiler:
    """Turns schema nodes into generators; references are resolved when they are first drawn."""

    def __init__(self, root: JSON) -> None:
        self._root = root
        self._by_reference: dict[str, Generator] = {}

    def node(self, schema: Any) -> Generator:
        """Compile one node."""
        if not isinstance(schema, dict):
            return lambda draw, _: draw.phrase()
        schema = cast("JSON", schema)
        if schema.get("nullable") is True:
            inner = self.node({**schema, "nullable": False})
            return lambda draw, depth: None if draw.below(4) == 0 else inner(draw, depth)
        for keyword in ("const", "enum", "$ref", "anyOf", "oneOf", "allOf"):
            if keyword in schema:
                return self._combined(keyword, schema)
        return self._typed(schema)

    def _combined(self, keyword: str, schema: JSON) -> Generator:
        value = schema[keyword]
        if keyword == "const":
            return lambda _draw, _depth: value
        if keyword == "enum":
            size = len(value)
            return lambda draw, _: value[draw.below(size)]
        if keyword == "$ref":
            return self._reference(value)
        if keyword == "allOf":
            merged: JSON = {key: item for key, item in schema.items() if key != "allOf"}
            for part in value:
                merged = _merged(merged, self._resolved(part))
            return self.node(merged)
        return self._choice(value)

    def _choice(self, options: list[JSON]) -> Generator:
        nodes = [self.node(option) for option in options]
        size = len(nodes)
        shallow = next(
            (node for node, option in zip(nodes, options, strict=True) if "$ref" not in option),
            nodes[0],
        )
        return lambda draw, depth: (nodes[draw.below(size)] if depth < _DEEP else shallow)(
            draw, depth
        )

    def _resolved(self, schema: JSON) -> JSON:
        while "$ref" in schema:
            schema = self._lookup(schema["$ref"])
        return schema

    def _lookup(self, reference: str) -> JSON:
        node: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            node = node[step.replace("~1", "/").replace("~0", "~")]
        return node

    def _reference(self, reference: str) -> Generator:
        def draw_reference(draw: Draw, depth: int) -> Any:
            generator = self._by_reference.get(reference)
            if generator is None:
                generator = self.node(self._lookup(reference))
                self._by_reference[reference] = generator
            return generator(draw, depth + 1)

        return draw_reference

    def _typed(self, schema: JSON) -> Generator:
        schema = {**_described(schema), **schema}
        kind = schema.get("type")
        if isinstance(kind, list):
            options = [{**schema, "type": one} for one in cast("list[str]", kind)]
            return self._choice(options)
        if kind == "object" or "properties" in schema:
            return self._object(schema)
        if kind == "array" or "items" in schema:
            return self._array(schema)
        if kind in ("integer", "number"):
            return number(schema, whole=kind == "integer")
        return SIMPLE.get(str(kind)) or string(schema)

    def _object(self, schema: JSON) -> Generator:
        properties: JSON = schema.get("properties", {})
        required = set(schema.get("required", ()))
        ordered = sorted(properties, key=lambda key: key not in required)
        parts = [(key, self.node(properties[key]), key in required) for key in ordered]
        extra = schema.get("additionalProperties")
        if not parts and isinstance(extra, dict):
            value = self.node(extra)
            return lambda draw, depth: {"first": value(draw, depth), "second": value(draw, depth)}
        return lambda draw, depth: {
            key: node(draw, depth + 1) for key, node, needed in parts if needed or depth < _DEEP
        }

    def _array(self, schema: JSON) -> Generator:
        if "prefixItems" in schema:
            heads = [self.node(item) for item in schema["prefixItems"]]
            return lambda draw, depth: [head(draw, depth) for head in heads]
        least: int = schema.get("minItems", 0)
        spread = max(0, min(schema.get("maxItems", least + 3), least + 3) - least) + 1
        item = self.node(schema.get("items"))
        unique = schema.get("uniqueItems") is True

        def draw_array(draw: Draw, depth: int) -> list[Any]:
            size = least + (draw.below(spread) if depth < _DEEP else 0)
            values = [item(draw, depth + 1) for _ in range(size)]
            return _distinct(values, lambda: item(draw, depth + 1)) if unique else values

        return draw_array


def _described(schema: JSON) -> JSON:
    """Read keywords from the description: `(format: uri)`, `(minimum: 0, maximum: 1)`.

    Strict modes refuse such keywords, so clients put them there for the model to read.
    """
    text = str(schema.get("description", ""))
    bounds = {
        key: float(value) if "." in value else int(value)
        for key, value in _DESCRIBED_BOUND.findall(text)
    }
    described: JSON = bounds
    if form := _DESCRIBED_FORMAT.search(text):
        described = {"format": form[1], **described}
    if pattern := _DESCRIBED_PATTERN.search(text):
        described = {"pattern": pattern[1], **described}
    return described


def _merged(left: JSON, right: JSON) -> JSON:
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**left["properties"], **right["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = [*left["required"], *right["required"]]
    return merged


def _distinct(values: list[Any], more: Callable[[], Any]) -> list[Any]:
    distinct = {orjson.dumps(value): value for value in values}
    for _ in range(50):
        if len(distinct) >= len(values):
            break
        value = more()
        distinct[orjson.dumps(value)] = value
    return list(distinct.values())
