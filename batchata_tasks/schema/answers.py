"""What the answers of a run are held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchata_tasks.schema.response import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class AnswerSchemas:
    """One response model for all requests of a run, whose fields are columns then; or one for each request.

    Requests that differ name theirs by its digest, and their answers land as text.
    """

    common: ResponseSchema | None = None
    own: Mapping[str, ResponseSchema] = field(default_factory=dict[str, ResponseSchema])

    def of(self, digest: str | None) -> ResponseSchema | None:
        """Return the response model of a request; None where plain text is asked for."""
        return self.common if digest is None else self.own[digest]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, for the ledger to keep."""
        common = self.common.kept if self.common is not None else None
        return {"schema": common} | (
            {"schemas": {name: one.kept for name, one in self.own.items()}} if self.own else {}
        )

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> AnswerSchemas:
        """Return what `to_json` was given."""
        common = (
            ResponseSchema.from_json_schema(kept["schema"], "response_model")
            if kept["schema"]
            else None
        )
        own = {
            name: ResponseSchema.from_json_schema(wire, "response_model")
            for name, wire in kept.get("schemas", {}).items()
        }
        return cls(common, own)
