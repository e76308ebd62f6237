"""RunSpec: the part of a spec that all runs share, whatever their requests are made from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)

from batchata_tasks.spec.budget_file import named_budget
from batchata_tasks.spec.parts import Budget, Count, FailIf, Missing, Number, Pilot, PilotOrNone

if TYPE_CHECKING:
    from batchata_tasks.types.destination import Destination

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"[0-9]+(\.[0-9]+)?[smhd]"
_NO_TIME = {
    "time_limit": "write one such as 90m, or leave it out if there is no limit.",
    "retention": "write one such as 30d; to keep no files at all, write `raw_files: false`.",
}
_REASONS = ("new", "input", "prompt", "model", "schema", "failed")
Reason = Literal["new", "input", "prompt", "model", "schema", "failed"]


def as_list(value: object) -> object:
    """Return a text as a list of it; anything else as it is."""
    return [value] if isinstance(value, str) else value


_A_TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"anyOf": [_A_TEXT, {"type": "array", "items": _A_TEXT, "minItems": 1}]}
"""The JSON Schema of a text or several."""


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else float(duration[:-1]) * _SECONDS[duration[-1]]


class RunSpec(BaseModel, ABC):
    """The dataset that a run works on, its limits, and when a row is sent again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        description="Names the run, its ledger lines and artifacts.",
    )
    limit: Count | None = Field(None, ge=1, description="Only the first N rows that need work.")
    on_null: Literal["error", "empty", "skip", "pass"] = Field(
        "error",
        description=(
            "What a null in a column that the templates use does; "
            "empty and pass are one: the template sees it, and it prints nothing."
        ),
    )
    key: Annotated[list[str], BeforeValidator(as_list), WithJsonSchema(TEXTS)] = Field(
        min_length=1, description="Column or columns that identify a row."
    )
    cache: bool = Field(
        default=False,
        description="Mark the system prompt for the provider's prompt cache, for one hour.",
    )
    output: str = Field(
        min_length=1, description="Folder of the dataset; rows land in its `data/*.parquet`."
    )
    columns: list[str] | None = Field(
        None, description="Source columns carried along; default: only the key."
    )
    items_per_batch: Count | None = Field(
        None, ge=1, description="Rows per batch; default: the provider's limit."
    )
    max_parallel_batches: Count = Field(
        10, ge=1, le=1000, description="Batches of this run that are open at once."
    )
    cost_limit_usd: Number | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Hard limit on what this run may spend, in US dollars.",
    )
    budget: Annotated[
        Budget | None, WrapValidator(named_budget, json_schema_input_type=Budget | str | None)
    ] = Field(
        None,
        description=(
            "Hard limit shared by all runs that name it: its terms, or its name in budgets.yaml."
        ),
    )
    pilot: PilotOrNone = Field(
        None,
        description=(
            "A first small batch that has to hold before the rest is sent; default: 20 rows if "
            "there is no other limit. `false`: none."
        ),
    )
    time_limit: str | None = Field(
        None,
        description=(
            "Wall time from the run's start, such as 90m or 6h: "
            "then open batches are cancelled, and what ran is landed."
        ),
        json_schema_extra={"pattern": f"^{_DURATION}$"},
    )
    rerun_on: list[Reason] = Field(
        default_factory=lambda: list(_REASONS),
        description="Reasons for which rows are sent (again).",
    )  # pyright: ignore[reportArgumentType]
    max_attempts: Count = Field(
        3, ge=1, description="Attempts per key and fingerprint, over all runs."
    )
    fail_if: FailIf = Field(
        default_factory=lambda: FailIf(failed_share=None),
        description="When failed rows make the run Failed.",
    )
    raw_files: bool = Field(default=True, description="Keep request and response files.")
    retention: str | None = Field(
        None,
        description=(
            "How long request and response files are kept, such as 30d; by default for ever."
        ),
        json_schema_extra={"pattern": f"^{_DURATION}$"},
    )
    delete_results: bool = Field(
        default=False, description="Delete results at the provider once they are landed."
    )

    @field_validator("time_limit", "retention", mode="before")
    @classmethod
    def _a_duration(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
            message = "write it as a number and a unit, such as 90m, 6h or 30d (s, m, h, d)."
            raise ValueError(message)
        if not float(value[:-1]):
            message = f"{value} is no time: {_NO_TIME[str(info.field_name)]}"
            raise ValueError(message)
        return value

    @abstractmethod
    def destinations(self) -> list[Destination]:
        """Return where its requests go.

        Raises:
            SpecError: a model belongs to no known provider.
        """

    @property
    @abstractmethod
    def origin(self) -> str:
        """The source of its requests, in words for people."""

    @property
    def block(self) -> str | None:
        """The block of credentials that its requests are sent with; None: the environment's."""
        return None

    @property
    def providers(self) -> str:
        """The names of the providers, for people."""
        return ", ".join(dict.fromkeys(to.provider for to in self.destinations()))

    @property
    def models(self) -> str:
        """The names of the models, for people."""
        return ", ".join(dict.fromkeys(to.model for to in self.destinations()))

    @property
    def limited(self) -> bool:
        """Whether a limit binds what its runs spend."""
        return self.cost_limit_usd is not None or self.budget is not None

    @property
    def default_pilot(self) -> Pilot | None:
        """The pilot of a spec that says nothing of costs."""
        return None

    @property
    def missing(self) -> Missing | None:
        """What happens with rows of the dataset that the source lacks; None if they stay."""
        return None

    @property
    def first_rows(self) -> Pilot | None:
        """The pilot that its runs have: its own, or the default one."""
        if self.pilot is None:
            return self.default_pilot
        return self.pilot if self.pilot.rows else None

    @property
    def time_limit_seconds(self) -> float | None:
        """The time limit in seconds."""
        return _seconds(self.time_limit)

    @property
    def retention_seconds(self) -> float | None:
        """How long request and response files are kept, in seconds; None if for ever."""
        return _seconds(self.retention)

    @property
    def carried(self) -> list[str]:
        """The source columns of the dataset: the key, then `columns`."""
        return [*self.key, *(name for name in self.columns or [] if name not in self.key)]
