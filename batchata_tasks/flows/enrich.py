"""The flow `enrich`: source → plan → chunk → guard → submit → poll → collect → land → receipt."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads a flow's annotations
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import (
    AlreadyRunningError,
    InputError,
    LeaseError,
    TransientError,
)
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.held_dataset import CancelledRunError, find_dataset
from batchata_tasks.flows.artifacts import left_if_possible
from batchata_tasks.flows.ending import stop_cancelled
from batchata_tasks.flows.events import send_ended
from batchata_tasks.flows.flow_runs import (
    Awaited,
    PrefectFlowRuns,
    awaited_by,
    this_flow_run,
)
from batchata_tasks.flows.lineage import note_lineage
from batchata_tasks.flows.log import leave_out_what_is_no_news
from batchata_tasks.flows.lost import ended_before
from batchata_tasks.flows.names import BATCHES_CANCELLED, is_drawn
from batchata_tasks.flows.progress import shown_progress
from batchata_tasks.flows.receipts import leave_own, summary
from batchata_tasks.flows.refused import failed, path_of, refused
from batchata_tasks.flows.suspension import (
    AwaitedElsewhereError,
    Wait,
    leave_to_another,
    suspending,
)
from batchata_tasks.flows.tasks import STEPS, steps_with
from batchata_tasks.flows.workers import Workers
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.cancel import request_cancel
from batchata_tasks.pipeline import enrich as pipeline
from batchata_tasks.pipeline.receipt import STOPPED, Receipt, RunResult
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.prepare import PreparedRun, prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.listener import LineProgress, listener
from batchata_tasks.spec.enrichment import EnrichmentSpec  # noqa: TC001 - as above
from batchata_tasks.spec.loading import load_spec, overridden

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from batchata_tasks.execution.held_dataset import LettingGo
    from batchata_tasks.pipeline.steps import Steps
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.spec.jobs import JobsSpec

_LOOK = 5.0  # seconds between two looks at a run that holds the dataset
# what this process prepared before it started a flow run, whose parameters cannot carry an object,
# and what it wants to be called once that has begun
_HANDED_ON: ContextVar[list[tuple[PreparedRun, Callable[[], None]]] | None] = ContextVar(
    "batchata_prepared", default=None
)
_STATE_NAMES: dict[str, str] = {
    RunResult.SOME_ROWS_FAILED: "SomeRowsFailed",
    RunResult.COST_LIMIT_REACHED: "CostLimitReached",
    RunResult.TIME_LIMIT_REACHED: "TimeLimitReached",
    RunResult.CANCELLED: BATCHES_CANCELLED,
}


def _flow_run_name() -> str:
    """Return the name that somebody gave the run (`--flow-run-name`), or else that of its spec."""
    given = str(flow_run.name or "")
    if given and not is_drawn(given):
        return given
    parameters: dict[str, Any] = flow_run.parameters or {}
    spec = parameters.get("spec")
    named = as_dict(spec).get("name") or getattr(spec, "name", None)
    if isinstance(spec, str):
        with suppress(InputError):  # the run itself tells what is wrong
            named = load_spec(spec).name
    return f"enrich {named or spec}"


@flow(name="enrich", flow_run_name=_flow_run_name, validate_parameters=True)
def enrich(
    spec: EnrichmentSpec | str,
    overrides: dict[str, Any] | None = None,
    # the form of the Prefect UI names every parameter
    refresh: bool = False,  # noqa: FBT001, FBT002 - see above
    retry_failed: bool = False,  # noqa: FBT001, FBT002 - see above
    take_over: bool = False,  # noqa: FBT001, FBT002 - see above
    wait: Wait = "suspend",
) -> State[dict[str, Any]]:
    """Bring new columns to a table, answered by a language model through a batch API.

    Args:
        spec: the enrichment, or the path of its YAML or JSON file.
        overrides: keys of the spec to set otherwise for this run, such as {"limit": 20}.
        refresh: count rows that landed before this run as not landed.
        retry_failed: send rows again that failed for good or used up their attempts.
        take_over: the dataset may be filled by another spec, which this one replaces from now on.
        wait: how the run waits for its batches: suspended, so that no worker's slot is taken (a run
            of a deployment, if scheduled passes of `watch` look at its ledger), or in its process.
    """
    leave_out_what_is_no_news()
    if (ended := _ended_before()) is not None:
        return ended
    options = Options(refresh_mark(refresh), retry_failed, take_over)
    state = _enriched(spec, overrides or {}, options, wait)
    send_ended()
    return state


def _ended_before() -> State[dict[str, Any]] | None:
    """Return how this flow run ended, if it did and was started again by mistake."""
    if (run := this_flow_run()) is None or run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        state = ended_before(client, run)
    return None if state is None else Completed(name=state.name, message=state.message)


def _carry_out_cancel(spec: EnrichmentSpec, settings: Settings) -> None:
    """Have what is open of a dataset cancelled if a person cancelled the flow run that left it.

    `watch` does that at its next pass, which may not have come yet. What this flow run was
    suspended for is its own, whoever went on with it meanwhile.
    """
    own = this_flow_run()
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = find_dataset(DatasetFolder(spec.output), ledger)
        work = None if dataset_id is None else ledger.left_by(dataset_id)
        row = None if dataset_id is None else ledger.open_run(dataset_id)
        if own is not None and row is not None and Awaited(ledger.id, row.id) in awaited_by(own):
            return
    # if the server does not answer, `watch` sees to it later
    with suppress(TransientError):
        if work is not None and PrefectFlowRuns(repeated=False).cancelled({work}):
            request_cancel(spec, settings)


def _enriched(
    spec: EnrichmentSpec | str, overrides: dict[str, Any], options: Options, wait: Wait
) -> State[dict[str, Any]]:
    """See `enrich`; return the flow run's final state."""
    progress = listener() or _logged(path_of(spec))
    name = f"flow run {flow_run.id}"
    try:
        wanted, settings = overridden(spec, overrides), Settings()
        _carry_out_cancel(wanted, settings)

        def work(letting_go: LettingGo) -> Receipt:
            leave_to_another(wanted, settings, letting_go)
            # prepared anew each time: the source may have changed while the dataset was held
            ready = _prepared(wanted, settings)
            return pipeline.run_prepared(ready, options, steps, progress, name, letting_go)

        with (
            closing(Workers(settings.task_runner)) as workers,
            shown_progress(progress, wanted.name),
        ):
            steps = steps_with(workers)
            receipt = suspending(
                lambda letting_go: _when_free(partial(work, letting_go), name, progress),
                wait,
                settings.ledger_url,
                progress,
                partial(stop_cancelled, wanted, settings, progress, name),
            )
    except InputError as error:
        return refused(error, spec)
    except CancelledRunError as error:
        message = f"{error} {_how_to_go_on()}"
        data = {"result": RunResult.CANCELLED, "error": message}
        return Completed(name=BATCHES_CANCELLED, message=message, data=data)
    except AwaitedElsewhereError as error:
        data = {"result": "already_running", "holder": error.holder, "error": str(error)}
        return Completed(name="AlreadyRunning", message=str(error), data=data)
    except AlreadyRunningError as error:
        data = {"result": "already_running", "holder": error.holder, "error": str(error)}
        return Completed(
            name="AlreadyRunning",
            message=f"nothing was sent: {error.holder} is at work on this dataset",
            data=data,
        )
    with left_if_possible("the lineage"):
        note_lineage(receipt, wanted.source)
    return _ended(receipt, wanted.key, path_of(spec))


