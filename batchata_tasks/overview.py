"""What `batchata status` and `batchata show` tell."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from rich.cells import cell_len
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from batchata_tasks.columns import META_FIELDS
from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import Outcome
from batchata_tasks.ledger import Ledger
from batchata_tasks.money import dollars, pico_from_usd, usd
from batchata_tasks.progress import counted
from batchata_tasks.receipt import rows_by_outcome
from batchata_tasks.receipt_money import cost_is_known
from batchata_tasks.settings import Settings
from batchata_tasks.storage import DatasetFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

    from batchata_tasks.run_spec import RunSpec
    from batchata_tasks.spec import EnrichmentSpec

_RUNS = 10
_STOPPED = "stopped"
_NARROW, _WIDEST, _GAP = 10, 40, 2  # characters that a column keeps on a narrow terminal, has at most, and that lie between two


def runs_overview(spec: RunSpec | None) -> list[dict[str, Any]]:
    """Return the newest runs of a spec's dataset, or of the whole ledger, as plain values."""
    ledger = Ledger(Settings().ledger_url)
    try:
        if spec is None:
            return [_run(ledger, row) for row in ledger.runs_of(None, _RUNS)]
        folder = DatasetFolder(spec.output)
        owner = folder.owner()
        # the ledger knows a dataset by its place, too: the folder may have been deleted
        dataset_id = owner["dataset_id"] if owner is not None else ledger.find_dataset(folder.url)
        return [] if dataset_id is None else [_run(ledger, row) for row in ledger.runs_of(dataset_id, _RUNS)]
    finally:
        ledger.close()


def _run(ledger: Ledger, row: Any) -> dict[str, Any]:
    settled, in_flight = ledger.money(row.id)
    tallies = ledger.outcomes(row.id)
    known = cost_is_known(ledger.chunks(row.id), tallies)
    batches = [
        {
            "batch_id": batch.batch_id, "status": batch.status, "rows": batch.stop - batch.start, "state": batch.state,
            "submitted_at": _moment(batch.submitted_at),
        }
        for batch in ledger.batches_of(row.id)
    ]
    return {
        "name": row.name, "run_id": row.id, "state": row.state, "running": row.state != "closed" and ledger.is_held(row.dataset_id),
        "result": row.result, "started_at": _moment(row.started_at),
        "finished_at": _moment(row.finished_at), "outcomes": rows_by_outcome(tallies),
        "settled_usd": f"{usd(settled):f}" if known else None, "in_flight_usd": f"{usd(in_flight):f}" if known else None,
        "batches": batches,
    }


def _moment(microseconds: int | None) -> str | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def runs_table(runs: list[dict[str, Any]]) -> Table | str:
    """Return the runs for a terminal."""
    if not runs:
        return "No runs yet."
    table = Table(Column("Started (UTC)", no_wrap=True), "Spec", "State", "Batches", "Rows", "Spent", "In flight", box=None, pad_edge=False)
    for run in runs:
        opened = [batch for batch in run["batches"] if batch["state"] not in ("landed", "collected")]
        batches = f"{len(run['batches'])}" + (f" ({len(opened)} open)" if opened else "")
        rows = ", ".join(f"{count:,} {name}" for name, count in run["outcomes"].items()) or "-"
        state = run["result"] or _state(run)
        spent, flying = (None if run[name] is None else pico_from_usd(run[name]) for name in ("settled_usd", "in_flight_usd"))
        started = str(run["started_at"])[5:16].replace("T", " ")
        table.add_row(started, run["name"], state.replace("_", " "), batches, rows, dollars(spent), dollars(flying))
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


def dataset_rows(spec: EnrichmentSpec, rows: int, *, only_failed: bool) -> list[dict[str, Any]]:
    """Return the first rows of a dataset, key and answers first.

    Raises:
        SpecError: there is no dataset yet.
    """
    data = DatasetFolder(spec.output).data
    if not any(data.glob("*.parquet")):
        message = f"output: there is no dataset in {data} yet; run the spec first."
        raise SpecError(message)
    wanted = pc.field("_status") != Outcome.SUCCEEDED.value if only_failed else None
    found: pa.Table = pads.dataset(data, format="parquet").head(rows, filter=wanted)
    return found.to_pylist()


def rows_table(spec: EnrichmentSpec, rows: list[dict[str, Any]], width: int) -> RenderableType:
    """Return rows for a terminal: key, answers, how it ended; all else is left to other tools.

    Long texts are cut. Where there is no room for all columns, those that are left out are named.
    """
    if not rows:
        return "No such rows."
    known = {*spec.carried, *META_FIELDS.names}
    kept = [*spec.key, "_status", "_error"]
    names = [*spec.key, "_status", *(name for name in rows[0] if name not in known), "_error", "_cost_usd"]
    cells = {name: [_cell(row.get(name)) for row in rows] for name in names if any(row.get(name) is not None for row in rows)}
    whole = {name: min(max(map(cell_len, [name, *texts])), _WIDEST) for name, texts in cells.items()}
    gone = list[str]()
    while (room := width - sum(min(size, _NARROW) + _GAP for size in whole.values()) + _GAP) < 0:
        spare = [name for name in whole if name not in kept]
        if not spare:
            break
        gone.insert(0, spare[-1])
        del whole[spare[-1]]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for name, size in whole.items():
        more = max(min(size - _NARROW, room), 0)
        room -= more
        table.add_column(Text(name), no_wrap=True, overflow="ellipsis", width=min(size, _NARROW) + more)
    for row in zip(*(cells[name] for name in whole), strict=True):
        table.add_row(*map(Text, row))
    return Group(table, Text(f"… and {counted(len(gone), 'more column')}: {', '.join(gone)}")) if gone else table


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case list():
            return ", ".join(map(str, cast("list[Any]", value)))
        case float():
            return f"{value:g}"
        case Decimal():
            return f"{value.normalize():f}"
        case _:
            return " ".join(str(value).split())


def how_to_open(spec: EnrichmentSpec) -> str:
    """Return how to read the dataset from pandas and DuckDB."""
    data = DatasetFolder(spec.output).data
    return f"""Open it:
  pandas   pd.read_parquet("{data}")
  DuckDB   from read_parquet('{data}/*.parquet')"""
