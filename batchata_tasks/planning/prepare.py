"""Prepares a spec: every check that needs no rows, before anything is written or sent."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.dataset.columns import dataset_schema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.parts import Dataset
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.planning.job_requests import JobBuilder
from batchata_tasks.planning.rehearsal import is_rehearsal
from batchata_tasks.planning.row_requests import RequestBuilder
from batchata_tasks.planning.table import PreparedTable
from batchata_tasks.pricing.lookup import likely_typo
from batchata_tasks.pricing.price_file import CustomPrices, load_prices
from batchata_tasks.pricing.rates import rates_json
from batchata_tasks.providers import open_adapter
from batchata_tasks.providers.queue_file import load_queue_limits
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.sources.forms import DocumentsSource
from batchata_tasks.sources.opening import files_of, open_source
from batchata_tasks.sources.source import ReadOptions
from batchata_tasks.sources.typed import Typed
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.jobs import JOB_ID, JobsSpec
from batchata_tasks.spec.overlap import refuse_overlap
from batchata_tasks.spec.parts import MAX_MISSING_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.providers import Adapter
    from batchata_tasks.spec.run import RunSpec
    from batchata_tasks.types.destination import Destination


# with their defaults: specs of versions that did not have these keys keep their digest
_LATER_KEYS = {
    "csv": None,
    "retention": None,
    "max_missing_share": MAX_MISSING_SHARE,
    "credentials": None,
    "file": None,
    "document_root": None,
    "on_bad_document": "error",
    "enable_citations": False,
    "min_grade": None,
}


@dataclass(frozen=True)
class PreparedRun:
    """A spec that passed every check that needs no rows.

    It serves one run: its routes count what that run's requests have. `record` is stored in the
    ledger. `notes` are sentences about what is likely to be a mistake, and is none for certain.
    `renames` are those of the dataset's columns that were known then.
    """

    spec: RunSpec
    settings: Settings
    table: PreparedTable
    record: dict[str, Any]
    adapters: tuple[Adapter, ...]
    notes: tuple[str, ...] = ()
    renames: Renames = field(default_factory=Renames)

    def close(self) -> None:
        """Close the connections of its adapters; a run does that by itself."""
        for adapter in self.adapters:
            adapter.close()


def prepare_run(spec: RunSpec, settings: Settings) -> PreparedRun:
    """Check a spec before anything is written or sent; return it prepared.

    Raises:
        InputError: with the field and the remedy.
    """
    with ExitStack() as unless_prepared:
        providers = dict["Destination", "Adapter"]()
        for to in spec.destinations():
            providers[to] = open_adapter(to.provider, to.endpoint, spec.block)
            unless_prepared.callback(providers[to].close)
        folder = DatasetFolder(spec.output)
        folder.check()
        renames = Renames.read(folder)
        table = _prepared(spec, providers, folder, settings, renames)
        table = replace(table, rehearsal=is_rehearsal(providers.values()))
        record, adapters = _record(spec, table, renames), tuple(providers.values())
        notes = _notes(table, settings)
        ready = PreparedRun(spec, settings, table, record, adapters, notes, renames)
        unless_prepared.pop_all()
    return ready


def _prepared(
    spec: RunSpec,
    providers: Mapping[Destination, Adapter],
    folder: DatasetFolder,
    settings: Settings,
    renames: Renames,
) -> PreparedTable:
    prices = load_prices(settings.prices)
    load_queue_limits(settings.queues)  # a mistake is told before anything is sent
    if isinstance(spec, JobsSpec):
        return prepare_jobs(spec, providers, folder.data, prices)
    assert isinstance(spec, EnrichmentSpec)  # noqa: S101 - there are no others
    # of documents there may be none by now: what was sent lands all the same
    may_lack = isinstance(spec.source, DocumentsSource)
    for name in files_of(spec.source):
        refuse_overlap(name, folder.root, may_lack=may_lack)
    return prepare(spec, providers, folder.data, settings.roots(), prices, renames)


def opened_source(spec: RunSpec) -> Typed:
    """Return the table of a spec's rows, or of its jobs.

    Raises:
        SourceError: it cannot be read.
    """
    if isinstance(spec, JobsSpec):
        return Typed(open_source(spec.jobs))
    assert isinstance(spec, EnrichmentSpec)  # noqa: S101 - there are no others
    return Typed(open_source(spec.source, ReadOptions(spec.types, spec.csv), spec.frame))


def _notes(table: PreparedTable, settings: Settings) -> tuple[str, ...]:
    """Return sentences about what is likely to be a mistake, such as a model without a price."""
    unpriced = [route for route in table.builder.routes if route.rates is None]
    prices = load_prices(settings.prices) if unpriced else CustomPrices()
    found = [likely_typo(route.provider.name, route.model, prices) for route in unpriced]
    notes = [f"model: {text}" for text in found if text is not None]
    if isinstance(table.builder, RequestBuilder):
        notes += table.builder.notes(table.columns)
    return tuple(notes)


def _record(spec: RunSpec, table: PreparedTable, renames: Renames) -> dict[str, Any]:
    """Return the ledger's record of a spec, its prices, and the columns renamed by now.

    An unfinished run may be continued if the spec's digest is the same. The digest covers the texts
    to which the spec only refers (prompt file, response model), too, and what the address adds to
    prices: a run keeps its prices, so that its bounds would be too low at a dearer address.
    """
    stored = spec.model_dump(mode="json")
    for name, default in _LATER_KEYS.items():
        if stored.get(name, ...) == default:
            del stored[name]
    if (pilot := stored.get("pilot")) and not pilot["once"]:
        del pilot["once"]
    facts = {"spec": stored, **table.answers.to_json()}
    digested = {**facts, "spec": _as_before(stored)}
    content = f"{json.dumps(digested, sort_keys=True)} {table.builder.constant}"
    for route in table.builder.routes:
        if percent := route.provider.surcharge(route.model):
            content += f" {route.destination.key} + {percent} %"
    digest = hashlib.sha256(content.encode()).hexdigest()
    prices = {route.destination.key: rates_json(route.rates) for route in table.builder.routes}
    facts["prices"] = prices
    if renames.all:
        facts["renames"] = renames.to_json()
    text = json.dumps(facts)  # not sorted: fields of response models have an order
    return {"name": spec.name, "spec": text, "spec_digest": digest}


def _as_before(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored spec as versions wrote it that knew no default of a delimiter but a comma."""
    form = stored.get("csv")
    if not form or form["delimiter"] is not None:
        return stored
    return {**stored, "csv": {**form, "delimiter": ","}}


