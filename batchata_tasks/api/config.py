"""How a Batch runs: BatchParams, and the defaults of its jobs."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.validation import describe_error, first_error
from batchata_tasks.spec.parts import ABOUT_BLOCK, BlockName, Count, Number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.schema.quotes import MinGrade


def _level(value: object) -> object:
    """Return a level in lower case; `warn`, as other libraries call it, is `warning`."""
    level = value.lower() if isinstance(value, str) else value
    return "warning" if level == "warn" else level


Verbosity = Literal["debug", "info", "warning", "error"]


class JobDefaults(TypedDict, total=False):
    """The fields of a Job for which a batch can have defaults."""

    model: str
    temperature: float
    max_tokens: int
    response_model: type[BaseModel] | dict[str, Any]
    enable_citations: bool
    min_grade: MinGrade
    provider: str
    endpoint: Literal["chat", "responses"]
    params: dict[str, Any]


class BatchParams(BaseModel):
    """How a Batch runs."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    state_file: str | None = Field(
        None, description="File that names the run, so that it can be found again."
    )
    results_dir: str = Field(
        "batch_results",
        min_length=1,
        description="Folder of the results: a dataset, see `to_arrow`. "
        "If it is not set: that of the run which the state file names, if there is one.",
    )
    max_parallel_batches: Count = Field(
        10, ge=1, le=1000, description="Batches that are open at once."
    )
    items_per_batch: Count | None = Field(
        None, ge=1, description="Jobs per batch; default: the provider's limit."
    )
    cost_limit_usd: Number | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Hard limit of a run, in US dollars.",
    )
    time_limit_seconds: Number | None = Field(None, gt=0, description="Wall time of a run.")
    credentials: BlockName = Field(None, description=ABOUT_BLOCK)
    default_params: dict[str, Any] = Field(
        default_factory=dict, description="Fields of jobs that do not set them otherwise."
    )
    reuse_state: bool = Field(
        default=True,
        description="Keep answers that landed before; False sends all jobs again.",
    )
    retry_failed: bool = Field(
        default=False,
        description="Send jobs again that failed for good, and go on after a run that stopped "
        "since no answer was usable or readable.",
    )
    raw_files: bool = Field(
        default=True, description="Keep requests and responses under <results_dir>/raw_files."
    )
    result_files: bool = Field(
        default=False,
        description="Write the result of each job to <results_dir>/<job_id>.json as it lands.",
    )
    verbosity_level: Annotated[Verbosity, BeforeValidator(_level)] = Field(
        "info", description="What is printed while a run works: debug, info, warning or error."
    )


class BatchOptions(TypedDict, total=False):
    """The parameters of BatchParams but `results_dir`, as `Batch` takes them."""

    state_file: str | None
    max_parallel_batches: int
    items_per_batch: int | None
    cost_limit_usd: float | None
    time_limit_seconds: float | None
    credentials: str | None
    default_params: JobDefaults
    reuse_state: bool
    retry_failed: bool
    raw_files: bool
    result_files: bool
    verbosity_level: Verbosity


def checked_params(values: dict[str, Any]) -> BatchParams:
    """Return these values as BatchParams.

    Raises:
        SpecError: one of them is invalid, or there is no such parameter.
    """
    try:
        return BatchParams.model_validate(values)
    except ValidationError as error:
        name, first = first_error(error)
        if first["type"] == "extra_forbidden":
            raise SpecError(unknown_key("Batch", name, BatchParams.model_fields)) from None
        message = f"{name}: {describe_error(first).removesuffix('.')}."
        raise SpecError(message) from None


def unknown_key(where: str, name: str, names: Iterable[str]) -> str:
    """Return the sentence that refuses an unknown parameter, with the one that may be meant."""
    close = get_close_matches(name, list(names), n=1)
    remedy = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}."
    return f"{where}: there is no parameter {name!r}; {remedy}"
