"""Credentials: the key, the address and the scope of an account, and where they come from.

That is the environment, or a block of credentials that a Prefect server keeps (`blocks.py`). A
block stands for all variables of its account: what it leaves empty is unset, whatever the
environment says.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = {
    "anthropic": {"api_key": "ANTHROPIC_API_KEY", "base_url": "ANTHROPIC_BASE_URL"},
    "openai": {
        "api_key": "OPENAI_API_KEY",
        "base_url": "OPENAI_BASE_URL",
        "organization": "OPENAI_ORG_ID",
        "project": "OPENAI_PROJECT_ID",
    },
}
"""The variables that the fields of a provider's blocks stand for."""


@dataclass(frozen=True)
class Credentials:
    """The settings that select an account, by the names of the SDKs' variables.

    `block` is the name of the block that they come from; None if they are the environment's.
    """

    block: str | None = None
    values: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def get(self, variable: str) -> str | None:
        """Return a setting; None if it is unset."""
        return os.environ.get(variable) if self.block is None else self.values.get(variable)

    def word(self, variable: str) -> str:
        """Return what people know a setting by: the variable, or the field of the block."""
        if self.block is None:
            return variable
        names = {name: field for fields in FIELDS.values() for field, name in fields.items()}
        return f"`{names.get(variable, variable)}` of the block {self.block!r}"


ENVIRONMENT = Credentials()
