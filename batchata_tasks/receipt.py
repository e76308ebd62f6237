"""The receipt: what a run did, what it cost, how it ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from batchata_tasks.cleanup import discard_left_results, discard_uploads
from batchata_tasks.guards import OVER_BOUND
from batchata_tasks.jobs import Outcome
from batchata_tasks.land import commit_of
from batchata_tasks.ledger import DROPPED, HELD, LANDED, PLANNED, now_us
from batchata_tasks.money import dollars, pico_from_usd, usd
from batchata_tasks.receipt_money import budget_facts, money_facts
from batchata_tasks.session import CANCEL, TIME_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.ledger import Chunk, Tally
    from batchata_tasks.pricing import Rates
    from batchata_tasks.session import Session

SUCCEEDED, SOME_ROWS_FAILED, COST_LIMIT_REACHED = "succeeded", "some_rows_failed", "cost_limit_reached"
TIME_LIMIT_REACHED, CANCELLED = "time_limit_reached", "cancelled"
EXIT_CODES = {SUCCEEDED: 0, SOME_ROWS_FAILED: 3, COST_LIMIT_REACHED: 4, TIME_LIMIT_REACHED: 5, CANCELLED: 3}
_STOPPED = {TIME_LIMIT: TIME_LIMIT_REACHED, CANCEL: CANCELLED, OVER_BOUND: COST_LIMIT_REACHED}

# by Anthropic's pages on prompt caching; which model has which is not stated for all of them
CACHE_MINIMUM = "a system prompt under 1,024 tokens (on some models 2,048 or 4,096) is not cached"
THIS_PERIOD = {"day": "today", "week": "this week", "month": "this month", "total": "in total"}

REASONS = {
    "new": "new", "input": "with a changed input", "prompt": "with a changed prompt",
    "model": "with a changed model or parameter", "schema": "with a changed response model",
    "failed": "that failed before", "refresh": "by --refresh",
}


@dataclass(frozen=True)
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
    plan: dict[str, Any]  # see PlanSummary
    outcomes: dict[str, int]
    failed_share: float
    failed_above_limit: bool  # of `fail_if`
    batches: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_read_share: float | None  # of the input tokens; None where a cache had no part in them
    cache_saved_usd: str | None  # against no caching; negative where it cost more
    cost_usd: str | None
    upper_bound_usd: str | None
    cost_limit_usd: str | None
    price_source: str | None
    unsent_rows: int
    rounds: int
    held_rows: int
    expected_usd: str | None  # of the batches that were sent; null where nobody can tell
    reserved_usd: str | None  # still set aside: of held batches
    superseded_usd: str | None  # what the rows had cost that these replaced
    overhead_usd: str | None  # paid for no row
    list_price_usd: str | None  # of the same answers outside of batches
    saved_usd: str | None
    cost_per_row_usd: str | None  # of the rows that ended, to the picodollar
    cost_by_outcome: dict[str, str | None]  # of all attempts that ended so
    cached_share: float | None  # of the input tokens
    waits: int  # times that the guard waited for money in flight
    budget: dict[str, Any] | None = None  # name, period, limit_usd, spent_usd, in_flight_usd
    errors: dict[str, int] = field(default_factory=dict[str, int])
    warnings: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return the receipt for people, as (what, value)."""
        plan = self.plan
        work = ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in plan["reasons"].items()) or "none"
        rows = [
            ("Result", self._result()),
            ("Source rows", f"{plan['source_rows']:,}: {plan['up_to_date']:,} up to date; to do: {work}"),
            ("Outcomes", ", ".join(f"{count:,} {name}" for name, count in self.outcomes.items()) or "nothing was sent"),
            ("Batches", f"{self.batches} of {self.provider}, {self.model}" + (f", in {self.rounds} rounds" if self.rounds > 1 else "")),
            ("Tokens", f"{self.input_tokens:,} in ({self.cache_read_tokens:,} cached), {self.output_tokens:,} out"),
            *self._cache(),
            ("Cost", self._cost()),
            *self._money(),
            ("Time", f"{self.seconds:.1f} s"),
            ("Dataset", self.dataset),
        ]
        left_out = {
            "left out by `where`": plan["filtered"], "left out for a null": plan["null_skipped"],
            "beyond `limit`": plan["over_limit"], "failed for good or out of attempts": plan["exhausted"],
            "changed, but not in `rerun_on`": plan["not_asked"], "still in flight": plan["in_flight"],
            "too large to send": plan["too_large"], "carried columns rewritten": plan["carried"],
            "recovered from earlier batches": plan["recovered"],
        }
        if noted := ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count):
            rows.insert(2, ("Also", noted))
        if self.unsent_rows:
            rows.append(("Not sent", f"{self.unsent_rows:,} rows; the next run takes them"))
        rows += [("Error", f"{count:,} x {text}") for text, count in self.errors.items()]
        return rows + [("Warning", text) for text in self.warnings]

    def _result(self) -> str:
        text = self.result.replace("_", " ")
        if self.failed_above_limit:
            text += f": {self.failed_share:.1%} is above `fail_if`"
        return text + (" (an earlier run that died was carried on)" if self.continued else "")

    def _cache(self) -> list[tuple[str, str]]:
        if self.cache_read_share is None:
            return []
        written = self.cache_write_tokens / self.input_tokens
        text = f"{self.cache_read_share:.0%} of the input was read from the cache, {written:.0%} written"
        if self.cache_saved_usd is not None:
            saved = pico_from_usd(self.cache_saved_usd)
            text += f"; saved {dollars(saved)} against no caching" if saved >= 0 else f"; cost {dollars(-saved)} more than no caching"
        return [("Cache", text)]

    def _cost(self) -> str:
        if self.cost_usd is None:
            return f"unknown: no batch price is known for {self.model}"
        spent = f"${Decimal(self.cost_usd).normalize():f}"
        if self.cost_limit_usd is not None:
            spent += f" of the limit of ${self.cost_limit_usd}"
        if not self.plan["requests"]:
            return spent
        return f"{spent} (upper bound of all planned rows ${self.upper_bound_usd}; prices: {self.price_source})"


    def _money(self) -> list[tuple[str, str]]:
        rows = list[tuple[str, str]]()
        if self.saved_usd is not None and Decimal(self.saved_usd) > 0:
            rows.append(("Saved", f"{_read(self.saved_usd)} against the list price of {_read(self.list_price_usd)}"))
        if self.reserved_usd is not None and Decimal(self.reserved_usd):
            rows.append(("Reserved", f"{_read(self.reserved_usd)} for batches that may have been accepted"))
        if (budget := self.budget) is not None:
            spent = f"{_read(budget['spent_usd'])} of {_read(budget['limit_usd'])} spent {THIS_PERIOD[budget['period']]}"
            flying = f", {_read(budget['in_flight_usd'])} in flight" if Decimal(budget["in_flight_usd"]) else ""
            rows.append(("Budget", f"{budget['name']}: {spent}{flying}"))
        return rows


