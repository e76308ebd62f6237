"""What a run would do: counts per reason and the most that it can cost. Sends and spends nothing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchata_tasks.errors import LedgerError
from batchata_tasks.ledger import Ledger
from batchata_tasks.money import dollars, pico_from_usd, usd
from batchata_tasks.plan import Options, Planner, PlanSummary
from batchata_tasks.progress import counted
from batchata_tasks.receipt import REASONS
from batchata_tasks.session import in_flight_keys, make_ready
from batchata_tasks.settings import Settings
from batchata_tasks.storage import DatasetFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.session import Ready
    from batchata_tasks.spec import EnrichmentSpec


@dataclass(frozen=True)
class Preview:
    """A plan that nobody will carry out."""

    spec: EnrichmentSpec
    provider: str
    summary: PlanSummary
    price_source: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; money is exact decimal text in US dollars."""
        facts = self.summary.to_json()
        bound = facts.pop("bound")
        return {
            "name": self.spec.name, "provider": self.provider, "model": self.spec.model, **facts,
            "upper_bound_usd": f"{usd(bound):f}" if bound is not None else None,
            "cost_limit_usd": self.spec.cost_limit_usd, "price_source": self.price_source,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the plan for people, as (what, value)."""
        summary = self.summary
        rows = [("Spec", f"{self.spec.name}: {self.spec.source} → {self.spec.output}"), ("Source rows", f"{summary.source_rows:,}")]
        rows += [(f"  {REASONS[reason]}", f"{count:,}") for reason, count in summary.reasons.items()]
        told = {
            "  up to date": summary.up_to_date, "  in flight": summary.in_flight,
            "  failed for good": summary.exhausted, "  not in rerun_on": summary.not_asked,
            "  left out by where": summary.filtered, "  left out for a null": summary.null_skipped,
            "  beyond limit": summary.over_limit, "  too large to send": summary.too_large,
            "  carried only": summary.carried,
        }
        rows += [(what, f"{count:,}") for what, count in told.items() if count]
        amount = f"{counted(summary.requests, 'request')} in {counted(summary.batches, 'batch')}"
        rows.append(("To send", f"{amount} to {self.provider}, {self.spec.model}"))
        return [*rows, ("Cost", self._cost())]

    def _cost(self) -> str:
        bound = self.summary.bound
        if bound is None:
            return f"unknown: no batch price is known for {self.spec.model}"
        text = f"at most {dollars(bound)} (upper bound; prices: {self.price_source})"
        if self.spec.cost_limit_usd is None:
            return text
        limit = pico_from_usd(self.spec.cost_limit_usd)
        verdict = "all of it fits" if bound <= limit else "batches are cut, and wait, so that it holds"
        return f"{text}; limit {dollars(limit)}: {verdict}"


def preview(spec: EnrichmentSpec, settings: Settings | None = None) -> Preview:
    """Plan without running: the same pass as a run makes, its files thrown away.

    Raises:
        InputError: what a run would refuse, in the same words.
    """
    settings = settings or Settings()
    ready = make_ready(spec, settings)
    with tempfile.TemporaryDirectory(prefix="batchata-plan-") as scratch:
        planner = Planner(ready.table, ready.provider, Path(scratch) / "plan", "preview", Options())
        planner.run(_in_flight(ready, settings))
    rates = ready.table.builder.rates
    return Preview(spec, ready.provider.name, planner.summary, rates.source if rates is not None else None)


def _in_flight(ready: Ready, settings: Settings) -> Iterator[bytes]:
    """Yield the keys of rows that earlier runs have at the provider."""
    folder = DatasetFolder(ready.spec.output)
    owner = folder.owner() if folder.own.exists() else None
    if owner is None:
        return
    ledger = Ledger(settings.ledger_url)
    try:
        if owner["ledger_id"] != ledger.id:
            what = f"output: the dataset in {folder.root} belongs to another ledger"
            message = f"{what}; set BATCHATA_LEDGER_URL to that one, or, if it is lost, run `batchata status SPEC --rebuild`."
            raise LedgerError(message)
        yield from in_flight_keys(folder, ledger, owner["dataset_id"], "", ready.spec.key)
    finally:
        ledger.close()
