"""OpenAI's limits on schemas, checked before anything is sent.

Source: https://platform.openai.com/docs/guides/structured-outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from batchata_tasks.schema.nodes import Node
    from batchata_tasks.schema.response import ResponseSchema

OPENAI_ENUM_VALUES = 1000  # of all enums together
OPENAI_LARGE_ENUM = 250  # an enum with more values than this
OPENAI_LARGE_ENUM_CHARS = 15_000  # may have this many characters
OPENAI_CHARS = 120_000  # of all names of fields and values of enums


def check_schema(schema: ResponseSchema) -> None:
    """Refuse a response model that is too large; see `Checks.check_schema`."""
    if (problem := _problem(schema.root)) is not None:
        message = f"{schema.label}: the field {problem}."
        raise SpecError(message)


def _problem(root: Node) -> str | None:
    values, chars = 0, sum(len(name) for name, _ in root.fields)
    for path, node in root.below():
        options = [str(value) for value in node.enum or ()]
        size = sum(map(len, options))
        values += len(options)
        chars += size + sum(len(name) for name, _ in node.fields)
        is_large = node.kind == "string" and len(options) > OPENAI_LARGE_ENUM
        if is_large and size > OPENAI_LARGE_ENUM_CHARS:
            return (
                f"{path} is an enum of {size:,} characters, of which OpenAI takes "
                f"{OPENAI_LARGE_ENUM_CHARS:,} if there are more than {OPENAI_LARGE_ENUM} values; "
                "ask for plain text"
            )
        if values > OPENAI_ENUM_VALUES:
            return (
                f"{path} brings all enums to {values:,} values, of which OpenAI takes "
                f"{OPENAI_ENUM_VALUES:,}; ask for plain text"
            )
        if chars > OPENAI_CHARS:
            return (
                f"{path} brings names and enums to {chars:,} characters, of which OpenAI takes "
                f"{OPENAI_CHARS:,}; shorten them"
            )
    return None