def finish(session: Session, *, stopped_by_limit: bool) -> Receipt:
    """Close the run in the ledger, drop its plan, return its receipt."""
    receipt = _receipt(session, stopped_by_limit=stopped_by_limit)
    session.ledger.close_run(session.lease, session.run_id, receipt.result)
    receipt = replace(receipt, budget=budget_facts(session))  # now that what was not sent is given back
    discard_uploads(session)
    discard_left_results(session)
    session.folder.drop_run_folder(session.run_id)
    if not session.spec.raw_files:
        _drop_raw_files(session)
    return receipt


def _receipt(session: Session, *, stopped_by_limit: bool) -> Receipt:
    run, plan = session.ledger.run(session.run_id), session.plan()
    chunks = session.ledger.chunks(session.run_id)
    tallies = session.ledger.outcomes(session.run_id)
    outcomes = rows_by_outcome(tallies)
    failed = sum(rows for name, rows in outcomes.items() if name != Outcome.SUCCEEDED)
    share = failed / max(sum(outcomes.values()), 1)
    held = sum(chunk.rows for chunk in session.ledger.chunks_in((HELD,)) if chunk.dataset_id == session.lease.dataset_id)
    result = SOME_ROWS_FAILED if failed or plan.exhausted or held else SUCCEEDED
    result = _STOPPED.get(session.stop_reason() or "", result)
    result = COST_LIMIT_REACHED if stopped_by_limit else result
    limit = session.spec.fail_if.failed_share
    priced = session.rates is not None and cost_is_known(chunks, tallies)
    commits = [commit_of(session, chunk.id) for chunk in chunks if chunk.state == LANDED]
    errors: Counter[str] = Counter()
    for commit in commits:
        errors.update(commit.get("errors", {}))
        errors.subtract(commit.get("errors_before", {}))
    return Receipt(
        name=session.spec.name, run_id=session.run_id, result=result, exit_code=EXIT_CODES[result],
        dataset=str(session.folder.data), provider=session.provider.name, model=session.spec.model,
        continued=session.continued, seconds=round((now_us() - run.started_at) / 1e6, 1),
        plan=plan.to_json(), outcomes=outcomes, failed_share=share,
        failed_above_limit=limit is not None and share > limit,
        batches=sum(1 for chunk in chunks if chunk.batch_id),
        input_tokens=sum(t.input_tokens for t in tallies.values()),
        output_tokens=sum(t.output_tokens for t in tallies.values()),
        **_cache_facts(tallies, commits, priced=priced),
        upper_bound_usd=_plain(plan.bound) if priced else None,
        cost_limit_usd=_plain(session.limit), price_source=_sources(run.price_source, session.rates),
        unsent_rows=sum(chunk.rows for chunk in chunks if chunk.state in (PLANNED, DROPPED) and chunk.round == 1),
        rounds=max((chunk.round for chunk in chunks), default=0), held_rows=held,
        **money_facts(session, chunks, tallies, priced=priced), waits=session.waits,
        errors={text: count for text, count in errors.most_common(5) if count > 0},
        warnings=_warnings(commits, held) + _cache_warnings(session, tallies),
    )


