"""Cancelling: stop the open run of a spec, cancel its batches, land what ran.

What a batch did before it was cancelled is paid for, so it is landed; the rest is as if it had not
been sent. A run that works elsewhere at this moment is asked to do this itself.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import AlreadyRunningError, LeaseError, SpecError
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import hold_dataset, owned_dataset
from batchata_tasks.execution.poll import cancel as cancel_batch
from batchata_tasks.execution.run_context import active
from batchata_tasks.ledger import UNFINISHED, Ledger, StopReason
from batchata_tasks.pipeline.finish import finish
from batchata_tasks.pipeline.receipt import rows_by_outcome
from batchata_tasks.pipeline.receipt_money import cost_is_known
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.start import restored_context
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_NOT_YET = "a run that is just starting is not seen yet"
_LOOK = 1.0  # seconds between two looks at a run that works elsewhere


@dataclass(frozen=True)
class Cancelled:
    """What became of a run that was to be cancelled; without one, there was none. Money is exact decimal text."""

    name: str
    run_id: str | None = None
    result: str | None = None
    outcomes: dict[str, int] | None = None
    settled_usd: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (what, value)."""
        if self.run_id is None:
            return [(self.name, f"no run is open: nothing to cancel; {_NOT_YET}")]
        landed = (
            ", ".join(f"{count:,} {name}" for name, count in (self.outcomes or {}).items())
            or "nothing was sent"
        )
        cost = "unknown" if self.settled_usd is None else f"${self.settled_usd}"
        return [
            ("Run", f"{self.name} {self.run_id}"),
            ("Result", self.result or ""),
            ("Landed", landed),
            ("Cost", cost),
        ]


def cancel(
    spec: EnrichmentSpec, settings: Settings | None = None, progress: Progress | None = None
) -> Cancelled:
    """Stop the open run of a spec's dataset, and wait until its batches have ended and landed.

    Raises:
        SpecError: there is no dataset.
        BatchataError: something stopped it half-way; called again, it carries on.
    """
    settings, progress = settings or Settings(), progress or silent()
    folder = DatasetFolder(spec.output)
    ledger = Ledger(settings.ledger_url)
    try:
        if (
            folder.owner() is None and ledger.known_dataset(folder.url) is None
        ):  # the folder may be lost, and its batches go on
            message = f"output: there is no dataset in {folder.root}, so there is nothing to cancel; {_NOT_YET}."
            raise SpecError(message)
        run = ledger.open_run(owned_dataset(folder, ledger))
        if run is None:
            return Cancelled(spec.name)
        ledger.request_stop(run.id, StopReason.CANCEL)
        _see_to_it(spec.output, run.id, ledger, settings, progress)
        tallies, settled = ledger.outcomes(run.id), f"{usd(ledger.money(run.id)[0]):f}"
        known = cost_is_known(ledger.chunks(run.id), tallies)
        return Cancelled(
            run.name,
            run.id,
            ledger.run(run.id).result,
            rows_by_outcome(tallies),
            settled if known else None,
        )
    finally:
        ledger.close()


def _see_to_it(
    output: str, run_id: str, ledger: Ledger, settings: Settings, progress: Progress
) -> None:
    """End a run here, unless the process that works on it does, or dies meanwhile."""
    told = False
    while ledger.run(run_id).state != "closed":
        try:
            with hold_dataset(output, settings, progress) as held:
                _end(held, run_id)
        except LeaseError as error:
            if not told:
                who = error.holder if isinstance(error, AlreadyRunningError) else "another process"
                asked = "it is asked to cancel its batches and to land what ran: its own receipt tells the outcome"
                progress.note(f"{who} is at work on this dataset; {asked}.")
                told = True
            time.sleep(_LOOK)


def _end(held: HeldDataset, run_id: str) -> None:
    run = held.ledger.run(run_id)
    if run.state == "closed":
        return
    context = restored_context(held, run)
    chunks = held.ledger.chunks(run_id, UNFINISHED)
    lost = [chunk for chunk in chunks if not held.folder.manifest(chunk.id).exists()]
    with active(context):
        for chunk in lost:  # whose rows these are is lost; the next run finds out
            if chunk.batch_id is not None:
                cancel_batch(context.for_chunk(chunk), chunk.batch_id)
        run_chunks(context, Steps(), [chunk for chunk in chunks if chunk not in lost])
        finish(context, stopped_by_limit=False)
