"""The parts of a spec that have keys of their own."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
)

from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.types.budget import BudgetTerms

BUDGET_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        message = f"{str(value).lower()} is no number"
        raise ValueError(message)  # noqa: TRY004 - pydantic reports only ValueErrors
    return value


# YAML reads yes as true, which would be a dollar, or one row
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_bool)]
Count = Annotated[int, BeforeValidator(_no_bool)]


_BLOCK = r"^[a-z0-9-]{1,60}$"  # as Prefect names blocks; keys are longer, or have capitals


def _a_block(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(_BLOCK, value):
        message = (  # it may be a key, so that it is not quoted
            "write the name of a block: at most 60 small letters, digits and dashes; a key "
            "belongs into the block, never here."
        )
        raise ValueError(message)
    return value


BlockName = Annotated[
    str | None, Field(json_schema_extra={"pattern": _BLOCK}), AfterValidator(_a_block)
]
ABOUT_BLOCK = (
    "Name of the Prefect block (AnthropicCredentials or OpenAICredentials) with the API key; "
    "default: the environment's."
)


class Turn(BaseModel):
    """One turn of `messages`; its content is a template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"] = Field(description="Whose turn it is.")
    content: str = Field(description="What is said; a template.")


class FailIf(BaseModel):
    """When a run that finished with failed rows counts as Failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failed_share: Number | None = Field(
        None, ge=0, le=1, description="Share of the run's rows, 0 to 1."
    )


class Budget(BaseModel):
    """A limit that is shared by all runs whose specs name it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{BUDGET_NAME}$", description="Names the budget in the ledger.")
    limit_usd: Number = Field(
        ge=0, le=1_000_000, description="Hard limit for one period, in US dollars."
    )
    period: Literal["day", "week", "month", "total"] = Field(
        "month", description="How often it begins anew; weeks begin on Monday."
    )
    timezone: str = Field("UTC", description="Where days begin, such as Europe/Berlin.")

    # not stored with a spec: who reads the spec again reads the file again
    _file: str | None = PrivateAttr(None)

    def stated_in(self, file: str | None) -> Self:
        """Note which file of budgets states it; None: the spec itself."""
        self._file = file
        return self

    @property
    def file(self) -> str | None:
        """The file of budgets that states it, by a name that all its checkouts share."""
        return self._file

    @field_validator("timezone")
    @classmethod
    def _a_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f"there is no time zone {value!r}; write one such as UTC or Europe/Berlin."
            raise ValueError(message) from None
        return value

    def terms(self) -> BudgetTerms:
        """Return it as the ledger stores it."""
        limit = pico_from_usd(self.limit_usd)
        return BudgetTerms(self.name, limit, self.period, self.timezone, self.file)


MAX_MISSING_SHARE = 0.2


class Missing(NamedTuple):
    """What happens with rows that the source lacks: they are marked, or deleted.

    `most` is the largest share of the dataset's rows for which it does; above it, a run is refused.
    """

    delete: bool
    most: float


class Pilot(BaseModel):
    """The first rows of a run, sent alone; the rest follows only if they succeed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Count = Field(ge=0, description="How many rows are sent first; 0: all are sent at once.")
    max_invalid_share: Number | None = Field(
        None, ge=0, le=1, description="Most of them that may end without a usable answer, 0 to 1."
    )
    max_cost_per_row_usd: Number | None = Field(
        None, ge=0, description="Most that one of them may cost on average."
    )
    once: bool = Field(
        default=False,
        description=(
            "Whether runs go without it once rows have landed with this prompt, model and "
            "response model that keep to it."
        ),
    )


def _none_if_false(value: object) -> object:
    """Return `false` as the pilot without rows that it means."""
    return {"rows": 0} if value is False else value


PilotOrNone = Annotated[
    Pilot | None,
    BeforeValidator(_none_if_false, json_schema_input_type=Pilot | Literal[False] | None),
]
DEFAULT_PILOT = Pilot(rows=20, max_invalid_share=0.5, max_cost_per_row_usd=None, once=True)
"""The pilot of a table's spec that limits costs in no way, unless it says `pilot: false`."""
