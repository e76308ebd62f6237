"""Runs, batches and money as the ledger has them, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from batchata_tasks.common.money import dollars, pico_from_usd, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.ledger import Ledger
from batchata_tasks.pipeline.receipt import rows_by_outcome
from batchata_tasks.pipeline.receipt_money import cost_is_known

if TYPE_CHECKING:
    from batchata_tasks.spec.run import RunSpec

_RUNS = 10
_STOPPED = "stopped"


def runs_overview(spec: RunSpec | None) -> list[dict[str, Any]]:
    """Return the newest runs of a spec's dataset, or of the whole ledger, as plain values."""
    ledger = Ledger(Settings().ledger_url)
    try:
        if spec is None:
            return [_run(ledger, row) for row in ledger.runs_of(None, _RUNS)]
        folder = DatasetFolder(spec.output)
        owner = folder.owner()
        # the ledger knows a dataset by its place, too: the folder may have been deleted
        dataset_id = owner["dataset_id"] if owner is not None else ledger.known_dataset(folder.url)
        return (
            []
            if dataset_id is None
            else [_run(ledger, row) for row in ledger.runs_of(dataset_id, _RUNS)]
        )
    finally:
        ledger.close()


def _run(ledger: Ledger, row: Any) -> dict[str, Any]:
    settled, in_flight = ledger.money(row.id)
    tallies = ledger.outcomes(row.id)
    known = cost_is_known(ledger.chunks(row.id), tallies)
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
        "running": row.state != "closed" and ledger.is_held(row.dataset_id),
        "result": row.result,
        "started_at": _moment(row.started_at),
        "finished_at": _moment(row.finished_at),
        "outcomes": rows_by_outcome(tallies),
        "settled_usd": f"{usd(settled):f}" if known else None,
        "in_flight_usd": f"{usd(in_flight):f}" if known else None,
        "batches": batches,
    }


def _moment(microseconds: int | None) -> str | None:
    return (
        None
        if microseconds is None
        else datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
    )


def runs_table(runs: list[dict[str, Any]]) -> Table | str:
    """Return the runs for a terminal."""
    if not runs:
        return "No runs yet."
    table = Table(
        Column("Started (UTC)", no_wrap=True),
        "Spec",
        "State",
        "Batches",
        "Rows",
        "Spent",
        "In flight",
        box=None,
        pad_edge=False,
    )
    for run in runs:
        opened = [
            batch for batch in run["batches"] if batch["state"] not in ("landed", "collected")
        ]
        batches = f"{len(run['batches'])}" + (f" ({len(opened)} open)" if opened else "")
        rows = ", ".join(f"{count:,} {name}" for name, count in run["outcomes"].items()) or "-"
        state = run["result"] or _state(run)
        spent, flying = (
            None if run[name] is None else pico_from_usd(run[name])
            for name in ("settled_usd", "in_flight_usd")
        )
        started = str(run["started_at"])[5:16].replace("T", " ")
        table.add_row(
            started,
            run["name"],
            state.replace("_", " "),
            batches,
            rows,
            dollars(spent),
            dollars(flying),
        )
    return table


def runs_remedy(runs: list[dict[str, Any]]) -> str | None:
    """Return what is to be done about runs that stopped before their end; None where there are none."""
    if not any(run["result"] is None and _state(run) == _STOPPED for run in runs):
        return None
    return "Stopped: start the same command again; it carries on, and lands what was sent."


def _state(run: dict[str, Any]) -> str:
    if run["state"] == "closed":
        return "closed"
    if not run["running"]:
        return _STOPPED
    return "running" if run["state"] == "open" else str(run["state"])
