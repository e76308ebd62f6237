"""What a run would do: rows per reason, what they cost, what the limits do. Sends and spends nothing."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.settings import Settings
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import another_ledgers
from batchata_tasks.ledger import ChunkState, Ledger, is_made
from batchata_tasks.pipeline.lost import InFlight, Outlook, in_flight, outlook
from batchata_tasks.pipeline.receipt import CACHE_MINIMUM, REASONS, RunResult
from batchata_tasks.pipeline.start import correct_bounds, in_flight_keys, price_source
from batchata_tasks.planning.estimate import based_on, forecast_costs, measures
from batchata_tasks.planning.limits import limits_of
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.reports.forecast import look_ahead

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.reports.forecast import LimitsAhead
    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True)
class Preview:
    """A plan that nobody will carry out."""

    spec: RunSpec
    summary: PlanSummary
    price_source: str | None
    limits: LimitsAhead | None = None
    pilot_failed: bool = False  # of an earlier run of this very spec: a run would end at once
    open_batches: int = 0  # of an earlier run, which a run brings home first
    recoverable: int = 0  # rows that lost files held; how many of the plan's requests they answer, the provider knows
    in_flight: InFlight = field(
        default_factory=InFlight
    )  # of earlier runs; not in the cost of what is to be sent

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        found = self.summary
        return {
            "name": self.spec.name,
            "provider": self.spec.providers,
            "model": self.spec.models,
            **found.facts(),
            "upper_bound_usd": exact(found.bound),
            "expected_usd": exact(found.expected),
            "expected_list_price_usd": exact(found.expected_list),
            "cost_limit_usd": exact(limits_of(self.spec).run),
            "price_source": self.price_source,
            "limits": self.limits.to_json() if self.limits is not None else None,
            "recoverable_rows": self.recoverable,
            "open_batches": self.open_batches,
            "in_flight_usd": exact(self.in_flight.bound),
            "in_flight_expected_usd": exact(self.in_flight.expected),
            "pilot_failed": self.pilot_failed,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan for people, as (what, value)."""
        summary = self.summary
        rows = [
            ("Spec", f"{self.spec.name}: {self.spec.origin} → {self.spec.output}"),
            ("Source rows", f"{summary.source_rows:,}"),
        ]
        rows += [
            (f"  {REASONS[reason]}", f"{count:,}") for reason, count in summary.reasons.items()
        ]
        told = {
            "  up to date": summary.up_to_date,
            "  in flight": summary.in_flight,
            "  failed for good": summary.exhausted,
            "  not in rerun_on": summary.not_asked,
            "  left out by where": summary.filtered,
            "  left out for a null": summary.null_skipped,
            "  beyond limit": summary.over_limit,
            "  too large to send": summary.too_large,
            "  carried only": summary.carried,
            "  answered before": summary.recovered,
        }
        rows += [(what, f"{count:,}") for what, count in told.items() if count]
        least = (
            "" if self.limits is None or self.limits.fits else "at least "
        )  # a limit cuts batches
        amount = f"{pluralize(summary.requests, 'request')} in {least}{pluralize(summary.batches, 'batch')}"
        rows.append(("To send", f"{amount} to {self.spec.providers}, {self.spec.models}"))
        if self.spec.cache:
            text = "the system prompt is marked for an hour; input is reserved at the price of writing it"
            rows.append(("Cache", f"{text}; {CACHE_MINIMUM}"))
        if summary.pilot:
            rows.append(
                ("Pilot", f"{pluralize(summary.pilot, 'row')} first; the others only if it holds")
            )
        if self.pilot_failed:
            rows.append(
                (
                    "First",
                    "an earlier run's pilot did not hold: `run` sends nothing until the spec or its pilot is changed",
                )
            )
        if self.open_batches:
            text = f"under way: {pluralize(self.open_batches, 'batch')} of a run that is at work, or that stopped and is carried on first"
            rows.append(("First", text))
        return [*rows, *self._recovery(), *self._in_flight(), *self._cost()]

    def _recovery(self) -> list[tuple[str, str]]:
        again = "they are fetched again, nothing is sent for them"
        found = list[tuple[str, str]]()
        if self.summary.recovered:
            text = f"{pluralize(self.summary.recovered, 'row')} answered by earlier batches, whose files are gone: {again}"
            found.append(("Recovered", text))
        if self.recoverable:
            rows = f"up to {min(self.recoverable, self.summary.requests):,} of these requests are answered by earlier batches"
            found.append(
                (
                    "Recovered",
                    f"{rows}, whose files are gone: as far as the provider still has them, {again}",
                )
            )
        return found

    def _in_flight(self) -> list[tuple[str, str]]:
        sent = self.in_flight
        if not sent.batches:
            return []
        batches = f"{pluralize(sent.batches, 'batch')} sent before"
        if sent.bound is None:
            return [("In flight", f"{batches}, of unknown cost")]
        expected = "" if sent.expected is None else f"about {dollars(sent.expected)} expected, "
        return [
            ("In flight", f"{batches}: {expected}at most {dollars(sent.bound)}, which is reserved")
        ]

    def _cost(self) -> list[tuple[str, str]]:
        summary = self.summary
        rows = (
            [("Tokens", f"about {summary.input_tokens:,} in, {summary.output_tokens:,} out")]
            if summary.requests
            else []
        )
        if summary.bound is None:
            return [*rows, ("Cost", f"unknown: no batch price is known for {self.spec.models}")]
        more = " more than what is in flight" if self.in_flight.batches else ""
        bound = f"at most {dollars(summary.bound)}{more} (upper bound; prices: {self.price_source})"
        if not summary.requests:
            return [("Cost", bound)]
        listed = f"{dollars(summary.expected_list)} at list price, outside of a batch"
        rows += [
            (
                "Expected",
                f"about {dollars(summary.expected)} ({based_on(summary.calibrated_by)}); {listed}",
            ),
            ("Cost", bound),
        ]
        return rows if self.limits is None else [*rows, ("Limits", self.limits.text())]


