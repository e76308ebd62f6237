"""The response models of Jobs, each read once."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from batchata_tasks.common.canonical import base32, canonical, digest
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import not_json
from batchata_tasks.schema.response import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.spec.job import Job

_DIGEST_BYTES = 10


class ResponseModels:
    """The response models of jobs, each read once."""

    def __init__(self) -> None:
        self._known: dict[int | str, tuple[object, str, ResponseSchema]] = {}
        self._contents: dict[str, str] = {}
        self._copies: dict[str, dict[str, Any]] = {}
        self._own: set[int] = set()  # ids of the copies, which need no comparing

    def of(self, job: Job) -> tuple[str | None, ResponseSchema | None]:
        """Return the digest and the schema of a job's response model.

        Raises:
            SpecError: a batch cannot ask for it; the field is named.
        """
        model = job.response_model
        if model is None:
            return None, None
        place = id(model) if isinstance(model, type) or id(model) in self._own else repr(model)
        if place not in self._known:
            schema = _read(job, model)
            name = self._name(
                schema,
                f"{model.__module__}.{model.__qualname__}" if isinstance(model, type) else "",
            )
            self._known[place] = (
                model,
                name,
                schema,
            )  # the class is kept, so that its id stays its own
        _, name, schema = self._known[place]
        return name, schema

    def _name(self, schema: ResponseSchema, model: str) -> str:
        """Name a response model by its schema and class, since classes that ask for the same may check it otherwise.

        Those that have one name, too, as a function makes them, are numbered.
        """
        taken, number = {name for _, name, _ in self._known.values()}, 1
        asked, kind = canonical(schema.kept), model.encode()
        name = base32(digest("response model", asked, kind)[:_DIGEST_BYTES])
        while kind and name in taken:
            number += 1
            name = base32(digest("response model", asked, kind, b"%d" % number)[:_DIGEST_BYTES])
        self._contents[name] = base32(digest("response model", asked)[:_DIGEST_BYTES])
        return name

    def adopt(self, named: Mapping[str, dict[str, Any]]) -> None:
        """Keep the names that an earlier run had for response models, so that its jobs are the same jobs still."""
        for name, model in named.items():
            self._known[repr(model)] = (
                model,
                name,
                ResponseSchema.from_json_schema(model, "response_model"),
            )

    def content(self, name: str | None) -> str | None:
        """Return what two response models share that ask for the same, given a name of `of`."""
        return None if name is None else self._contents.get(name, name)

    def own(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of a JSON Schema that its giver cannot change, one for all that are alike."""
        if (name := repr(model)) not in self._copies:
            self._copies[name] = deepcopy(model)
            self._own.add(id(self._copies[name]))
        return self._copies[name]

    def by_digest(self) -> dict[str, ResponseSchema]:
        """Return all that were read."""
        return {name: schema for _, name, schema in self._known.values()}


def _read(job: Job, model: type[BaseModel] | dict[str, Any]) -> ResponseSchema:
    label = f"job {job.id!r:.80}: response_model"
    if isinstance(model, type):
        if not issubclass(model, BaseModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"{label}: {model.__name__} is no Pydantic model; derive it from pydantic.BaseModel."
            raise SpecError(message)
        return ResponseSchema.from_model(model, label)
    if (wrong := not_json(model)) is not None:
        message = f"{label}: {wrong} is no JSON; write names with texts, numbers, lists."
        raise SpecError(message)
    return ResponseSchema.from_json_schema(model, label)
