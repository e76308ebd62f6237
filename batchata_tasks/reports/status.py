"""`batchata status`: runs, batches and money from the ledger, for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.money import dollars, pico_from_usd, usd
from batchata_tasks.common.text import pluralize, printable, sentence
from batchata_tasks.common.unwatched import SILENT, unwatched
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.execution.elsewhere import what_environment_lacks
from batchata_tasks.execution.held import held_chunk
from batchata_tasks.execution.held_dataset import find_dataset, require_owner
from batchata_tasks.execution.intent_files import why_outdated
from batchata_tasks.execution.last_error import last_error
from batchata_tasks.execution.overdue import held_rows, remedy, why_overdue
from batchata_tasks.execution.queue_room import held_in_words
from batchata_tasks.execution.run_context import stored_spec
from batchata_tasks.execution.snapshot import money_in_words
from batchata_tasks.ledger import (
    UNFINISHED,
    ChunkState,
    RunEnd,
    RunPhase,
    StopReason,
    opened_ledger,
)
from batchata_tasks.pipeline.receipt import RunResult, rows_by_outcome, worded
from batchata_tasks.pipeline.receipt_money import cost_is_known
from batchata_tasks.pipeline.results_lacking import what_lacks
from batchata_tasks.planning.limits import limits_of
from batchata_tasks.providers import provider_type
from batchata_tasks.reports.in_prefect import (
    cancelled_text,
    cancelled_there,
    how_to_start,
    how_to_take_over,
)
from batchata_tasks.reports.printing import GAP, column_widths
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Chunk, Ledger, QueueStanding, RunRow
    from batchata_tasks.reports.shown_dataset import ShownDataset

_WIDE = 120  # characters of a terminal on which a run's outcomes stand side by side
_NAMED = 10  # chunks whose rows are held that are told one by one
_TO_COME = (ChunkState.PLANNED, *UNFINISHED)
_STOPPED = "stopped"
_WHILE_PLANNING = "stopped while planning"
_WAITING = "waiting"
_UNSENT: dict[str, str] = {
    RunEnd.REFUSED: "refused, nothing was sent",
    RunEnd.DECLINED: "declined, nothing was sent",
}
_LOOK = (
    "look at its rows' errors (`batchata show SPEC --failed`), then change the spec or run it with "
    "`--retry-failed`; until then it sends nothing."
)
_REMEDIES: dict[str | None, str] = {
    None: "stopped; {start}: it carries on, and lands what was sent.",
    RunResult.ACCOUNT_TROUBLE: ("account trouble; mend the account at the provider, then {start}."),
    RunResult.UNREADABLE_BATCH: f"unreadable batch; {_LOOK}",
    RunResult.NO_USABLE_ANSWER: f"no usable answer; {_LOOK}",
}
"""What to do about runs that stopped before their end, by their result."""


def runs_overview(
    spec: ShownDataset | None, settings: Settings, number: int = 10
) -> list[dict[str, Any]]:
    """Return the newest runs of a dataset, or of the whole ledger, as plain values.

    Raises:
        WrongLedgerError: another ledger owns the dataset.
    """
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = None
        if spec is not None:
            folder = DatasetFolder(spec.output)
            require_owner(folder, ledger)
            dataset_id = find_dataset(folder, ledger)
            if dataset_id is None:
                return []
        runs, queues = list[dict[str, Any]](), ledger.standings()
        told = set[str]()
        for row in ledger.runs_of(dataset_id, number):
            run = {**describe(ledger, row), "blocked": None, "last_error": None}
            run["queued"] = [_queued(one, row.id) for one in queues if row.id in one.waiting]
            waits = _state(run) == _WAITING and not run["queued"]
            run["awaited_money"] = _awaited_money(ledger, row) if waits else None
            if row.dataset_id not in told:  # its newest run
                run |= _standing(ledger, row)
            told.add(row.dataset_id)
            runs.append(run)
        return runs


def older_runs(
    spec: ShownDataset | None, settings: Settings, runs: list[dict[str, Any]]
) -> str | None:
    """Return that there are more runs than those that are told, and how to see them."""
    with opened_ledger(settings.ledger_url) as ledger:
        dataset_id = None if spec is None else find_dataset(DatasetFolder(spec.output), ledger)
        number = ledger.count_runs(dataset_id)
    if not runs or number <= len(runs):
        return None
    return f"{len(runs):,} of {number:,} runs, the newest first: `--runs {number}` shows all."


def _queued(standing: QueueStanding, run_id: str) -> dict[str, Any]:
    """Return how many batches of a run wait for room in a queue, and what that holds."""
    rule = provider_type(standing.provider).queue
    return {
        "batches": standing.waiting[run_id],
        "provider": standing.provider,
        "model": standing.queue.model or None,
        "counts": None if rule is None else rule.counts,
        "taken": standing.taken,
        "limit": standing.limit,
        "by_runs": standing.runs,
    }


def _awaited_money(ledger: Ledger, row: RunRow) -> dict[str, str] | None:
    """Return which money of its budget a run waits for, that let go of its dataset."""
    spec = stored_spec(json.loads(row.spec))
    budget = limits_of(spec, rehearsal=bool(row.rehearsal)).budget
    unsent = ledger.chunks(row.id, (ChunkState.PLANNED,))
    if budget is None or not unsent or ledger.returning(row.id):
        return None
    others = ledger.others_in_flight(budget, row.dataset_id, watched=True)
    if not others:
        return None
    return {"budget": budget.label, "reserved_usd": f"{usd(others):f}"}


def _standing(ledger: Ledger, row: RunRow) -> dict[str, Any]:
    """Return what keeps the next run of a dataset from sending, and how the last start ended."""
    if (url := ledger.dataset_url(row.dataset_id)) is None:  # another dataset is there by now
        return {}
    folder = DatasetFolder.at_url(url)
    try:
        if (folder.owner() or {}).get("ledger_id") != ledger.id:
            return {}
        blocked = why_outdated(folder, ledger)
        if blocked is None and row.state == RunPhase.CLOSED:
            spec = json.loads(row.spec)["spec"]
            blocked = what_lacks(folder, ledger, row.dataset_id, spec)
        error = last_error(folder) if blocked is None else None
    except StorageError as damaged:
        return {"blocked": str(damaged)}
    return {"blocked": blocked, "last_error": None if error is None else error.told()}


def describe(ledger: Ledger, row: RunRow) -> dict[str, Any]:
    """Return a run and its batches as plain values."""
    settled, in_flight = ledger.money(row.id)
    totals = ledger.outcomes(row.id)
    chunks = ledger.chunks(row.id)
    known = cost_is_known(chunks, totals)
    is_open = row.state != RunPhase.CLOSED
    sent = [c for c in chunks if c.state in (ChunkState.SUBMITTED, ChunkState.UNCLEAR)]
    running = is_open and ledger.is_held(row.dataset_id)
    batches = [
        {
            "batch_id": batch.batch_id,
            "status": batch.status,
            "rows": batch.stop - batch.start,
            "state": batch.state,
            "submitted_at": _moment(batch.submitted_at),
        }
        for batch in ledger.batches_of(row.id)
    ]
    return {
        "name": row.name,
        "run_id": row.id,
        "state": row.state,
        "planned": row.plan is not None,
        "rehearsal": bool(row.rehearsal),
        "running": running,
        # the flow run, say, that was at work last, and what its server knows of it, if it is asked
        "work": ledger.last_work(row.dataset_id) if is_open and not running else None,
        "flow_run": None,
        # the flow run that let go of it, having sent what it could
        "left_by": ledger.left_by(row.dataset_id) if is_open and not running else None,
        "watched_at": _moment(ledger.watched_at()),  # when `watch` looked last, at all runs
        # asked for, and not carried out yet
        "cancel_asked": is_open and ledger.stop_reason(row.id) == StopReason.CANCEL,
        # of a run that stopped: what keeps the next start from seeing its batches
        "to_set": what_environment_lacks(ledger, sent) if is_open and not running else None,
        "result": row.result,
        "started_at": _moment(row.started_at),
        "finished_at": _moment(row.finished_at),
        "outcomes": rows_by_outcome(totals),
        # whose answers are to come: at the provider, or not sent yet
        "planned_rows": _rows_in(chunks, *_TO_COME) if is_open else 0,
        "held_rows": _rows_in(chunks, ChunkState.HELD),
        "overdue_rows": _rows_in(chunks, ChunkState.OVERDUE),
        "accepted_twice": ledger.second_batches(row.id),
        "exhausted_rows": json.loads(row.plan or "{}").get("exhausted", 0),
        "abandoned_rows": _rows_in(chunks, ChunkState.ABANDONED),
        "settled_usd": f"{usd(settled):f}" if known else None,
        "in_flight_usd": f"{usd(in_flight):f}" if known else None,
        "batches": batches,
    }


def _rows_in(chunks: list[Chunk], *states: ChunkState) -> int:
    return sum(chunk.rows for chunk in chunks if chunk.state in states)


def undecided(spec: ShownDataset | None, settings: Settings) -> list[str]:
    """Return a sentence for each batch whose rows are held or overdue, and what to do about it.

    These are of the dataset, or of the whole ledger, whichever run sent them.
    """
    with opened_ledger(settings.ledger_url) as ledger:
        chunks = ledger.chunks_in((ChunkState.HELD, ChunkState.OVERDUE))
        if spec is not None:
            dataset_id = find_dataset(DatasetFolder(spec.output), ledger)
            chunks = [chunk for chunk in chunks if chunk.dataset_id == dataset_id]
        texts = [f"{_aside(ledger, chunk)}." for chunk in chunks[:_NAMED]]
    if others := chunks[_NAMED:]:
        rows = pluralize(sum(chunk.rows for chunk in others), "further row is", "further rows are")
        texts.append(f"{rows} held or overdue: `batchata reconcile` lists them.")
    return texts


def _aside(ledger: Ledger, chunk: Chunk) -> str:
    """Say whose rows a chunk holds, why, and what to do."""
    url = ledger.dataset_url(chunk.dataset_id)
    name = ledger.run(chunk.run_id).name
    if chunk.state == ChunkState.OVERDUE:
        late = f"batch {chunk.batch_id} brought no results in time."
        folder = None if url is None else DatasetFolder.at_url(url)
        late = late if folder is None else why_overdue(folder, chunk)
        which = f"The batch is {chunk.batch_id}, of chunk {chunk.id}"
        return f"{name}: {late} {which}: {held_rows(chunk)} {remedy(chunk, folder)}"
    if url is None:  # another dataset is there by now
        return f"{name}: the rows of chunk {chunk.id} are held: decide with `batchata reconcile`"
    return f"{name}: {held_chunk(DatasetFolder.at_url(url), chunk)}"


def _moment(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def runs_table(runs: list[dict[str, Any]], width: int = _WIDE) -> Table | str:
    """Return the runs for a terminal; where they do not fit, each outcome of a run has its line."""
    if not runs:
        return "No runs yet."
    whole = [Column(name, no_wrap=True) for name in ("Batches", "Rows", "Spent", "In flight")]
    others = [Column(name, overflow="fold") for name in ("Spec", "State")]
    amounts = [run["in_flight_usd"] for run in runs]  # None: unknown
    if all(amount is not None and float(amount) == 0 for amount in amounts):
        del whole[-1]
    table = Table(Column("Started UTC", no_wrap=True), *others, *whole, box=None, pad_edge=False)
    lines = [_cells(run, ", ")[: len(table.columns)] for run in runs]
    heads = [str(column.header) for column in table.columns]
    if sum(column_widths([heads, *lines])) + GAP * len(heads) > width:
        lines = [_cells(run, "\n")[: len(table.columns)] for run in runs]
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def _cells(run: dict[str, Any], between: str) -> list[str]:
    """Return what is told of a run; `between` stands between what is told in one cell."""
    started = str(run["started_at"])[5:16].replace("T", " ")
    state = f"{_worded(run)} (rehearsal)" if run["rehearsal"] else _worded(run)
    rows = [f"{count:,} {name}" for name, count in run["outcomes"].items()]
    if planned := run.get("planned_rows"):
        rows.append(f"{planned:,} planned")
    return [
        *map(printable, (started, run["name"], state, _count_batches(run["batches"]))),
        between.join(map(printable, rows)) or "-",
        *map(_dollars, (run["settled_usd"], run["in_flight_usd"])),
    ]


def _worded(run: dict[str, Any]) -> str:
    """Return how a run ended, or how it is, in words."""
    if run["result"] is None:
        state = _state(run).replace("_", " ")
        return f"{state}, to be cancelled" if _to_be_cancelled(run) else state
    if (text := _UNSENT.get(run["result"])) is not None:
        return text
    if run["result"] in (RunEnd.ABANDONED, RunEnd.OUTDATED):
        return "ended by a later run" if run["planned"] else _WHILE_PLANNING
    failed = any(name != Outcome.SUCCEEDED for name in run["outcomes"]) or run["exhausted_rows"]
    aside = run["held_rows"] or run["overdue_rows"]
    given_up, twice = run["abandoned_rows"], bool(run["accepted_twice"])
    some = run["result"] == RunResult.SOME_ROWS_FAILED
    if some and run["outcomes"] and not (failed or aside or given_up or twice):
        return RunResult.SUCCEEDED.value  # what was held has landed since
    held = bool(aside or not (given_up or twice))
    text = worded(run["result"], failed=bool(failed), held=held, twice=twice)
    is_idle = not (run["batches"] or run["outcomes"])
    # else rows are held, of whichever run
    ended = run["result"] == RunResult.SUCCEEDED or (some and failed)
    return f"{text}, nothing to send" if is_idle and ended else text


def _count_batches(batches: list[dict[str, Any]]) -> str:
    ended = (ChunkState.LANDED, ChunkState.COLLECTED, ChunkState.ABANDONED)
    still_open = sum(batch["state"] not in ended for batch in batches)
    if not still_open:
        return f"{len(batches):,}"
    others = "" if still_open == len(batches) else f"{len(batches):,}, "
    return f"{others}{still_open:,} open"


def _dollars(usd_text: str | None) -> str:
    return dollars(None if usd_text is None else pico_from_usd(usd_text))


def runs_remedies(runs: list[dict[str, Any]]) -> list[str]:
    """Return what to do about runs that have not come to their end, named by their specs.

    Those that were asked to cancel, or cannot see their batches, are told apart.
    """
    remedies = dict[str, list[str]]()
    for run in runs:
        state, text = _state(run), None
        if state == _STOPPED and not _to_be_cancelled(run) and run["to_set"] is None:
            text = _REMEDIES.get(run["result"])
        elif state == _WHILE_PLANNING:
            text = "stopped while planning: nothing was sent; {start}."
        if text is not None:
            text = text.format(start=how_to_start(run, watched=_is_watched(run)))
            remedies.setdefault(text, []).append(run["name"])
    texts = [f"{', '.join(names)}: {text}" for text, names in remedies.items()]
    return texts + _without_a_process(runs)


def _without_a_process(runs: list[dict[str, Any]]) -> list[str]:
    """Return a sentence about the runs that wait without a process, if any do."""
    waiting = [run for run in runs if _state(run) == _WAITING and not _to_be_cancelled(run)]
    if not waiting:
        return []
    command = how_to_take_over(waiting)
    who, it, its = "flow runs", "them", "their"
    if len(waiting) == 1:
        who, it, its = waiting[0]["left_by"], "it", "its"
    text = (
        f"{', '.join(run['name'] for run in waiting)}: waiting without a process: {who} let go of "
        f"{it} until {its} batches have ended, or there is room or money for the next."
    )
    if _unwatched(runs) is not None:
        return [f"{text} {command[0].upper()}{command[1:]} goes on with {it}."]
    return [f"{text} `watch` has {it} go on then; {command} does so now."]


def runs_in_the_way(runs: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each thing that is in a run's way, or ended the last start."""
    texts = list[str]()
    for run in runs:
        if run["cancel_asked"]:
            texts.append(_to_cancel(run))
        elif cancelled_there(run):
            texts.append(cancelled_text(run, watched=_is_watched(run)))
        elif run["to_set"] is not None:
            texts.append(
                f"{run['name']}: its open batches are not to be seen now: {run['to_set']}. The "
                "same command then carries on."
            )
        texts += [_waits_for_room(run["name"], queued) for queued in run.get("queued", [])]
        if (awaited := run.get("awaited_money")) is not None:
            reserved = pico_from_usd(awaited["reserved_usd"])
            texts.append(f"{run['name']}: {money_in_words(reserved, awaited['budget'])}.")
        ended = None if run["to_set"] is not None else run["last_error"]  # by that, most likely
        if (reason := run["blocked"] or ended) is not None:
            texts.append(f"{run['name']}: {sentence(reason)}")
    if (text := _unwatched(runs)) is not None:
        texts.append(text)
    return texts


