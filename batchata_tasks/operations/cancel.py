"""Cancelling: stop the open run of a spec, cancel its batches, land what ran.

What a batch did before it was cancelled is paid for, so it is landed; the rest counts as not sent.
If another process works on the run at this moment, it is asked to do this itself.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from batchata_tasks.common.errors import AlreadyRunningError, LeaseError, SpecError
from batchata_tasks.common.money import dollars, exact, pico_from_usd, usd
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.packs import is_kept
from batchata_tasks.execution.contexts import active
from batchata_tasks.execution.held import held_chunk
from batchata_tasks.execution.held_dataset import find_dataset, hold_dataset, owned_dataset
from batchata_tasks.execution.intent_files import require_current
from batchata_tasks.execution.overdue import was_taken_back
from batchata_tasks.execution.poll import cancel as cancel_batch
from batchata_tasks.execution.run_context import restored_context
from batchata_tasks.ledger import (
    SET_ASIDE,
    UNFINISHED,
    ChunkState,
    RunPhase,
    StopReason,
    is_flow_run,
    opened_ledger,
)
from batchata_tasks.operations.flow_runs import Untold
from batchata_tasks.pipeline.finish import finish
from batchata_tasks.pipeline.lost import in_flight
from batchata_tasks.pipeline.receipt import rows_by_outcome
from batchata_tasks.pipeline.receipt_money import cost_is_known
from batchata_tasks.pipeline.scheduler import run_chunks
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import silent

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_NOT_YET = "a run that is just starting is not seen yet"
_PAUSE = 1.0  # seconds between two looks at a run of another process
# times BATCHATA_PATIENCE, and seconds at least, that another process may land for after the grace
_PATIENT, _SHORTEST = 10, 60.0
ROWS_OPEN = 3  # the exit code of a cancel that left rows open


@dataclass(frozen=True)
class Cancelled:
    """How a cancelled run ended; without `run_id`, there was no run to cancel.

    `overdue` are the dataset's batches that did not end in time, `held` says of each chunk whose
    rows are held what to do; `at_work` names the process that
    works on the run, if that did not end it in time.
    """

    name: str
    run_id: str | None = None
    result: str | None = None
    outcomes: dict[str, int] | None = None
    settled_usd: str | None = None  # exact decimal text
    overdue: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    reserved_usd: str | None = None  # for these; exact decimal text
    at_work: str | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return ROWS_OPEN if self.overdue or self.at_work is not None else 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it for people, as (label, value)."""
        left = [("No results", f"batch {batch}: {_left(batch)}") for batch in self.overdue]
        left += [("Held", text) for text in self.held]
        if self.reserved_usd is not None:
            reserved = dollars(pico_from_usd(self.reserved_usd))
            left.append(("Reserved", f"{reserved} for batches whose end is not known"))
        if self.run_id is None:
            return [(self.name, f"no run is open: nothing to cancel; {_NOT_YET}"), *left]
        if self.at_work is not None:
            text = f"{self.at_work} has not ended the run yet: its own receipt tells the outcome"
            return [("Run", f"{self.name} {self.run_id}"), ("Not ended", text), *left]
        counts = [f"{count:,} {name}" for name, count in (self.outcomes or {}).items()]
        settled = None if self.settled_usd is None else pico_from_usd(self.settled_usd)
        return [
            ("Run", f"{self.name} {self.run_id}"),
            ("Result", self.result or ""),
            ("Landed", ", ".join(counts) or ("nothing" if left else "nothing was sent")),
            ("Cost", dollars(settled)),
            *left,
        ]


def _left(batch_id: str) -> str:
    return (
        "its rows are held; the next run lands them if its results come after all, and "
        f"`batchata reconcile --abandon {batch_id}` gives it up"
    )


def cancel(spec: EnrichmentSpec, settings: Settings, progress: Progress | None = None) -> Cancelled:
    """Stop the open run of a spec's dataset, and wait until its batches have ended and landed.

    Each is waited for as long as `BATCHATA_CANCEL_GRACE` says; one that does not end is reported.

    Raises:
        SpecError: there is no dataset.
        WrongLedgerError: the ledger is another one than the dataset's, or older.
        BatchataError: something stopped it half-way; called again, it carries on.
    """
    progress = progress or silent()
    folder = DatasetFolder(spec.output)
    with opened_ledger(settings.ledger_url) as ledger:
        if find_dataset(folder, ledger) is None:
            message = (
                f"output: there is no dataset in {folder.root}, so there is nothing to cancel; "
                f"{_NOT_YET}."
            )
            raise SpecError(message)
        dataset_id = owned_dataset(folder, ledger)
        require_current(folder, ledger)  # the open run may be one that it does not know
        run = ledger.open_run(dataset_id)
        if run is None:
            return Cancelled(
                spec.name,
                overdue=_overdue(folder, ledger, dataset_id),
                held=_held(folder, ledger),
                reserved_usd=_reserved(ledger, dataset_id),
            )
        ledger.request_stop(run.id, StopReason.CANCEL)
        begun_by = ledger.last_work(dataset_id)
        at_work = _await_end(spec.output, run.id, begun_by, ledger, settings, progress)
        totals = ledger.outcomes(run.id)
        settled, _ = ledger.money(run.id)
        known = cost_is_known(ledger.chunks(run.id), totals)
        return Cancelled(
            name=run.name,
            run_id=run.id,
            result=ledger.run(run.id).result,
            outcomes=rows_by_outcome(totals),
            settled_usd=f"{usd(settled):f}" if known else None,
            overdue=_overdue(folder, ledger, dataset_id),
            held=_held(folder, ledger),
            reserved_usd=_reserved(ledger, dataset_id),
            at_work=at_work,
        )


