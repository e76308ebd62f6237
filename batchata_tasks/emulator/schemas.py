"""Values that satisfy a JSON schema, drawn from a digest: same digest, same value.

A schema is compiled once into a tree of small functions, since a batch carries the same schema in
each of its 100,000 requests.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias, cast
from uuid import UUID

import orjson

JSON: TypeAlias = dict[str, Any]

_MASK = (1 << 64) - 1
_DEEP = 5  # recursion stops growing below this depth
_FORMAT_HOLDERS = ("output_config", "text")
_UNSOUND = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What drawing from a schema raises when its parts are not what they should be."""

_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_PRINTABLE = "abcdefghijklmnopqrstuvwxyz"


class Draw:
    """A stream of numbers and texts that is fully determined by a digest."""

    __slots__ = ("_state", "echo")

    def __init__(self, digest: bytes) -> None:
        self._state = int.from_bytes(digest[:8], "big")
        self.echo = digest.hex()[:12]

    def below(self, bound: int) -> int:
        """Return the next number in `[0, bound)`."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 20) % bound


Generator: TypeAlias = Callable[[Draw, int], Any]


@lru_cache(maxsize=256)
def compiled(schema: bytes) -> Generator:
    """Return the generator of a schema given as JSON bytes."""
    root = orjson.loads(schema)
    return _Compiler(root).node(root, "value")


def as_object(value: Any) -> JSON:
    """Return a JSON object as it is, and an empty one for anything else."""
    return cast("JSON", value) if isinstance(value, dict) else {}


def asked_for(body: JSON) -> JSON | None:
    """Return the schema that a request of either provider asks its answer to satisfy."""
    forms = [as_object(as_object(body.get(name)).get("format")) for name in _FORMAT_HOLDERS]
    chat = as_object(body.get("response_format"))
    if chat.get("type") == "json_schema":
        forms.append({"type": "json_schema", **as_object(chat.get("json_schema"))})
    schemas = (form.get("schema") for form in forms if form.get("type") == "json_schema")
    return next((as_object(schema) for schema in schemas if schema is not None), None)


def refusal(schema: bytes, rules: Callable[[Any], str | None]) -> str | None:
    """Return what the rules have against a schema, or that nothing can satisfy it as it stands."""
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

    def node(self, schema: Any, name: str) -> Generator:
        """Compile one node; `name` is the property it fills, and flavours free text."""
        if not isinstance(schema, dict):
            return lambda draw, _: draw.echo
        schema = cast("JSON", schema)
        if schema.get("nullable") is True:
            inner = self.node({**schema, "nullable": False}, name)
            return lambda draw, depth: None if draw.below(4) == 0 else inner(draw, depth)
        for keyword in ("const", "enum", "$ref", "anyOf", "oneOf", "allOf"):
            if keyword in schema:
                return self._combined(keyword, schema, name)
        return self._typed(schema, name)

    def _combined(self, keyword: str, schema: JSON, name: str) -> Generator:
        value = schema[keyword]
        if keyword == "const":
            return lambda _draw, _depth: value
        if keyword == "enum":
            size = len(value)
            return lambda draw, _: value[draw.below(size)]
        if keyword == "$ref":
            return self._reference(value, name)
        if keyword == "allOf":
            merged: JSON = {key: item for key, item in schema.items() if key != "allOf"}
            for part in value:
                merged = _merged(merged, self._resolved(part))
            return self.node(merged, name)
        return self._choice(value, name)

    def _choice(self, options: list[JSON], name: str) -> Generator:
        # A pattern is not generated for, so another way to satisfy the schema is preferred.
        usable = [option for option in options if "pattern" not in option] or options
        nodes = [self.node(option, name) for option in usable]
        size = len(nodes)
        shallow = next(
            (node for node, option in zip(nodes, usable, strict=True) if "$ref" not in option),
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

    def _reference(self, reference: str, name: str) -> Generator:
        def draw_reference(draw: Draw, depth: int) -> Any:
            generator = self._by_reference.get(reference)
            if generator is None:
                generator = self.node(self._lookup(reference), name)
                self._by_reference[reference] = generator
            return generator(draw, depth + 1)

        return draw_reference

    def _typed(self, schema: JSON, name: str) -> Generator:
        kind = schema.get("type")
        if isinstance(kind, list):
            options = [{**schema, "type": one} for one in cast("list[str]", kind)]
            return self._choice(options, name)
        if kind == "object" or "properties" in schema:
            return self._object(schema)
        if kind == "array" or "items" in schema:
            return self._array(schema, name)
        if kind in ("integer", "number"):
            return _number(schema, whole=kind == "integer")
        return _SIMPLE.get(str(kind)) or _string(schema, name)

    def _object(self, schema: JSON) -> Generator:
        properties: JSON = schema.get("properties", {})
        required = set(schema.get("required", ()))
        ordered = sorted(properties, key=lambda key: key not in required)
        parts = [(key, self.node(properties[key], key), key in required) for key in ordered]
        extra = schema.get("additionalProperties")
        if not parts and isinstance(extra, dict):
            value = self.node(extra, "value")
            return lambda draw, depth: {"first": value(draw, depth), "second": value(draw, depth)}
        return lambda draw, depth: {
            key: node(draw, depth + 1) for key, node, needed in parts if needed or depth < _DEEP
        }

    def _array(self, schema: JSON, name: str) -> Generator:
        if "prefixItems" in schema:
            heads = [self.node(item, name) for item in schema["prefixItems"]]
            return lambda draw, depth: [head(draw, depth) for head in heads]
        least: int = schema.get("minItems", 0)
        spread = max(0, min(schema.get("maxItems", least + 3), least + 3) - least) + 1
        item = self.node(schema.get("items"), name)
        unique = schema.get("uniqueItems") is True

        def draw_array(draw: Draw, depth: int) -> list[Any]:
            size = least + (draw.below(spread) if depth < _DEEP else 0)
            values = [item(draw, depth + 1) for _ in range(size)]
            return _distinct(values, lambda: item(draw, depth + 1)) if unique else values

        return draw_array


def _merged(left: JSON, right: JSON) -> JSON:
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**left["properties"], **right["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = [*left["required"], *right["required"]]
    return merged


def _distinct(values: list[Any], more: Callable[[], Any]) -> list[Any]:
    found = {orjson.dumps(value): value for value in values}
    for _ in range(50):
        if len(found) >= len(values):
            break
        value = more()
        found[orjson.dumps(value)] = value
    return list(found.values())


def _number(schema: JSON, *, whole: bool) -> Generator:
    step: float = schema.get("multipleOf", 1 if whole else 0)
    unit = step or 0.001
    low: float | None = schema.get("minimum")
    high: float | None = schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + unit
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - unit
    if low is None:
        low = 0 if high is None or high > 0 else high - 1000
    if high is None:
        high = low + 1000
    if whole or step:
        first, last = -int(-low // unit), int(high // unit)
        count = max(1, last - first + 1)
        if whole:
            return lambda draw, _: int((first + draw.below(count)) * unit)
        return lambda draw, _: (first + draw.below(count)) * unit
    width = high - low
    return lambda draw, _: min(high, max(low, round(low + width * draw.below(10_001) / 10_000, 4)))


def _string(schema: JSON, name: str) -> Generator:
    form = _FORMATS.get(schema.get("format", ""))
    if form is not None:
        return form
    least: int = schema.get("minLength", 0)
    most: int | None = schema.get("maxLength")

    def draw_string(draw: Draw, _: int) -> str:
        # The echo of the digest comes first: it must survive a short maximum length.
        text = f"{draw.echo} {name} {draw.below(1000)}"
        if len(text) < least:
            text += _PRINTABLE[draw.below(26)] * (least - len(text))
        return text if most is None else text[:most]

    return draw_string


def _moment(draw: Draw) -> datetime:
    return _EPOCH + timedelta(seconds=draw.below(200_000_000))


_SIMPLE: dict[str, Generator] = {
    "boolean": lambda draw, _: draw.below(2) == 1,
    "null": lambda _draw, _depth: None,
}
_FORMATS: dict[str, Generator] = {
    "date": lambda draw, _: _moment(draw).date().isoformat(),
    "date-time": lambda draw, _: _moment(draw).isoformat().replace("+00:00", "Z"),
    "time": lambda draw, _: _moment(draw).time().isoformat() + "Z",
    "uuid": lambda draw, _: str(UUID(int=draw.below(1 << 40) << 64 | draw.below(1 << 40))),
    "email": lambda draw, _: f"{draw.echo}@example.com",
    "uri": lambda draw, _: f"https://example.com/{draw.echo}",
    "hostname": lambda draw, _: f"{draw.echo}.example.com",
    "ipv4": lambda draw, _: f"192.0.2.{draw.below(256)}",
    "ipv6": lambda draw, _: f"2001:db8::{draw.below(65536):x}",
    "duration": lambda draw, _: f"PT{draw.below(3600)}S",
}