def preview(spec: RunSpec, settings: Settings | None = None) -> Preview:
    """Plan without running: the same pass as a run makes, its files thrown away.

    Raises:
        InputError: what a run would refuse, in the same words.
    """
    settings = settings or Settings()
    ready = prepare_run(spec, settings)
    with (
        _ledger_of(settings) as ledger,
        tempfile.TemporaryDirectory(prefix="batchata-plan-") as scratch,
    ):
        if ledger is not None:
            correct_bounds(ledger, ready.table)
        dataset_id, ahead, flying = _known(ready, ledger)
        folder = Path(scratch) / "plan"
        planner = Planner(ready.table, folder, dataset_id, Options(), claimed=ahead.row_ids)
        spans, summary = planner.run(flying), planner.summary
        measured = measures(ledger, ready.table, spans, folder)
        spans = _after(spans, ahead.uncertain_rows)
        costs = forecast_costs(summary, spans, measured)
        limits = look_ahead(spec, ledger, spans, costs, summary)
        begun = [] if ledger is None else ledger.unfinished_chunks(dataset_id, "")
        dead = None if ledger is None else ledger.open_run(dataset_id)
        failed = (
            dead is not None
            and dead.result == RunResult.PILOT_FAILED
            and dead.spec_digest == ready.record["spec_digest"]
        )
        left = sum(
            chunk.state != ChunkState.HELD and chunk.id not in ahead.chunks for chunk in begun
        )
    return Preview(
        spec,
        summary,
        price_source(ready.table),
        limits,
        failed,
        left,
        ahead.uncertain_rows,
        in_flight(begun),
    )


@contextmanager
def _ledger_of(settings: Settings) -> Generator[Ledger | None, None, None]:
    """Open the ledger to look at it; None where no run has made it yet."""
    if not is_made(settings.ledger_url):
        yield None
        return
    ledger = Ledger(settings.ledger_url, as_it_is=True)
    try:
        yield ledger
    finally:
        ledger.close()


def _known(ready: PreparedRun, ledger: Ledger | None) -> tuple[str, Outlook, Iterable[bytes]]:
    """Return what is known of the dataset: its id, what a run would recover, the keys of rows at the provider."""
    folder = DatasetFolder(ready.spec.output)
    owner = folder.owner() if folder.own.exists() else None
    if owner is not None and (ledger is None or owner["ledger_id"] != ledger.id):
        raise another_ledgers(folder)
    dataset_id = (
        owner["dataset_id"]
        if owner is not None
        else ledger.known_dataset(folder.url)
        if ledger is not None
        else None
    )
    if dataset_id is None or ledger is None:
        return "preview", Outlook(), ()
    ahead = outlook(ledger, folder, dataset_id)
    return (
        dataset_id,
        ahead,
        in_flight_keys(folder, ledger, dataset_id, "", ready.spec.key, ahead.chunks),
    )


def _after(spans: list[PlannedChunk], rows: int) -> list[PlannedChunk]:
    """Return spans without so many of their rows, each row counted as the mean of its span."""
    left: list[PlannedChunk] = []
    for span in spans:
        count = span.stop - span.start
        gone = min(rows, count)
        rows -= gone
        if gone < count:
            share = span.bytes * (count - gone) // count, span.bound * (count - gone) // count
            left.append(
                replace(span, start=span.start + gone, bytes=share[0], bound=share[1])
                if gone
                else span
            )
    return left
