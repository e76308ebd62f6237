"""What planning begins with and what it finds: a spec made ready, a run's options, the summary."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.answer_schemas import AnswerSchemas
from batchata_tasks.columns import dataset_schema
from batchata_tasks.dataset import Dataset
from batchata_tasks.errors import SourceError, SpecError
from batchata_tasks.request import RequestBuilder
from batchata_tasks.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.providers import Provider
    from batchata_tasks.request import Builder
    from batchata_tasks.run_spec import Destination, RunSpec
    from batchata_tasks.source import Source
    from batchata_tasks.spec import EnrichmentSpec

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
    factors: dict[str, int] = field(default_factory=dict[str, int])  # what bounds of each model were multiplied with, in millionths
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


@dataclass(frozen=True)
class Table:
    """A spec made ready: its source, its request builder, its dataset."""

    spec: RunSpec
    source: Source
    builder: Builder
    answers: AnswerSchemas
    dataset: Dataset


def prepare(spec: EnrichmentSpec, providers: Mapping[Destination, Provider], data: Path, roots: Iterable[Path]) -> Table:
    """Check everything of a spec that can be checked without reading the rows.

    Raises:
        InputError: with the field and the remedy.
    """
    schema = spec.schema_of_answers(roots)
    source = open_source(spec.source, spec.types)
    if not (columns := source.schema.names):
        message = f"source: {spec.source} has no columns: it is empty, or a folder without Parquet files."
        raise SourceError(message)
    for field_name, names in (("key", spec.key), ("columns", spec.columns or [])):
        if missing := [name for name in names if name not in columns]:
            message = f"{field_name}: the source has no column {missing[0]!r}; it has: {', '.join(columns)}."
            raise SpecError(message)
    carried = pa.schema([source.schema.field(name) for name in spec.carried])
    dataset = Dataset(data, dataset_schema(carried, schema), spec.key, spec.carried)
    provider = providers[spec.destinations()[0]]
    return Table(spec, source, RequestBuilder(spec, schema, provider, columns), AnswerSchemas(schema), dataset)


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of one run beside the spec."""

    refresh_before: int | None = None
    retry_failed: bool = False