class AskedToStop(NamedTuple):
    """A run of a ledger that was asked to stop, and how many of its batches are at the provider."""

    ledger_id: str
    run_id: str
    batches: int


def request_cancel(
    spec: EnrichmentSpec, settings: Settings, work: str | None = None
) -> AskedToStop | None:
    """Ask the open run of a spec's dataset to stop, if nobody is at work on it; wait for nothing.

    Whoever goes on with it cancels its batches. Return which run that is; None if there is none, or
    if other work than `work` held it last, until it let go of it or died.
    """
    folder = DatasetFolder(spec.output)
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = find_dataset(folder, ledger)
        if dataset_id is None or ledger.is_held(dataset_id):
            return None
        if work is not None and ledger.last_work(dataset_id) != work:
            return None
        if (run := ledger.open_run(dataset_id)) is None:
            return None
        ledger.request_stop(run.id, StopReason.CANCEL)
        batches = ledger.chunks(run.id, (ChunkState.SUBMITTED, ChunkState.UNCLEAR))
        return AskedToStop(ledger.id, run.id, len(batches))


def _overdue(folder: DatasetFolder, ledger: Ledger, dataset_id: str) -> tuple[str, ...]:
    chunks = ledger.dataset_chunks(dataset_id, (ChunkState.OVERDUE,))
    return tuple(chunk.batch_id or "" for chunk in chunks if not was_taken_back(folder, chunk))


def _reserved(ledger: Ledger, dataset_id: str) -> str | None:
    """Return what stays reserved for batches that are held, in US dollars; None if unknown."""
    held = in_flight(ledger.dataset_chunks(dataset_id, SET_ASIDE))
    return exact(held.bound) if held.batches else None


def _held(folder: DatasetFolder, ledger: Ledger) -> tuple[str, ...]:
    chunks = ledger.dataset_chunks(owned_dataset(folder, ledger), (ChunkState.HELD,))
    return tuple(held_chunk(folder, chunk) for chunk in chunks)


def _await_end(
    output: str,
    run_id: str,
    begun_by: str | None,
    ledger: Ledger,
    settings: Settings,
    progress: Progress,
) -> str | None:
    """Wait until the process that works on a run ends it; end it here if there is none.

    `watch` tells of that on the page of the flow run that began it. Returns the name of the process
    at work if it does not end the run in time.
    """
    landing = max(settings.patience * _PATIENT, _SHORTEST)
    until = time.monotonic() + settings.cancel_grace + landing
    reported = False
    while ledger.run(run_id).state != RunPhase.CLOSED:
        try:
            with hold_dataset(output, settings, progress) as held:
                end_run(held, run_id, begun_by, told=is_flow_run(begun_by))
        except LeaseError as error:
            who = error.holder if isinstance(error, AlreadyRunningError) else "another process"
            if time.monotonic() > until:
                return who
            if not reported:
                progress.note(
                    f"{who} is at work on this dataset; it is asked to cancel its batches and to "
                    "land what ran: its own receipt tells the outcome."
                )
                reported = True
            time.sleep(_PAUSE)
    return None


def end_run(held: HeldDataset, run_id: str, work: str | None, *, told: bool) -> Receipt | None:
    """Cancel the batches of a run that is to stop, land what ran, end the run; return its receipt.

    That is None if it has ended already. If its end is to be `told`, on the page of the flow run
    that began it (`work`, if that is known), the ledger notes so with the end itself.

    Raises:
        SuspendedRunError: `held` says that batches which have not ended are not waited for.
    """
    run = held.ledger.run(run_id)
    if run.state == RunPhase.CLOSED:
        return None
    context = restored_context(held, run)
    chunks = held.ledger.chunks(run_id, UNFINISHED)
    lost = [chunk for chunk in chunks if not is_kept(held.folder.manifest(chunk.id))]
    with active(context):
        for chunk in lost:  # their rows are unknown without the manifest; the next run finds out
            if chunk.batch_id is not None:
                cancel_batch(context.for_chunk(chunk), chunk.batch_id)
        run_chunks(context, Steps(), [chunk for chunk in chunks if chunk not in lost])
        untold = partial(_untold, context, work) if told else None
        return finish(context, untold=untold)


def _untold(context: RunContext, work: str | None, receipt: Receipt) -> str:
    # whoever cancels a run has not carried it on
    receipt = replace(receipt, continued=False)
    return Untold(work, context.spec.key, ended=True, receipt=receipt).to_json()
