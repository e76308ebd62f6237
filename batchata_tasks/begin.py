"""Beginning a run, carrying on one that died, and bringing home what one of another spec left."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.answer_schemas import AnswerSchemas
from batchata_tasks.columns import keys_of
from batchata_tasks.errors import HeldError
from batchata_tasks.fingerprint import key_digest
from batchata_tasks.guards import limits_of, speaker
from batchata_tasks.job_builder import prepare_jobs
from batchata_tasks.jobs_spec import JobsSpec
from batchata_tasks.ledger import HELD, Ledger, now_us
from batchata_tasks.manifest import has_plan, read_chunk_manifest
from batchata_tasks.prepared import Options, Table, prepare
from batchata_tasks.pricing import rates_json
from batchata_tasks.providers import provider_type
from batchata_tasks.receipt import PILOT_FAILED
from batchata_tasks.session import RunState, Session
from batchata_tasks.spec import EnrichmentSpec
from batchata_tasks.spec_file import parse_spec
from batchata_tasks.storage import DatasetFolder

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Row

    from batchata_tasks.providers import Provider
    from batchata_tasks.run_spec import Destination, RunSpec
    from batchata_tasks.settings import Settings
    from batchata_tasks.site import Site


@dataclass(frozen=True)
class Ready:
    """A spec that passed every check that needs no rows, with what the ledger keeps of it."""

    spec: RunSpec
    table: Table
    record: dict[str, Any]


def make_ready(spec: RunSpec, settings: Settings) -> Ready:
    """Check a spec, before anything is written or sent.

    Raises:
        InputError: with the field and the remedy.
    """
    providers = {to: provider_type(to.provider, to.endpoint)() for to in spec.destinations()}
    folder = DatasetFolder(spec.output)
    folder.check()
    table = _prepared(spec, providers, folder.data, settings)
    return Ready(spec, table, _record(spec, table))


def _prepared(spec: RunSpec, providers: Mapping[Destination, Provider], data: Path, settings: Settings) -> Table:
    if isinstance(spec, JobsSpec):
        return prepare_jobs(spec, providers, data)
    assert isinstance(spec, EnrichmentSpec)  # noqa: S101 - there are no others
    return prepare(spec, providers, data, settings.roots())


def begin(site: Site, ready: Ready, options: Options) -> Session:
    """Begin a run, or carry on a dead one of the same spec, whose plan then stands."""
    spec, table, ledger = ready.spec, ready.table, site.ledger
    dead = ledger.open_run(site.lease.dataset_id)
    if dead is not None and _may_go_on(site, dead, ready, options):
        session = _session(site, dead.id, table, continued=True)
        factors = session.plan().factors
        for route in table.builder.routes:
            route.factor, route.rates = factors.get(f"{route.provider.name}/{route.model}", 10**6), session.rates(route.destination)
        return session
    correct_bounds(ledger, table)
    if dead is not None:  # it died while planning: nothing was sent
        site.folder.drop_run_folder(dead.id)
        ledger.close_run(site.lease, dead.id, "abandoned")
    if spec.budget is not None:
        ledger.agree_budget(spec.budget.terms(), speaker(spec))
    values = {
        **ready.record, "refresh_before": options.refresh_before, "retry_failed": int(options.retry_failed),
        "cost_limit": limits_of(spec).run,
        "price_source": price_source(table),
    }
    run_id = ledger.begin_run(site.lease, values)
    site.folder.sweep()
    return _session(site, run_id, table, continued=False)


def correct_bounds(ledger: Ledger, table: Table) -> None:
    """Multiply bounds of models with what answers above them taught."""
    for route in table.builder.routes:
        route.factor = ledger.bounds_factor(route.provider.name, route.model)


def price_source(table: Table) -> str | None:
    """Say where the prices of a plan are from; None where none is known."""
    sources = dict.fromkeys(route.rates.source for route in table.builder.routes if route.rates is not None)
    return "; ".join(sources) or None


def _session(site: Site, run_id: str, table: Table, *, continued: bool) -> Session:
    state = RunState(routes={route.destination: route for route in table.builder.routes})
    return Session(site, run_id, table.spec, table.answers, continued=continued, table=table, state=state)


def dead_run(site: Site, ready: Ready, options: Options) -> Session | None:
    """Return a dead run of another spec, of an older text of this one, or one that was to send less, if there is one.

    Its rows land under its own spec and response model, as the ledger keeps them.
    """
    dead = site.ledger.open_run(site.lease.dataset_id)
    if dead is None or dead.state != "open" or _may_go_on(site, dead, ready, options):
        return None
    return restored(site, dead)


def _may_go_on(site: Site, dead: Row[Any], ready: Ready, options: Options) -> bool:
    """Whether a dead run is carried on: the same spec, what is to be sent again was to be by then, and its plan is still there.

    One whose pilot did not hold is, so that it sends nothing, whatever is to be sent again.
    """
    same = dead.state == "open" and site.recovery is None and dead.spec_digest == ready.record["spec_digest"]
    refreshes = options.refresh_before is None or dead.refresh_before is not None
    again = (refreshes and dead.retry_failed >= options.retry_failed) or dead.result == PILOT_FAILED
    return same and again and has_plan(site.folder.run_folder(dead.id), site.ledger.chunks(dead.id))


def restored(site: Site, run: Row[Any]) -> Session:
    """Return a session that brings home what a run sent, under its own spec and response model; it sends nothing."""
    stored = json.loads(run.spec)
    kept = stored["spec"]
    spec = JobsSpec.model_validate(kept) if kept.get("kind") == "jobs" else parse_spec(kept, "the ledger's copy of the spec")
    return Session(site, run.id, spec, AnswerSchemas.from_json(stored), continued=True, sends=False)


def _record(spec: RunSpec, table: Table) -> dict[str, Any]:
    """Return what the ledger keeps of a spec and its prices; the spec's digest tells whether a dead run may go on.

    The digest holds the texts that the spec only refers to (prompt file, response model) too.
    """
    facts = {"spec": spec.model_dump(mode="json"), **table.answers.to_json()}
    digest = hashlib.sha256(f"{json.dumps(facts, sort_keys=True)} {table.builder.constant}".encode()).hexdigest()
    prices = {f"{route.provider.name}/{route.model}": rates_json(route.rates) for route in table.builder.routes}
    text = json.dumps({**facts, "prices": prices}, sort_keys=True)
    return {"name": spec.name, "spec": text, "spec_digest": digest}


def in_flight_keys(
    folder: DatasetFolder, ledger: Ledger, dataset_id: str, but_run: str, key: list[str], but_chunks: Container[str] = ()
) -> Iterator[bytes]:
    """Yield the keys (digests) of rows that other runs sent and nobody landed yet."""
    for chunk in ledger.unfinished_chunks(dataset_id, but_run):
        if chunk.id in but_chunks:
            continue
        if chunk.state == HELD and not (folder.intents / f"{chunk.id}.arrow").exists():
            message = f"the rows of chunk {chunk.id} are held, and which ones they are is lost: decide with `batchata reconcile` first."
            raise HeldError(message)
        manifest = read_chunk_manifest(folder.intents / f"{chunk.id}.arrow")
        yield from map(key_digest, keys_of(manifest, key))


def refresh_mark(refresh: bool) -> int | None:  # noqa: FBT001 - a yes or no of the command line
    """Return the moment before which landed rows count as not landed."""
    return now_us() if refresh else None
