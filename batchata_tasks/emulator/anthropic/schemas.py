"""The subset of JSON schema that the emulated Anthropic API compiles."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.answers.schemas import JSON, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_UNIONS, _MOST_OPTIONAL = 16, 24
_REFERENCE = re.compile(rb'"\$ref":"#/(?:\$defs|definitions)/([^"/]+)"')
_UNSUPPORTED_KEYWORDS = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    ]
)


@lru_cache(maxsize=256)
def schema_problem(schema: bytes) -> str | None:
    """Return why Anthropic does not compile a JSON schema; None if it does."""
    return refusal(schema, _root_problem)


def _root_problem(root: Any) -> str | None:
    definitions = {**root.get("definitions", {}), **root.get("$defs", {})}
    refers = {
        name: [target.decode() for target in _REFERENCE.findall(orjson.dumps(definition))]
        for name, definition in definitions.items()
    }
    for name, direct in refers.items():
        reached, ahead = set[str](), list(direct)
        while ahead:
            following = ahead.pop()
            if following == name:
                return "Recursive definitions are not supported"
            if following not in reached:
                reached.add(following)
                ahead.extend(refers.get(following, ()))
    return _node_problem(root) or _count_problem(root)


def _count_problem(root: Any) -> str | None:
    """Return which limit on its size a schema exceeds.

    Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs.
    """
    nodes = list(_below(root))
    unions = sum("anyOf" in node or isinstance(node.get("type"), list) for node in nodes)
    if unions > _MOST_UNIONS:
        return (
            f"Schemas contains too many parameters with union types ({unions} parameters with type "
            "arrays or anyOf). This causes exponential compilation cost. Reduce the number of "
            f"nullable or union-typed parameters (limit: {_MOST_UNIONS} parameters with unions)."
        )
    optional = sum(
        len(set(node.get("properties") or ()) - set(node.get("required") or ())) for node in nodes
    )
    if optional > _MOST_OPTIONAL:
        return (
            f"Schemas contains too many optional parameters ({optional}), which would make grammar "
            "compilation inefficient. Reduce the number of optional parameters in your tool "
            f"schemas (limit: {_MOST_OPTIONAL})."
        )
    return None


def _below(node: Any) -> Iterator[JSON]:
    """Yield a schema and all schemas within it."""
    if isinstance(node, dict):
        schema = cast("JSON", node)
        yield schema
        for key in ("properties", "$defs", "definitions"):
            for child in cast("JSON", schema.get(key) or {}).values():
                yield from _below(child)
        for child in (schema.get("items"), *(schema.get("anyOf") or ())):
            yield from _below(child)


def _node_problem(node: Any) -> str | None:
    if isinstance(node, list):
        problems = (_node_problem(item) for item in cast("list[Any]", node))
        return next((problem for problem in problems if problem), None)
    if not isinstance(node, dict):
        return None
    schema = cast("JSON", node)
    below = [schema.get(key) for key in ("items", "anyOf", "allOf", "oneOf", "prefixItems")]
    for key in ("properties", "$defs", "definitions"):
        below.extend(cast("JSON", schema.get(key) or {}).values())
    return _own_problem(schema) or _node_problem(below)


def _own_problem(schema: JSON) -> str | None:
    kind: Any = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    unsupported = sorted(_UNSUPPORTED_KEYWORDS.intersection(schema))
    if unsupported:
        return f"For '{kind}' type, property '{unsupported[0]}' is not supported"
    if schema.get("minItems", 0) not in (0, 1):
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if not str(schema.get("$ref", "#")).startswith("#"):
        return "External '$ref' is not supported"
    return None
