"""The receipt: what a run did, what it cost, how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.html import pairs_html, shortened
from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.ledger import MoneyInFlight, StopReason
from batchata_tasks.pipeline.receipt_money import in_flight_words
from batchata_tasks.pipeline.this_start import nothing, start_lines
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.ledger import OutcomeTotals


class RunResult(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    SOME_ROWS_FAILED = "some_rows_failed"
    COST_LIMIT_REACHED = "cost_limit_reached"
    TIME_LIMIT_REACHED = "time_limit_reached"
    CANCELLED = "cancelled"
    # after these the run stays open: started again as it is, it sends nothing …
    PILOT_FAILED = "pilot_failed"
    UNREADABLE_BATCH = StopReason.UNREADABLE_BATCH.value
    NO_USABLE_ANSWER = StopReason.NO_USABLE_ANSWER.value
    ACCOUNT_TROUBLE = StopReason.ACCOUNT_TROUBLE.value  # … but after this one it is carried on


STOPPED = (
    RunResult.PILOT_FAILED,
    RunResult.UNREADABLE_BATCH,
    RunResult.NO_USABLE_ANSWER,
    RunResult.ACCOUNT_TROUBLE,
)
"""Results that the receipt gives a reason for."""
_WHEN_SENT: dict[str, str] = {
    RunResult.PILOT_FAILED: ", until the spec or its pilot is changed",
    RunResult.UNREADABLE_BATCH: ", until somebody looks",
    RunResult.NO_USABLE_ANSWER: ", until somebody looks",
    RunResult.ACCOUNT_TROUBLE: "; the same command sends them once the account is mended",
}


EXIT_CODES = {
    RunResult.SUCCEEDED: 0,
    RunResult.SOME_ROWS_FAILED: 3,
    RunResult.COST_LIMIT_REACHED: 4,
    RunResult.TIME_LIMIT_REACHED: 5,
    RunResult.CANCELLED: 3,
    **dict.fromkeys(STOPPED, 1),
}

# from Anthropic's pages on prompt caching, which do not state it for every model
CACHE_MINIMUM = "a system prompt under 1,024 tokens (on some models 2,048 or 4,096) is not cached"
_REHEARSED = (
    "an emulator answered: answers and cost are made up, count for nothing, and a real endpoint is "
    "sent these rows again"
)
THIS_PERIOD = {"day": "today", "week": "this week", "month": "this month", "total": "in total"}

REASONS = {
    "new": "new",
    "input": "with a changed input",
    "prompt": "with a changed prompt",
    "model": "with a changed model or parameter",
    "schema": "with a changed response model",
    "failed": "that failed before",
    "refresh": "by --refresh",
    "rehearsed": "rehearsed",
}


@dataclass(frozen=True, repr=False)
class Receipt:
    """How a run ended. Money is in US dollars, as exact decimal text in JSON."""

    name: str
    run_id: str
    result: str
    exit_code: int
    dataset: str
    provider: str
    model: str
    continued: bool  # a dead run was carried on
    seconds: float
    plan: dict[str, Any]  # see PlanSummary; its money is below
    outcomes: dict[str, int]
    failed_share: float
    failed_above_limit: bool  # of `fail_if`
    batches: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_saved_usd: str | None  # against no caching; negative if it cost more
    cost_usd: str | None
    upper_bound_usd: str | None
    upper_bound_of_all_attempts_usd: str | None
    least_bound_usd: str | None  # of the cheapest planned row
    cost_limit_usd: str | None
    price_source: str | None
    unsent_rows: int
    rounds: int
    held_rows: int
    accepted_twice: int  # second batches, which nothing was to make
    expected_usd: str | None  # of all planned rows, as the plan said; null if unknown
    reserved_usd: str | None  # still set aside: of held and overdue batches
    superseded_usd: str | None  # what the rows had cost that these replaced
    overhead_usd: str | None  # paid for no row
    list_price_usd: str | None  # of the same answers outside of batches
    saved_usd: str | None
    cost_per_row_usd: str | None  # of the rows that ended, to the picodollar
    cost_by_outcome: dict[str, str | None]  # of all attempts that ended so
    cached_share: float | None  # of the input tokens
    waits: int  # times that the guard waited for money in flight
    rehearsal: bool = False  # an emulator answered
    reason: str | None = None  # of STOPPED: why, as a sentence
    budget: dict[str, Any] | None = None  # see `budget_facts`
    deleted_files: int = 0  # of requests and answers, for their age (`retention`)
    this_start: dict[str, Any] | None = None  # see `this_start.py`
    errors: dict[str, int] = field(default_factory=dict[str, int])
    warnings: list[str] = field(default_factory=list[str])

    def __repr__(self) -> str:
        lines = [f"  {label}: {printable(shortened(text))}" for label, text in self.lines()]
        return "\n".join([f"Receipt of {self.name}", *lines])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return pairs_html([("Receipt of", self.name), *self.lines()])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return the receipt for people, as (what, value)."""
        return [
            ("Result", self._result()),
            *([("Reason", self.reason)] if self.reason is not None else []),
            *([("Rehearsal", _REHEARSED)] if self.rehearsal and self.batches else []),
            *start_lines(self.this_start, continued=self.continued),
            ("Source rows", self._source_rows()),
            *self._left_out(),
            ("Outcomes", _counts(self.outcomes) or self._nothing()),
            ("Batches", self._batches()),
            ("Tokens", self._tokens()),
            *self._cache(),
            ("Cost", self._cost()),
            *self._money(),
            ("Time", self._time()),
            ("Dataset", self.dataset),
            *self._deleted(),
            *self._unsent(),
            *(("Error", f"{count:,} x {text}") for text, count in self.errors.items()),
            *(("Warning", text) for text in self.warnings),
        ]

    @property
    def result_in_words(self) -> str:
        """How it ended; held rows have not failed."""
        failed = any(name != Outcome.SUCCEEDED for name in self.outcomes) or self.plan["exhausted"]
        held, twice = bool(self.held_rows), bool(self.accepted_twice)
        return worded(self.result, failed=bool(failed), held=held, twice=twice)

    def _result(self) -> str:
        text = self.result_in_words
        if self.failed_above_limit:
            text += f": {self.failed_share:.1%} is above `fail_if`"
        if self.continued and self.result not in STOPPED:
            text += " (an unfinished run was carried on)"
        return text

    def _nothing(self) -> str:
        return nothing(self.this_start, batches=self.batches, held_rows=self.held_rows)

    def _time(self) -> str:
        whole = f"{self.seconds:.1f} s"
        if self.this_start is None or not self.continued:
            return whole
        return f"{self.this_start['seconds']:.1f} s; since the run began {whole}"

    def _source_rows(self) -> str:
        plan = self.plan
        work = _counts({REASONS[reason]: count for reason, count in plan["reasons"].items()})
        up_to_date = f"{plan['up_to_date']:,} up to date"
        return f"{plan['source_rows']:,}: {up_to_date}; to do: {work or 'none'}"

    def _left_out(self) -> list[tuple[str, str]]:
        plan = self.plan
        counts = {
            "left out by `where`": plan["filtered"],
            "left out for a null": plan["null_skipped"],
            "beyond `limit`": plan["over_limit"],
            "failed for good or out of attempts": plan["exhausted"],
            "changed, but not in `rerun_on`": plan["not_asked"],
            "still in flight or held": plan["in_flight"],
            "too large to send": plan["too_large"],
            "with a document that cannot be sent": plan.get("bad_documents", 0),
            "up to date, with a document that is gone": plan.get("gone_documents", 0),
            "with new values in carried columns": plan["carried"],
            "recovered from earlier batches": plan["recovered"],
            "no longer in the source: marked": plan["marked"],
            "no longer in the source: deleted": plan["deleted"],
            "no longer in the source: kept": plan["kept_missing"],
            "in the source again: marked no more": plan["returned"],
        }
        text = _counts({what: count for what, count in counts.items() if count})
        return [("Also", text)] if text else []

    def _batches(self) -> str:
        text = f"{self.batches} of {self.provider}, {self.model}"
        if self.this_start is not None and (unclear := self.this_start["unclear_batches"]):
            text += f"; {unclear} more, of which nobody knows whether it was accepted"
        return f"{text}, in {self.rounds} rounds" if self.rounds > 1 else text

    def _tokens(self) -> str:
        cached = f"{self.cache_read_tokens:,} cached"
        return f"{self.input_tokens:,} in ({cached}), {self.output_tokens:,} out"

    def _cache(self) -> list[tuple[str, str]]:
        if not (self.cache_read_tokens or self.cache_write_tokens):
            return []
        read = self.cache_read_tokens / self.input_tokens
        written = self.cache_write_tokens / self.input_tokens
        text = f"{read:.0%} of the input was read from the cache, {written:.0%} written"
        if self.cache_saved_usd is not None:
            saved = pico_from_usd(self.cache_saved_usd)
            if saved >= 0:
                text += f"; saved {dollars(saved)} against no caching"
            else:
                text += f"; cost {dollars(-saved)} more than no caching"
        return [("Cache", text)]

    @property
    def cost_in_words(self) -> str:
        """What the run spent, against its own limit."""
        if self.cost_usd is None:
            return f"unknown: no batch price is known for {self.model}"
        spent = _read(self.cost_usd)
        if self.cost_limit_usd is not None:
            spent += f" of the limit of {_read(self.cost_limit_usd)}"
        return spent

    def _cost(self) -> str:
        spent = self.cost_in_words
        if self.cost_usd is None or not self.plan["requests"]:
            return spent
        bound = f"upper bound of one attempt each {_read(self.upper_bound_usd)}"
        if self.upper_bound_of_all_attempts_usd not in (None, self.upper_bound_usd):
            bound += f", of all {_read(self.upper_bound_of_all_attempts_usd)}"
        return f"{spent} ({bound}; prices: {self.price_source})"

    def _money(self) -> list[tuple[str, str]]:
        rows = list[tuple[str, str]]()
        if self.expected_usd is not None and self.batches:
            text = _read(self.expected_usd)
            rows.append(("Expected", f"{text} for all rows" if self.unsent_rows else text))
        if pico_from_usd(self.saved_usd or 0) > 0:
            saved, list_price = _read(self.saved_usd), _read(self.list_price_usd)
            rows.append(("Saved", f"{saved} against the list price of {list_price}"))
        if pico_from_usd(self.reserved_usd or 0):
            reserved = f"{_read(self.reserved_usd)} for batches whose end is not known"
            rows.append(("Reserved", reserved))
        if (budget := self.budget) is not None:
            spent, limit = _read(budget["spent_usd"]), _read(budget["limit_usd"])
            text = f"{budget['name']}: {spent} of {limit} spent {THIS_PERIOD[budget['period']]}"
            if pico_from_usd(budget["in_flight_usd"]):
                text += f", {_read(budget['in_flight_usd'])} in flight"
            rows.append(("Budget", text))
        return rows

    @property
    def limit_in_words(self) -> str:
        """The limit that stopped the run, as the rest of a sentence; empty if none did."""
        if self.result == RunResult.TIME_LIMIT_REACHED:
            return ": the time limit was reached"
        if self.result != RunResult.COST_LIMIT_REACHED:
            return ""
        if self._budget_binds and self.budget is not None:
            limit = f"{_read(self.budget['limit_usd'])} {THIS_PERIOD[self.budget['period']]}"
            return f" within the budget {self.budget['name']} ({limit})"
        return f" within the limit of {_read(self.cost_limit_usd)}"

    @property
    def _budget_binds(self) -> bool:
        """Whether of a run's limits the budget is the one that is used up."""
        budget, limit = self.budget, self.cost_limit_usd
        if budget is None or limit is None:
            return budget is not None
        used = sum(pico_from_usd(amount or 0) for amount in (self.cost_usd, self.reserved_usd))
        return pico_from_usd(budget["left_usd"]) <= pico_from_usd(limit) - used

    def _deleted(self) -> list[tuple[str, str]]:
        files = pluralize(self.deleted_files, "file")
        text = f"{files} of requests and answers, older than `retention`"
        return [("Deleted", text)] if self.deleted_files else []

    def _unsent(self) -> list[tuple[str, str]]:
        if not self.unsent_rows:
            return []
        return [("Not sent", f"{pluralize(self.unsent_rows, 'row')}{self._why_unsent()}")]

    def _why_unsent(self) -> str:
        if self.result != RunResult.COST_LIMIT_REACHED:
            return _WHEN_SENT.get(self.result, f"; {self._later()}")
        if (others := self._in_flight_of_others()) is not None:
            return (
                f": the budget leaves too little for now. {in_flight_words(others)}: run it again "
                "then, or raise the limit"
            )
        if self.least_bound_usd is not None and not self.batches:
            return (
                ": the limit leaves too little for any of them: the cheapest may cost "
                f"{_read(self.least_bound_usd)}. Raise the limit, or lower `max_tokens`"
            )
        reason = "leaves too little for what the smallest batch of them (1 % of the rows) may cost"
        if self._budget_binds and self.budget is not None:
            return (
                f": the budget {self.budget['name']} {reason}; a run takes them when it leaves more"
            )
        return f": the limit {reason}; {self._later()}"

    def _in_flight_of_others(self) -> MoneyInFlight | None:
        """Return what others have in flight, if with it the budget may be enough for a row."""
        budget = self.budget
        if budget is None or not self._budget_binds or not budget["batches_of_others"]:
            return None
        left, reserved, back = (
            pico_from_usd(budget[name])
            for name in ("left_usd", "reserved_by_others_usd", "expected_back_usd")
        )
        if left + back < pico_from_usd(self.least_bound_usd or 0):
            return None
        return MoneyInFlight(budget["batches_of_others"], reserved, back)

    def _later(self) -> str:
        if not self.plan["reasons"].get("refresh"):
            return "the next run takes them"
        return (
            "the next run takes those that are new or changed; the others keep their answers, and "
            "the next `--refresh` of the spec goes on with them"
        )


def worded(result: str, *, failed: bool, held: bool, twice: bool = False) -> str:
    """Return a result in words; rows that are held have not failed, nor those that were given up.

    Of `some_rows_failed`, `failed` says whether a row did, `held` whether one is held, and `twice`
    whether the provider accepted a batch twice.
    """
    if result != RunResult.SOME_ROWS_FAILED or failed:
        return result.replace("_", " ")
    if twice and not held:
        return "a batch was accepted twice"
    return "some rows are held" if held else "some rows were given up"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _read(amount: str | None) -> str:
    return dollars(None if amount is None else pico_from_usd(amount))


def rows_by_outcome(totals: Mapping[str, OutcomeTotals]) -> dict[str, int]:
    """Return the number of rows per outcome; outcomes without rows are left out."""
    return {name: totals[name].rows for name in sorted(totals) if totals[name].rows}