def _unwatched(runs: list[dict[str, Any]]) -> str | None:
    """Return that nobody resumes the runs that wait; None if none does, or `watch` looks."""
    waiting = next((run for run in runs if _state(run) == _WAITING), None)
    if waiting is None:
        return None
    return None if _is_watched(waiting) else unwatched(_watched_ago(waiting))


def _is_watched(run: dict[str, Any]) -> bool:
    ago = _watched_ago(run)
    return ago is not None and ago <= SILENT


def _watched_ago(run: dict[str, Any]) -> float | None:
    """Return how many seconds ago `watch` looked last at the runs of a run's ledger."""
    if (looked_at := run["watched_at"]) is None:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(looked_at)).total_seconds()


def _to_be_cancelled(run: dict[str, Any]) -> bool:
    """Whether a cancel was asked for, in whichever way, and is not done."""
    return run["cancel_asked"] or cancelled_there(run)


def _waits_for_room(name: str, queued: dict[str, Any]) -> str:
    batches = pluralize(queued["batches"], "batch waits", "batches wait")
    whose = queued["model"] or queued["provider"]
    holds = held_in_words(queued["taken"], queued["limit"], queued["counts"], queued["by_runs"])
    return f"{name}: {batches} for room in the provider's queue ({whose}: {holds})."


def _to_cancel(run: dict[str, Any]) -> str:
    text = f"{run['name']}: a cancel was asked for, and is not done."
    if run["running"]:
        return f"{text} The process that is at work on the run carries it out."
    if run["to_set"] is not None:
        text += f" Its batches are not to be seen now: {run['to_set']}."
    return (
        f"{text} `watch`, or the next `batchata cancel` or `batchata run` of the spec, carries it "
        "out: open batches are cancelled, what ran is landed, and the run after that goes on."
    )


def _state(run: dict[str, Any]) -> str:
    if run["state"] == RunPhase.CLOSED:
        return str(run["state"])
    if not run["running"] and run["planned"] and run["left_by"] and run["result"] is None:
        return _WAITING
    if not run["running"]:
        return _STOPPED if run["planned"] else _WHILE_PLANNING
    return "running" if run["state"] == RunPhase.OPEN else str(run["state"])
