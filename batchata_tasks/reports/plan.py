"""`batchata plan`: what a run would send, cost, and hit as limits. Sends and spends nothing."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import another_ledgers, find_dataset
from batchata_tasks.ledger import SET_ASIDE, ledger_exists, opened_ledger
from batchata_tasks.pipeline.lost import InFlight, LostRows, in_flight, lost_rows
from batchata_tasks.pipeline.receipt import CACHE_MINIMUM, REASONS, RunResult
from batchata_tasks.pipeline.start import correct_bounds, in_flight_keys, price_source
from batchata_tasks.planning.estimate import based_on, forecast_costs, measures
from batchata_tasks.planning.limits import limits_of
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.reports.forecast import look_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.reports.forecast import LimitsAhead
    from batchata_tasks.spec.run import RunSpec


_FIRST: dict[str, str] = {
    RunResult.PILOT_FAILED: (
        "an earlier run's pilot did not hold: `run` sends nothing until the spec or its pilot is "
        "changed"
    ),
    RunResult.UNREADABLE_BATCH: (
        "no line of an earlier run's batch could be read: `run` sends nothing until the spec is "
        "changed, or `--retry-failed` is given"
    ),
    RunResult.NO_USABLE_ANSWER: (
        "no row of an earlier run had a usable answer: `run` sends nothing until the spec is "
        "changed, or `--retry-failed` is given"
    ),
}
"""What is to be done first, by how an earlier run stopped."""


@dataclass(frozen=True)
class Preview:
    """A plan that is only shown."""

    spec: RunSpec
    summary: PlanSummary
    price_source: str | None
    limits: LimitsAhead | None = None
    # how an earlier run of this very spec stopped, so that a run would send nothing
    stopped: str | None = None
    open_batches: int = 0  # of an earlier run; a run lands them first
    # rows in files that were lost; how many requests of the plan they answer is not known before
    # the provider is asked
    recoverable: int = 0
    in_flight: InFlight = field(default_factory=InFlight)  # of earlier runs; not in the plan's cost
    held: InFlight = field(default_factory=InFlight)  # set aside: a part of what is in flight
    held_since: float | None = None  # when the oldest of these was sent, in seconds since 1970

    @property
    def pilot_failed(self) -> bool:
        """Whether the pilot of an earlier run of this very spec did not hold."""
        return self.stopped == RunResult.PILOT_FAILED

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        summary = self.summary
        return {
            "name": self.spec.name,
            "provider": self.spec.providers,
            "model": self.spec.models,
            **summary.facts(),
            "upper_bound_usd": exact(summary.bound),
            "expected_usd": exact(summary.expected),
            "expected_list_price_usd": exact(summary.expected_list),
            "cost_limit_usd": exact(limits_of(self.spec).run),
            "price_source": self.price_source,
            "limits": self.limits.to_json() if self.limits is not None else None,
            "recoverable_rows": self.recoverable,
            "open_batches": self.open_batches,
            "in_flight_usd": exact(self.in_flight.bound),
            "in_flight_expected_usd": exact(self.in_flight.expected),
            "held_batches": self.held.batches,
            "held_usd": exact(self.held.bound),
            "pilot_failed": self.pilot_failed,
            "stopped": self.stopped,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan for people, as (label, value)."""
        return [
            *self._rows(),
            *self._sending(),
            *self._recovery(),
            *self._in_flight(),
            *self._held(),
            *self._cost(),
        ]

    def _rows(self) -> list[tuple[str, str]]:
        summary = self.summary
        lines = [
            ("Spec", f"{self.spec.name}: {self.spec.origin} → {self.spec.output}"),
            ("Source rows", f"{summary.source_rows:,}"),
        ]
        lines += [
            (f"  {REASONS[reason]}", f"{count:,}") for reason, count in summary.reasons.items()
        ]
        others = {
            "  up to date": summary.up_to_date,
            "  in flight": summary.in_flight - summary.held,
            "  held": summary.held,
            "  failed for good": summary.exhausted,
            "  not in rerun_on": summary.not_asked,
            "  left out by where": summary.filtered,
            "  left out for a null": summary.null_skipped,
            "  beyond limit": summary.over_limit,
            "  too large to send": summary.too_large,
            "  carried only": summary.carried,
            "  answered before": summary.recovered,
        }
        return [*lines, *((label, f"{count:,}") for label, count in others.items() if count)]

    def _sending(self) -> list[tuple[str, str]]:
        summary = self.summary
        is_split = self.limits is not None and not self.limits.fits
        batches = f"{'at least ' if is_split else ''}{pluralize(summary.batches, 'batch')}"
        requests = f"{pluralize(summary.requests, 'request')} in {batches}"
        lines = [("To send", f"{requests} to {self.spec.providers}, {self.spec.models}")]
        if self.spec.cache:
            text = (
                "the system prompt is marked for an hour; input is reserved at the price of "
                f"writing it; {CACHE_MINIMUM}"
            )
            lines.append(("Cache", text))
        if summary.pilot:
            rows = pluralize(summary.pilot, "row")
            lines.append(("Pilot", f"{rows} first; the others only if it holds"))
        if self.stopped is not None:
            lines.append(("First", _FIRST[self.stopped]))
        if self.open_batches:
            text = (
                f"under way: {pluralize(self.open_batches, 'batch')} of a run that is at work, or "
                "that stopped and is carried on first"
            )
            lines.append(("First", text))
        return lines

    def _recovery(self) -> list[tuple[str, str]]:
        again = "they are fetched again, nothing is sent for them"
        lines = list[tuple[str, str]]()
        if self.summary.recovered:
            rows = pluralize(self.summary.recovered, "row")
            text = f"{rows} answered by earlier batches, whose files are gone: {again}"
            lines.append(("Recovered", text))
        if self.recoverable:
            count = min(self.recoverable, self.summary.requests)
            text = (
                f"up to {count:,} of these requests are answered by earlier batches, whose files "
                f"are gone: as far as the provider still has them, {again}"
            )
            lines.append(("Recovered", text))
        return lines

    def _in_flight(self) -> list[tuple[str, str]]:
        sent = self.in_flight.without(self.held)
        if not sent.batches:
            return []
        batches = f"{pluralize(sent.batches, 'batch')} sent before"
        if sent.bound is None:
            return [("In flight", f"{batches}, of unknown cost")]
        expected = "" if sent.expected is None else f"about {dollars(sent.expected)} expected, "
        reserved = f"at most {dollars(sent.bound)}, which is reserved"
        return [("In flight", f"{batches}: {expected}{reserved}")]

    def _held(self) -> list[tuple[str, str]]:
        if not self.held.batches:
            return []
        when = "" if self.held_since is None else f", the oldest sent {_minute(self.held_since)}"
        cost = "of unknown cost"
        if self.held.bound is not None:
            cost = f"at most {dollars(self.held.bound)}, which stays reserved"
        batches = pluralize(self.held.batches, "batch")
        text = (
            f"the rows of {batches}{when}: {cost}. No run sends them again by itself: "
            "`batchata reconcile` says why, and how to decide"
        )
        return [("Held", text)]

    def _cost(self) -> list[tuple[str, str]]:
        summary = self.summary
        lines = list[tuple[str, str]]()
        if summary.requests:
            tokens = f"about {summary.input_tokens:,} in, {summary.output_tokens:,} out"
            lines.append(("Tokens", tokens))
        if summary.bound is None:
            return [*lines, ("Cost", f"unknown: no batch price is known for {self.spec.models}")]
        more = ""
        if self.in_flight.batches:
            what = "held" if self.in_flight.batches == self.held.batches else "in flight"
            more = f" more than what is {what}"
        bound = f"at most {dollars(summary.bound)}{more} (upper bound; prices: {self.price_source})"
        if not summary.requests:
            return [("Cost", bound)]
        expected = f"about {dollars(summary.expected)} ({based_on(summary.calibrated_by)})"
        listed = f"{dollars(summary.expected_list)} at list price, outside of a batch"
        lines += [("Expected", f"{expected}; {listed}"), ("Cost", bound)]
        return lines if self.limits is None else [*lines, ("Limits", self.limits.text())]


