"""The response models of Jobs, each read once."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel

from batchata_tasks.common.canonical import base32, canonical, digest
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import not_json
from batchata_tasks.schema.quotes import QUOTED
from batchata_tasks.schema.response import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.spec.job import Job

_DIGEST_BYTES = 10


class ResponseModels:
    """The response models of jobs, each read once."""

    def __init__(self) -> None:
        # (model, name, schema) by the `id` of a class or of one of our copies, else by `repr`
        self._read: dict[int | str, tuple[object, str, ResponseSchema]] = {}
        self._contents: dict[str, str] = {}
        self._copies: dict[str, dict[str, Any]] = {}
        self._own: set[int] = set()  # the `id` of each copy
        # most jobs of a batch have the same: the last that was given, its JSON, and our copy
        self._last: tuple[dict[str, Any], bytes | None, dict[str, Any]] = {}, None, {}

    def of(self, job: Job) -> tuple[str | None, ResponseSchema | None]:
        """Return the name (a digest) and the schema of a job's response model.

        Raises:
            SpecError: a batch cannot ask for it; the message names the field.
        """
        model = job.response_model
        if model is None:
            return None, None
        place = self.place_of(model)
        if job.enable_citations and not (isinstance(model, dict) and QUOTED in model):
            place = f"quoted {job.min_grade} {place}"
        if place not in self._read:
            schema = _schema_of(job, model)
            kind = f"{model.__module__}.{model.__qualname__}" if isinstance(model, type) else ""
            # the model is kept, so that no other object gets its `id`
            self._read[place] = (model, self._name(schema, kind), schema)
        _, name, schema = self._read[place]
        return name, schema

    def place_of(self, model: type[BaseModel] | dict[str, Any]) -> int | str:
        """Return what tells a response model from all others that jobs have."""
        return id(model) if isinstance(model, type) or id(model) in self._own else repr(model)

    def _name(self, schema: ResponseSchema, kind: str) -> str:
        """Return a name for a response model, from its schema and the name of its class, if any.

        Classes of the same schema may validate differently. Those that share a name, too, as a
        function can make them, are numbered.
        """
        taken, number = {name for _, name, _ in self._read.values()}, 1
        content, of_class = canonical(schema.stored), kind.encode()
        name = base32(digest("response model", content, of_class)[:_DIGEST_BYTES])
        while kind and name in taken:
            number += 1
            parts = (content, of_class, b"%d" % number)
            name = base32(digest("response model", *parts)[:_DIGEST_BYTES])
        form = canonical(schema.form)
        self._contents[name] = base32(digest("response model", form)[:_DIGEST_BYTES])
        return name

    def adopt(self, named: Mapping[str, dict[str, Any]]) -> None:
        """Use an earlier run's names of response models, so that its jobs stay the same jobs."""
        for name, model in named.items():
            schema = ResponseSchema.from_stored(model, "response_model")
            self._read[repr(model)] = (model, name, schema)

    def content(self, name: str | None) -> str | None:
        """Return a digest of a response model's schema alone, given its name from `of`."""
        return None if name is None else self._contents.get(name, name)

    def own(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of a JSON Schema that the caller cannot change, one for all equal ones."""
        given, text, copy = self._last
        now = _json(model)
        if model is given and now is not None and now == text:
            return copy
        if (name := repr(model)) not in self._copies:
            self._copies[name] = deepcopy(model)
            self._own.add(id(self._copies[name]))
        self._last = model, now, self._copies[name]
        return self._copies[name]

    def by_digest(self) -> dict[str, ResponseSchema]:
        """Return all response models that were read, by name."""
        return {name: schema for _, name, schema in self._read.values()}


def _json(model: dict[str, Any]) -> bytes | None:
    """Return a schema as JSON, which is faster than `repr`; None if JSON cannot hold it."""
    try:
        return orjson.dumps(model)
    except TypeError:
        return None


def _schema_of(job: Job, model: type[BaseModel] | dict[str, Any]) -> ResponseSchema:
    label = f"job {job.id!r:.80}: response_model"
    if isinstance(model, type):
        if not issubclass(model, BaseModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            name = model.__name__
            message = f"{label}: {name} is no Pydantic model; derive it from pydantic.BaseModel."
            raise SpecError(message)
        return ResponseSchema.from_model(model, label, quoted=job.min_grade or job.enable_citations)
    if (value := not_json(model)) is not None:
        message = f"{label}: {value} is no JSON; write names with texts, numbers, lists."
        raise SpecError(message)
    return ResponseSchema.from_json_schema(
        model, label, quoted=job.min_grade or job.enable_citations
    )
