"""The JSON Schema of a spec, with which editors complete and check its keys.

It is shipped as `spec.schema.json`, beside this module: `batchata schema` prints it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic.json_schema import GenerateJsonSchema

from batchata_tasks.spec.enrichment import EnrichmentSpec

NAME = "spec.schema.json"
PATH = Path(__file__).with_name(NAME)
_PROMPTS = {"prompt": "string", "prompt_file": "string", "messages": "array"}
# at most one of the keys of each group
_ALTERNATIVES = [("response_model", "response_schema"), ("messages", "system")]
_BOUNDS = {"ge": "minimum", "le": "maximum"}


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out titles of keys, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def schema_text() -> str:
    """Return the schema as its file has it."""
    return json.dumps(spec_schema(), indent=2, ensure_ascii=False) + "\n"


def spec_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec, of draft 7: the newest that all editors know."""
    template = "#/definitions/{model}"
    generated = EnrichmentSpec.model_json_schema(
        ref_template=template, schema_generator=_WithoutTitles
    )
    definitions = generated.pop("$defs")
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **generated,
        "title": "Spec of batchata-flows",
        "oneOf": [_given(name, kind) for name, kind in _PROMPTS.items()],
        "allOf": [{"not": {"allOf": [_given(name) for name in names]}} for names in _ALTERNATIVES],
        "definitions": definitions,
    }
    return _in_draft_7(schema)


def _given(name: str, kind: str | None = None) -> dict[str, Any]:
    """Return the schema of a spec that has this key, and not as null."""
    value = {"not": {"type": "null"}} if kind is None else {"type": kind}
    return {"required": [name], "properties": {name: value}}


def _in_draft_7(schema: Any) -> Any:
    """Return a schema whose references stand alone: in draft 7 nothing counts beside one.

    Bounds of numbers that may be null have the names that Pydantic left out.
    """
    if isinstance(schema, list):
        return [_in_draft_7(one) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    items = cast("dict[str, Any]", schema).items()
    keys = {_BOUNDS.get(name, name): _in_draft_7(one) for name, one in items}
    if "$ref" in keys and len(keys) > 1:
        keys = {"allOf": [{"$ref": keys.pop("$ref")}], **keys}
    return keys