def preview(spec: RunSpec, settings: Settings) -> Preview:
    """Plan without running: the same pass as a run makes, its files thrown away.

    Raises:
        InputError: what a run would refuse, in the same words.
    """
    ready = prepare_run(spec, settings)
    with ExitStack() as stack:
        stack.callback(ready.close)
        ledger = None
        if ledger_exists(settings.ledger_url):
            ledger = stack.enter_context(opened_ledger(settings.ledger_url, read_only=True))
            correct_bounds(ledger, ready.table)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchata-plan-"))
        folder = Path(scratch) / "plan"
        dataset_id, ahead, sent_keys = _look_at_dataset(ready, ledger)
        planner = Planner(ready.table, folder, dataset_id, Options(), claimed=ahead.row_ids)
        chunks, summary = planner.run(sent_keys), planner.summary
        usage = measures(ledger, ready.table, chunks, folder)
        chunks = _without_rows(chunks, ahead.uncertain_rows)
        costs = forecast_costs(summary, chunks, usage)
        limits = look_ahead(spec, ledger, chunks, costs, summary)
        unfinished = [] if ledger is None else ledger.unfinished_chunks(dataset_id, "")
        held = [chunk for chunk in unfinished if chunk.state in SET_ASIDE]
        open_run = None if ledger is None else ledger.open_run(dataset_id)
    return Preview(
        spec=spec,
        summary=summary,
        price_source=price_source(ready.table),
        limits=limits,
        stopped=open_run.result
        if open_run is not None
        and open_run.result in _FIRST
        and open_run.spec_digest == ready.record["spec_digest"]
        else None,
        open_batches=sum(
            chunk.state not in SET_ASIDE and chunk.id not in ahead.chunks for chunk in unfinished
        ),
        recoverable=ahead.uncertain_rows,
        in_flight=in_flight(unfinished),
        held=in_flight(held),
        held_since=None if ledger is None else _sent_first(ledger, held),
    )


