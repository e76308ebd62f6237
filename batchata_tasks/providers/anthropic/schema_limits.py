"""What Anthropic takes of a schema, checked before anything is sent.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs. Anthropic also refuses schemas
that are too complex to compile, by a measure that it does not publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from batchata_tasks.schema.nodes import Node
    from batchata_tasks.schema.response import ResponseSchema

ANTHROPIC_UNIONS = 16  # fields of one schema that may be null


def check_schema(schema: ResponseSchema) -> None:
    """Refuse a response model that is too large; see `Checks.check_schema`."""
    if (why := _beyond(schema.root)) is not None:
        message = f"{schema.label}: the field {why}."
        raise SpecError(message)


def _beyond(root: Node) -> str | None:
    unions = [path for path, node in root.below() if node.nullable]
    if len(unions) <= ANTHROPIC_UNIONS:
        return None
    remedy = "let fewer be null (an empty text or list may say as much)"
    return f"{unions[ANTHROPIC_UNIONS]} is one too many that may be null, of which Anthropic takes {ANTHROPIC_UNIONS}; {remedy}"
