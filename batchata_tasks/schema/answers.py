"""The response models of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchata_tasks.schema.response import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.schema.quotes import MinGrade

ColumnReader = Callable[[str], tuple[Any, ...] | None]
"""Reads an answer's values of the dataset's answer columns; None if it has none, or has to be read
one by one (see `ResponseSchema.parse`)."""

_LABEL = "response_model"


@dataclass(frozen=True)
class AnswerSchemas:
    """One response model for all requests of a run, or one for each request.

    A common one gives the dataset its columns. Requests with models of their own (`own`) name those
    by their digests, and their answers land as text.
    """

    common: ResponseSchema | None = None
    own: Mapping[str, ResponseSchema] = field(default_factory=dict[str, ResponseSchema])

    def of(self, digest: str | None) -> ResponseSchema | None:
        """Return the response model of a request, or None if it asks for plain text."""
        return self.common if digest is None else self.own[digest]

    @property
    def has_class(self) -> bool:
        """Whether a class checks the answers, and not JSON Schema alone."""
        return self.common is not None and self.common.has_class

    @property
    def code(self) -> str | None:
        """A digest of the code that decides on answers; None if there is none, or no text of it."""
        return None if self.common is None else self.common.code

    @property
    def grade(self) -> MinGrade | Literal["none"] | None:
        """The grade of evidence that values need; None if answers do not quote."""
        if self.common is None or not self.common.quoted:
            return None
        return self.common.min_grade or "none"

    def column_reader(self, digest: str | None) -> ColumnReader:
        """Return what reads the answers to requests of this response model."""
        schema = self.of(digest)
        if schema is None:
            return lambda text: (text,)
        if schema is self.common:
            return schema.columns
        if self.common is None:
            return lambda text: None if schema.columns(text) is None else (text,)
        return lambda _text: None

    def with_classes_of(self, live: AnswerSchemas) -> AnswerSchemas:
        """Return the same models, each as the class that `live` has of it, if it has one.

        JSON Schema has no validators: what a class refuses would pass. The grade that evidence
        needs is today's, too.
        """
        common = self.common
        if common is not None and live.common is not None and live.common.form == common.form:
            common = live.common
        own = {digest: live.own.get(digest, model) for digest, model in self.own.items()}
        return AnswerSchemas(common, own)

    def to_json(self) -> dict[str, Any]:
        """Return the models as plain JSON values, for the ledger to store."""
        data: dict[str, Any] = {"schema": None if self.common is None else self.common.stored}
        if self.own:
            data["schemas"] = {digest: schema.stored for digest, schema in self.own.items()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AnswerSchemas:
        """Return the models that `to_json` was called on."""
        own = {
            digest: ResponseSchema.from_stored(stored, _LABEL)
            for digest, stored in data.get("schemas", {}).items()
        }
        if not data["schema"]:
            return cls(None, own)
        return cls(ResponseSchema.from_stored(data["schema"], _LABEL), own)