def _look_at_dataset(
    ready: PreparedRun, ledger: Ledger | None
) -> tuple[str, LostRows, Iterable[tuple[bytes, bool]]]:
    """Return a dataset's id, what a run would recover, and the keys of rows at the provider."""
    folder = DatasetFolder(ready.spec.output)
    owner = folder.owner()
    if owner is not None and (ledger is None or owner["ledger_id"] != ledger.id):
        raise another_ledgers(folder)
    dataset_id = None if ledger is None else find_dataset(folder, ledger)
    if dataset_id is None or ledger is None:
        return "preview", LostRows(), ()
    ahead = lost_rows(ledger, folder, dataset_id)
    check = ready.table.dataset.check_key
    sent_keys = in_flight_keys(folder, ledger, dataset_id, "", ready.spec.key, ahead.chunks, check)
    return dataset_id, ahead, sent_keys


def _sent_first(ledger: Ledger, chunks: Iterable[Chunk]) -> float | None:
    """Return when the oldest of some chunks was sent, in seconds since 1970."""
    times = [
        ledger.intent(chunk.id).sent_at
        if chunk.batch_id is None
        else ledger.submitted_at(chunk.batch_id)
        for chunk in chunks
    ]
    return min((moment / 1e6 for moment in times if moment is not None), default=None)


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _without_rows(chunks: list[PlannedChunk], rows: int) -> list[PlannedChunk]:
    """Return chunks without their first `rows` rows, each counted as the mean of its chunk."""
    remaining: list[PlannedChunk] = []
    for chunk in chunks:
        count = chunk.stop - chunk.start
        removed = min(rows, count)
        rows -= removed
        if removed == count:
            continue
        size = chunk.bytes * (count - removed) // count
        bound = chunk.bound * (count - removed) // count
        start = chunk.start + removed
        remaining.append(replace(chunk, start=start, bytes=size, bound=bound))
    return remaining
