"""A plan that is only shown: its counts and costs, as JSON and in words for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from batchata_tasks.common.html import pairs_html, shortened
from batchata_tasks.common.money import dollars, exact
from batchata_tasks.common.text import minute, pluralize, printable
from batchata_tasks.pipeline.lost import InFlight
from batchata_tasks.pipeline.receipt import CACHE_MINIMUM, REASONS, RunResult
from batchata_tasks.pipeline.ways import (
    changed_words,
    code_changed_words,
    grade_changed_words,
    kept_by,
    renamed_by,
)
from batchata_tasks.planning.estimate import based_on
from batchata_tasks.planning.limits import limits_of

if TYPE_CHECKING:
    from batchata_tasks.pipeline.forecast import LimitsAhead
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.reports.sample import Sample
    from batchata_tasks.spec.run import RunSpec

STOPPED_FIRST: dict[str, str] = {
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


class Stands(StrEnum):
    """How an open run stands: the sentence about its batches, after their number."""

    AT_WORK = "of a run that is at work at this moment, and lands them"
    SUSPENDED = (
        "of a run that is suspended until they have ended, and is resumed then; `run` goes on with "
        "it now"
    )
    STOPPED = "of a run that stopped; `run` carries it on, and lands them first"


class PilotSent(NamedTuple):
    """The pilot of a run that is carried on: no second one is sent."""

    rows: int
    in_flight: bool


@dataclass(frozen=True)
class Preview:
    """A plan that is only shown."""

    spec: RunSpec
    summary: PlanSummary
    price_source: str | None
    limits: LimitsAhead | None = None
    queues: tuple[str, ...] = ()  # sentences on what waits for room in a provider's queue
    # how an earlier run of this very spec stopped, so that a run would send nothing
    stopped: str | None = None
    in_the_way: tuple[str, ...] = ()  # what a run would end with before it sends anything
    valid_by_now: int = 0  # rows whose kept answers today's response model takes, though not before
    # the other way round, of all rows; None if the dataset's answers were not read
    no_longer_valid: int | None = None
    model_changed: bool = False  # the code of the response model, since answers were checked by it
    grade_changed: bool = False  # `min_grade`, likewise
    grade_lowered: bool = False
    cancel_asked: bool = False  # of an earlier run, and not done: the next run carries it out
    open_batches: int = 0  # of an earlier run; a run lands them first
    stands: Stands = Stands.STOPPED  # that run
    pilot_sent: PilotSent | None = None  # by that run
    # rows in files that were lost; how many requests of the plan they answer is not known before
    # the provider is asked
    recoverable: int = 0
    still_open: int = 0  # of these rows, those whose batches have not landed yet
    in_flight: InFlight = field(default_factory=InFlight)  # of earlier runs; not in the plan's cost
    held: InFlight = field(default_factory=InFlight)  # set aside: a part of what is in flight
    held_since: float | None = None  # when the oldest of these was sent, in seconds since 1970
    notes: tuple[str, ...] = ()  # on what is likely to be a mistake
    sample: Sample | None = None  # requests as they would be sent, if any were asked for

    def __repr__(self) -> str:
        lines = [f"  {label.strip()}: {printable(shortened(text))}" for label, text in self.lines()]
        return "\n".join([f"Plan of {self.spec.name}", *lines])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return pairs_html([("Plan of", self.spec.name), *self.lines()])

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
            "upper_bound_of_all_attempts_usd": exact(summary.most),
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
            "in_the_way": list(self.in_the_way),
            "valid_by_now": self.valid_by_now,
            "no_longer_valid": self.no_longer_valid,
            "model_changed": self.model_changed,
            "grade_changed": self.grade_changed,
            "cancel_asked": self.cancel_asked,
            "queues": list(self.queues),
            "notes": list(self.notes),
            "sample": None if self.sample is None else self.sample.to_json(),
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan for people, as (label, value)."""
        return [
            *self._rows(),
            *self._sending(),
            *self._recovery(),
            *self._in_flight(),
            *self._sent_again(),
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
            "  with a document that cannot be sent": summary.bad_documents,
            "  up to date, their document gone": summary.gone_documents,
            "  carried only": summary.carried,
            "  sent before": summary.recovered,
            "  not in the source any more, kept": summary.kept_missing,
            "  to be marked": summary.marked,
            "  to be deleted": summary.deleted,
            "  back again": summary.returned,
        }
        lines += [(label, f"{count:,}") for label, count in others.items() if count]
        if summary.retired:
            names = ", ".join(summary.retired)
            lines.append(("Kept", f"no longer in `columns`: {names}; rows keep what they have"))
        if summary.renamed:
            lines.append(("Renamed", renamed_by(self.spec, summary.renamed)))
        if self.grade_changed:
            lines.append(("Answers", grade_changed_words(self.spec, lowered=self.grade_lowered)))
        if self.model_changed:
            taken, refused = self.valid_by_now, self.no_longer_valid or 0
            lines.append(("Answers", code_changed_words(self.spec, taken, refused)))
        elif self.valid_by_now:
            rows = pluralize(self.valid_by_now, "row has", "rows have")
            how = f"{kept_by(self.spec)} keeps such answers for free"
            text = f"{rows} an answer that today's response model takes: {how}"
            lines.append(("Answers", text))
        if (text := summary.textless_text()) is not None:
            lines.append(("Citations", text))
        return lines + [("Answers", text) for text in summary.misfit_texts()]

    def _sending(self) -> list[tuple[str, str]]:
        summary = self.summary
        is_split = self.limits is not None and not self.limits.fits
        batches = f"{'at least ' if is_split else ''}{pluralize(summary.batches, 'batch')}"
        requests = f"{pluralize(summary.requests, 'request')} in {batches}"
        lines = [("To send", f"{requests} to {self.spec.providers}, {self.spec.models}")]
        lines += [("Queue", text) for text in self.queues]
        lines += [("Note", text) for text in self.notes]
        if self.spec.cache:
            text = (
                "the system prompt is marked for an hour; input is reserved at the price of "
                f"writing it; {CACHE_MINIMUM}"
            )
            lines.append(("Cache", text))
        if summary.pilot:
            rows = pluralize(summary.pilot, "row")
            text = f"{rows} first; the others only if it holds"
            if self.spec.pilot is None:
                text += " (no cost is limited; `pilot: false` sends all at once)"
            lines.append(("Pilot", text))
        if self.pilot_sent is not None and self.pilot_sent.in_flight and summary.requests:
            rows = pluralize(self.pilot_sent.rows, "row is", "rows are")
            lines.append(("Pilot", f"its {rows} in flight; the others are sent only if it holds"))
        if self.stopped is not None:
            lines.append(("First", STOPPED_FIRST[self.stopped]))
        lines += [("First", text) for text in self.in_the_way]
        if self.cancel_asked:
            text = (
                "a cancel of an earlier run was asked for, and is not done: `run` carries it out "
                "first; it then sends nothing unless the spec was changed, and the next one goes on"
            )
            lines.append(("First", text))
        elif self.open_batches:
            batches = pluralize(self.open_batches, "batch")
            lines.append(("First", f"under way: {batches} {self.stands}"))
        return lines

    def _recovery(self) -> list[tuple[str, str]]:
        again = "they are fetched again, nothing is sent for them"
        lines = list[tuple[str, str]]()
        if self.summary.recovered:
            rows = pluralize(self.summary.recovered, "row")
            text = f"{rows} sent in earlier batches, whose files are gone: {again}"
            lines.append(("Recovered", text))
        if answered := min(self.recoverable - self.still_open, self.summary.requests):
            text = (
                f"up to {answered:,} of these requests are answered by earlier batches, whose "
                f"files are gone: as far as the provider still has them, {again}"
            )
            lines.append(("Recovered", text))
        if still_open := min(self.still_open, self.summary.requests):
            text = (
                f"up to {still_open:,} of these requests are in earlier batches that have not "
                "landed yet, and whose files are gone: their answers are fetched when they are "
                "there, nothing is sent for them"
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

    def _sent_again(self) -> list[tuple[str, str]]:
        rows = self.summary.asked_anew
        if not rows:
            return []
        are = pluralize(rows, "of the requests is", "of the requests are")
        text = (
            f"{are} for rows that are in flight: {changed_words(self.summary)} since they were "
            "sent. Their answers land first, and are paid for as well; undo the change before the "
            "next run to keep them"
        )
        return [("Sent again", text)]

    def _held(self) -> list[tuple[str, str]]:
        if not self.held.batches:
            return []
        when = "" if self.held_since is None else f", the oldest sent {minute(self.held_since)}"
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
        attempts = "upper bound"
        if summary.further:
            most = f"with all attempts, if answers are cut off or invalid, {dollars(summary.most)}"
            attempts = f"upper bound of one attempt each; {most}"
        bound = f"at most {dollars(summary.bound)}{more} ({attempts}; prices: {self.price_source})"
        if not summary.requests:
            return [("Cost", bound)]
        expected = f"about {dollars(summary.expected)} ({based_on(summary.calibrated_by)})"
        listed = f"{dollars(summary.expected_list)} at list price, outside of a batch"
        lines += [("Expected", f"{expected}; {listed}"), ("Cost", bound)]
        return lines if self.limits is None else [*lines, ("Limits", self.limits.text())]
