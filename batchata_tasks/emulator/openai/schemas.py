"""The subset of JSON schema that the emulated OpenAI API accepts in strict mode.

Source: https://platform.openai.com/docs/guides/structured-outputs; the messages are those that
users of the API report.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.emulator.answers.schemas import JSON, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_PERMITTED = (
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "uniqueItems",
    "prefixItems",
    "patternProperties",
    "propertyNames",
)
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_MOST_PROPERTIES = 5000
_MOST_LEVELS = 10
_MOST_ENUM_VALUES = 1000
_OPT_OUT = "or use 'strict: false' to opt out of structured outputs."


@lru_cache(maxsize=256)
def schema_problem(schema: bytes, *, strict: bool) -> str | None:
    """Return why a JSON schema is unusable, or which rule of strict mode it breaks."""
    return refusal(schema, lambda root: _root_problem(root) if strict else None)


def _root_problem(root: JSON) -> str | None:
    if (kind := root.get("type")) != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    if (problem := _node_problem(root, ())) is not None:
        return problem
    nodes = list(_below(root))
    properties = sum(len(node.get("properties") or {}) for node in nodes)
    if properties > _MOST_PROPERTIES:
        most = f"Expected at most {_MOST_PROPERTIES} object properties in total"
        return f"{most}, but received {properties}."
    values = sum(len(node.get("enum") or ()) for node in nodes)
    if values > _MOST_ENUM_VALUES:
        received = f"but received {values}. Consider reducing the number of enums, {_OPT_OUT}"
        most = f"Expected at most {_MOST_ENUM_VALUES} enum values in total within a single schema"
        return f"{most} when using structured outputs, {received}"
    if (levels := _levels(root)) > _MOST_LEVELS:
        return f"{levels} levels of nesting exceeds limit of {_MOST_LEVELS}."
    return None


def _children(schema: JSON) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key in ("properties", "$defs", "definitions"):
        named: JSON = schema.get(key) or {}
        yield from (((key, name), item) for name, item in named.items())
    yield ("items",), schema.get("items")
    options = enumerate(cast("list[Any]", schema.get("anyOf") or []))
    yield from ((("anyOf", str(position)), item) for position, item in options)


def _below(node: Any) -> Iterator[JSON]:
    if isinstance(node, dict):
        schema = cast("JSON", node)
        yield schema
        for _, child in _children(schema):
            yield from _below(child)


def _levels(node: Any) -> int:
    if not isinstance(node, dict):
        return 0
    schema = cast("JSON", node)
    return ("properties" in schema) + max(
        (_levels(child) for _, child in _children(schema)), default=0
    )


def _node_problem(node: Any, context: tuple[str, ...]) -> str | None:
    if not isinstance(node, dict):
        return None
    schema = cast("JSON", node)
    problem = _own_problem(schema)
    if problem is not None:
        return f"In context={context}, {problem}"
    problems = (_node_problem(item, (*context, *where)) for where, item in _children(schema))
    return next((problem for problem in problems if problem), None)


def _own_problem(schema: JSON) -> str | None:
    if (keyword := next((key for key in _NOT_PERMITTED if key in schema), None)) is not None:
        return f"'{keyword}' is not permitted."
    if "format" in schema and schema["format"] not in _FORMATS:
        return f"'{schema['format']}' is not a valid format."
    properties: JSON = schema.get("properties") or {}
    if schema.get("type") != "object" and "properties" not in schema:
        return None
    if schema.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    missing = [name for name in properties if name not in (schema.get("required") or [])]
    if missing:
        return (
            "'required' is required to be supplied and to be an array including every key in "
            f"properties. Missing '{missing[0]}'."
        )
    return None
