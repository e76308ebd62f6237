"""What one provider takes of a schema and the other does not, checked before anything is sent.

A schema beyond these is refused by the provider for each line of a batch, hours later.

Sources: https://platform.claude.com/docs/en/build-with-claude/structured-outputs and
https://platform.openai.com/docs/guides/structured-outputs. Anthropic also refuses schemas that are
too complex to compile, by a measure that it does not publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.errors import SpecError

if TYPE_CHECKING:
    from batchata_tasks.schema import ResponseSchema
    from batchata_tasks.schema_nodes import Node

ANTHROPIC_UNIONS = 16  # fields of one schema that may be null
OPENAI_ENUM_VALUES = 1000  # of all enums together
OPENAI_LARGE_ENUM, OPENAI_LARGE_ENUM_CHARS = 250, 15_000  # an enum of more values than the first
OPENAI_CHARS = 120_000  # of all names of fields and values of enums


def check_limits(provider: str, schema: ResponseSchema) -> None:
    """Refuse a response model that is too large for a provider.

    Raises:
        SpecError: naming the first field that is too much.
    """
    why = _beyond_anthropic(schema.root) if provider == "anthropic" else _beyond_openai(schema.root)
    if why is not None:
        message = f"{schema.label}: the field {why}."
        raise SpecError(message)


def _beyond_anthropic(root: Node) -> str | None:
    unions = [path for path, node in root.below() if node.nullable]
    if len(unions) <= ANTHROPIC_UNIONS:
        return None
    remedy = "let fewer be null (an empty text or list may say as much)"
    return f"{unions[ANTHROPIC_UNIONS]} is one too many that may be null, of which Anthropic takes {ANTHROPIC_UNIONS}; {remedy}"


def _beyond_openai(root: Node) -> str | None:
    values, chars = 0, sum(len(name) for name, _ in root.fields)
    for path, node in root.below():
        options = [str(value) for value in node.enum or ()]
        size = sum(map(len, options))
        values, chars = values + len(options), chars + size + sum(len(name) for name, _ in node.fields)
        if len(options) > OPENAI_LARGE_ENUM and node.kind == "string" and size > OPENAI_LARGE_ENUM_CHARS:
            most = f"{OPENAI_LARGE_ENUM_CHARS:,} where there are more than {OPENAI_LARGE_ENUM} values"
            return f"{path} is an enum of {size:,} characters, of which OpenAI takes {most}; ask for plain text"
        if values > OPENAI_ENUM_VALUES:
            return f"{path} brings all enums to {values:,} values, of which OpenAI takes {OPENAI_ENUM_VALUES:,}; ask for plain text"
        if chars > OPENAI_CHARS:
            return f"{path} brings names and enums to {chars:,} characters, of which OpenAI takes {OPENAI_CHARS:,}; shorten them"
    return None