def prepare_jobs(
    spec: JobsSpec, providers: Mapping[Destination, Adapter], data: Path, prices: CustomPrices
) -> PreparedTable:
    """Prepare a batch of jobs, each of which was checked already.

    Raises:
        SpecError: there is a limit, and a model without a known price.
        SourceError: the stored jobs are gone.
    """
    schemas = spec.response_schemas()
    carried = pa.schema([pa.field(JOB_ID, pa.string())])
    common = spec.uniform
    if common:
        answers = AnswerSchemas(next(iter(schemas.values()), None))
    else:
        answers = AnswerSchemas(None, schemas)
    builder = JobBuilder(spec, providers, schemas, prices, common=common)
    dataset = Dataset(data, dataset_schema(carried, answers.common), spec.key, spec.carried)
    source = opened_source(spec)
    columns = source.schema(builder.columns_needed(source.names()))
    return PreparedTable(spec, source, builder, answers, dataset, columns)


def prepare(
    spec: EnrichmentSpec,
    providers: Mapping[Destination, Adapter],
    data: Path,
    roots: Iterable[Path],
    prices: CustomPrices,
    renames: Renames | None = None,
) -> PreparedTable:
    """Check everything of a spec that can be checked without reading the rows.

    Raises:
        InputError: with the field and the remedy.
    """
    schema = spec.schema_of_answers(roots)
    source = opened_source(spec)
    if not (names := source.names()):
        message = (
            f"source: {spec.origin} has no columns: it is empty, or a folder without Parquet files."
        )
        raise SourceError(message)
    for field_name, wanted in (("key", spec.key), ("columns", spec.columns or [])):
        if missing := [name for name in wanted if name not in names]:
            reason = f"{field_name}: the source has no column {missing[0]!r}"
            message = f"{reason}; it has: {', '.join(names)}."
            raise SpecError(message)
    provider = providers[spec.destinations()[0]]
    builder = RequestBuilder(spec, schema, provider, names, prices, renames)
    columns = source.schema(builder.columns_needed(names))  # the others may be of any kind
    carried = pa.schema([columns.field(name) for name in spec.carried])
    dataset = Dataset(data, dataset_schema(carried, schema), spec.key, spec.carried)
    return PreparedTable(spec, source, builder, AnswerSchemas(schema), dataset, columns)
