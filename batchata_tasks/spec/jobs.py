"""JobsSpec: a run whose requests are Jobs, as a Batch has them, instead of rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from batchata_tasks.common.text import pluralize
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.spec.parts import ABOUT_BLOCK, BlockName
from batchata_tasks.spec.run import RunSpec
from batchata_tasks.types.destination import Destination  # noqa: TC001 - Pydantic reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping

JOB_ID = "job_id"


class JobsSpec(RunSpec):
    """One batch of Jobs, which are in a file of their own, in the order of their destinations.

    `schemas` are their response models, as JSON Schema by digest. In the process that made the jobs
    the classes themselves check the answers, with all their validators.
    """

    kind: Literal["jobs"] = "jobs"
    jobs: str = Field(min_length=1, description="Path of the jobs, a Parquet file.")
    count: int = Field(ge=0, description="How many there are.")
    to: list[Destination] = Field(min_length=1, description="Where they go.")
    schemas: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Their response models, by digest."
    )
    uniform: bool = Field(
        description=(
            "Whether all have the same response model, or none: then its fields are columns."
        )
    )
    key: list[str] = Field(default_factory=lambda: [JOB_ID])
    credentials: BlockName = Field(None, description=ABOUT_BLOCK)
    _live: dict[str, ResponseSchema] = PrivateAttr(default_factory=dict[str, ResponseSchema])

    def with_models(self, models: Mapping[str, ResponseSchema]) -> JobsSpec:
        """Let these response models, by digest, check the answers."""
        self._live.update(models)
        return self

    def response_schemas(self) -> dict[str, ResponseSchema]:
        """Return the response models by digest."""
        models = dict(self._live)
        for digest in self.schemas.keys() - models.keys():
            models[digest] = ResponseSchema.from_stored(self.schemas[digest], "response_model")
        return models

    def destinations(self) -> list[Destination]:
        """See RunSpec."""
        return self.to

    @property
    def block(self) -> str | None:
        """See RunSpec."""
        return self.credentials

    @property
    def origin(self) -> str:
        """See RunSpec."""
        return pluralize(self.count, "job")
