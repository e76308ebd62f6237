"""Anthropic's limits on schemas, checked before anything is sent.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs. Anthropic also
refuses schemas that are too complex to compile, by a measure that it does not publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from batchata_tasks.schema.response import ResponseSchema

ANTHROPIC_UNIONS = 16  # the most fields of one schema that may be null


def check_schema(schema: ResponseSchema) -> None:
    """Refuse a response model that is too large; see `Checks.check_schema`."""
    nullable = [path for path, node in schema.root.below() if node.nullable]
    if len(nullable) > ANTHROPIC_UNIONS:
        message = (
            f"{schema.label}: the field {nullable[ANTHROPIC_UNIONS]} is one too many that may be "
            f"null, of which Anthropic takes {ANTHROPIC_UNIONS}; let fewer be null (an empty text "
            "or list may say as much)."
        )
        raise SpecError(message)