def _cache_facts(tallies: Mapping[str, Tally], commits: list[dict[str, Any]], *, priced: bool) -> dict[str, Any]:
    read, written = (sum(getattr(tally, f"cache_{what}_tokens") for tally in tallies.values()) for what in ("read", "write"))
    saved = sum(commit.get("cache_saved_picodollars", 0) for commit in commits)
    return {
        "cache_read_tokens": read, "cache_write_tokens": written,
        "cache_read_share": read / sum(tally.input_tokens for tally in tallies.values()) if read or written else None,
        "cache_saved_usd": f"{usd(saved):f}" if priced and (read or written) else None,
    }


def _cache_warnings(session: Session, tallies: Mapping[str, Tally]) -> list[str]:
    used = any(tally.cache_read_tokens or tally.cache_write_tokens for tally in tallies.values())
    if used or not session.spec.cache or not any(tally.input_tokens for tally in tallies.values()):
        return []
    return [f"`cache` is set, but nothing was read from a cache or written to one: {CACHE_MINIMUM}"]


def _read(amount: str | None) -> str:
    return dollars(None if amount is None else pico_from_usd(amount))


def rows_by_outcome(tallies: Mapping[str, Tally]) -> dict[str, int]:
    """Return how many rows ended how; outcomes that no row has any more are left out."""
    return {name: tallies[name].rows for name in sorted(tallies) if tallies[name].rows}


def cost_is_known(chunks: Iterable[Chunk], tallies: Mapping[str, Tally]) -> bool:
    """Whether all that a run planned and landed had a price; its sums leave out what had none."""
    unpriced = any(chunk.bound is None for chunk in chunks if chunk.kind == "batch")
    return not unpriced and all(tally.cost is not None for tally in tallies.values() if tally.rows)


def _sources(planned: str | None, rates: Rates | None) -> str | None:
    """Return what a run's prices were from; one that was carried on may have had others then."""
    now = rates.source if rates is not None else None
    return f"{planned}, then {now}" if planned and now and planned != now else planned or now


def _warnings(commits: list[dict[str, Any]], held: int) -> list[str]:
    told = {
        "unreadable": "requests without a readable result line; the most that they can have cost counts as spent",
        "unknown_lines": "result lines that nobody sent (their cost counts as overhead)",
        "doubled_lines": "result lines that came twice (counted once)",
        "over_bound": "answers above their upper bound: the model's bounds are larger now; under a limit nothing more was sent",
    }
    sums = {key: sum(commit.get(key, 0) for commit in commits) for key in told}
    warnings = [f"{sums[key]:,} {text}" for key, text in told.items() if sums[key]]
    if held:
        warnings.append(f"{held:,} rows are held, since nobody can tell whether their batch was accepted: decide with `batchata reconcile`")
    return warnings


def _plain(pico: int | None) -> str | None:
    return dollars(pico).removeprefix("$").replace(",", "") if pico is not None else None


def _drop_raw_files(session: Session) -> None:
    for chunk in session.ledger.chunks(session.run_id):
        for folder in (session.folder.requests, session.folder.responses):
            for path in folder.glob(f"{chunk.id}*"):
                path.unlink(missing_ok=True)
