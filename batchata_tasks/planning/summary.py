"""What a plan found, and the options of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


_MONEY = frozenset({"bound", "expected", "expected_list", "factors", "least"})


@dataclass
class PlanSummary:
    """What a plan found; money in picodollars."""

    source_rows: int = 0
    filtered: int = 0  # left out by `where`
    null_skipped: int = 0  # left out by `on_null: skip`
    up_to_date: int = 0
    in_flight: int = 0
    exhausted: int = 0  # failed for good, or attempts used up
    not_asked: int = 0  # changed, but for a reason that `rerun_on` leaves out
    over_limit: int = 0  # need work, but `limit` was reached
    too_large: int = 0  # cannot be sent at all; land as errors
    recovered: int = 0  # answered by batches whose rows the dataset had lost
    carried: int = 0  # only carried columns changed: rewritten, nothing sent
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    requests: int = 0
    batches: int = 0
    bound: int | None = 0  # the most that it can cost; null without a known price
    expected: int | None = None  # what it is likely to cost, further rounds included
    expected_list: int | None = None  # the same outside of a batch
    input_tokens: int = 0  # likely
    output_tokens: int = 0
    calibrated_by: int = 0  # finished batches that the likely figures rest on; 0: they are a guess
    factors: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # what bounds of each model were multiplied with, in millionths
    least: int = 0  # the bound of the cheapest request
    pilot: int = 0  # rows that are sent first, and have to hold; 0 where there are no others

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> PlanSummary:
        """Return what `to_json` gave; of an older version, what is still known of it."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})

    def facts(self) -> dict[str, Any]:
        """Return all that is not about money, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in _MONEY}


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of one run beside the spec."""

    refresh_before: int | None = None
    retry_failed: bool = False