def _logged(spec: str | None) -> LineProgress:
    """Return progress that goes into the flow run's log, where commands name the spec."""
    progress = LineProgress(get_run_logger().info)
    progress.worded = partial(naming, given=spec)
    return progress


@contextmanager
def handed_on(ready: PreparedRun, begun: Callable[[], None]) -> Generator[None, None, None]:
    """Let a flow run that is started inside use what this process prepared already.

    It calls `begun` first.
    """
    token = _HANDED_ON.set([(ready, begun)])
    try:
        yield
    finally:
        _HANDED_ON.reset(token)


def _prepared(spec: EnrichmentSpec, settings: Settings) -> PreparedRun:
    """Return a spec prepared: as it was handed on, which serves one run, or anew."""
    waiting = _HANDED_ON.get()
    if waiting and waiting[0][0].spec == spec:
        ready, begun = waiting.pop()
        begun()
        return ready
    return prepare_run(spec, settings)


def _when_free(work: Callable[[], Receipt], name: str, progress: Progress) -> Receipt:
    """Do the work once the dataset is free.

    A live run renews its lease several times before it ends, so waiting for that shows it.
    Otherwise a schedule that fires right after its worker was lost would leave the work to the next
    night. The same flow run may be started twice (the first process was only silent): then one
    process waits for the other, since whoever ends first ends the run. People who wait at a
    terminal get the error at once.

    Raises:
        AlreadyRunningError: another run holds the dataset and is alive.
    """
    until: int | None = None
    while True:
        try:
            return work()
        except AlreadyRunningError as error:
            renewed = until is not None and error.until > until
            if not deployment.id or (renewed and name not in error.holder):
                raise
            if until is None:
                progress.note(
                    f"{error.holder} holds this dataset; looking whether it shows a sign of life."
                )
            until = error.until
        except LeaseError:  # this process was stopped for so long that another one took over
            if not deployment.id:
                raise
        time.sleep(_LOOK)


def as_flow(spec: JobsSpec, work: Callable[[Steps], Receipt]) -> Receipt:
    """Run a batch of jobs as a flow run, with its steps as tasks; return the receipt."""
    receipts = list[Receipt]()

    @flow(name="batch", flow_run_name=f"batch {spec.name}")
    def batch(results_dir: str, jobs: int) -> State[dict[str, Any]]:
        del results_dir, jobs  # shown with the flow run
        receipts.append(work(STEPS))
        return _ended(receipts[0], spec.key)

    state: Any = batch(spec.output, spec.count, return_state=True)
    if not receipts:
        state.result()  # raises what stopped the run
    return receipts[0]


def _ended(receipt: Receipt, key: list[str], spec: str | None = None) -> State[dict[str, Any]]:
    """Leave on the server what there is of a run, and return the flow run's final state."""
    leave_own(receipt, key, spec)
    return _state(receipt, spec)


def _how_to_go_on() -> str:
    """Return how the rest of a run is sent that was cancelled."""
    again = "start this flow run again (Retry), or another one" if deployment.id else "start again"
    return f"To send what has no answer yet, {again}."


def _state(receipt: Receipt, spec: str | None) -> State[dict[str, Any]]:
    """Return the run's final state; a cost limit is an outcome, which no scheduler retries."""
    message, data = summary(receipt), receipt.to_json()
    if receipt.result == RunResult.SOME_ROWS_FAILED and receipt.failed_above_limit:
        return failed(f"{receipt.failed_share:.1%} of the rows failed ({message})", data)
    if receipt.result in STOPPED:
        return failed(naming(receipt.reason or message, spec), data)
    name = _STATE_NAMES.get(receipt.result, "Completed")
    if name == BATCHES_CANCELLED:  # whoever carries on a run that is to stop carries that out
        message = f"{message}; the run was cancelled before it was done. {_how_to_go_on()}"
    return Completed(name=name, message=message, data=data)
