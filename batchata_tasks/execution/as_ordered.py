"""Whether what another process made of a chunk's results is what was asked for.

Its file may be cut short, or be another chunk's: a worker, or the file system between, may fail in
any way. So it is compared with the chunk's manifest, and with what is said of it, before it settles
money or becomes part of the dataset. Its rows are compared by column, not one by one: their names,
outcomes and costs.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.arrow_types import as_stored
from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.columns import UNKNOWN_COST, picodollars
from batchata_tasks.dataset.manifest import manifest_schema, read_chunk_manifest
from batchata_tasks.dataset.part_files import opened_part, part_of_chunk
from batchata_tasks.dataset.stored_json import parquet_schema
from batchata_tasks.execution.made_part import MadePart, PartColumns, end_of
from batchata_tasks.execution.sent_rows import custom_ids_of
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.execution.run_ref import PartOrder
    from batchata_tasks.ledger import Chunk

_COMPARED = ["_custom_id", "_status", "_cost_usd"]
_SENT = ["_row_id", "_replaces", "_prior_status", "_prior_cost", "_replaced_cost"]


def as_ordered(
    context: BatchContext, chunk: Chunk, order: PartOrder, values: object
) -> MadePart | None:
    """Return a part as another process says it has made it; None if that is not what was asked for.

    Then the file is deleted, and the run's log says what differs.
    """
    try:
        made = MadePart.from_json(values, context.folder.own)
    except ValueError:
        _tell(context, chunk, "what it says of the file cannot be read")
        return None
    name = made.file.name
    if not name.startswith(f".{part_of_chunk(chunk.id)}.") or not name.endswith(".tmp"):
        _tell(context, chunk, "it names another file")
        return None
    difference = _difference(context, chunk, order, made)
    if difference is None:
        return made
    with suppress(OSError):
        made.file.unlink(missing_ok=True)
    _tell(context, chunk, difference)
    return None


def _tell(context: BatchContext, chunk: Chunk, difference: str) -> None:
    number = context.run.number_of(chunk)
    context.log(
        f"batch {number}: what a worker made of its results is not what was asked for "
        f"({difference}); this process reads them instead."
    )


def _difference(
    context: BatchContext, chunk: Chunk, order: PartOrder, made: MadePart
) -> str | None:
    """Return in which way a part differs from what was asked for; None if it does not."""
    manifest = context.folder.manifest(chunk.id)
    own_columns = PartColumns.of(context.folder, manifest_schema(manifest))
    columns = as_stored(parquet_schema(own_columns.under(context.run.answers.common)))
    try:
        with opened_part(made.file) as file:
            if not file.schema_arrow.remove_metadata().equals(columns):
                return "its columns are others"
            rows = file.read(_COMPARED)
    except (OSError, StorageError):
        return "its file is not there, or cannot be read"
    sent = read_chunk_manifest(manifest, _SENT)
    if not _may_leave(sent, made):
        return "it leaves rows where they are not"
    left = pa.array(made.left_at, pa.int64())
    there = pc.invert(pc.is_in(pa.array(range(sent.num_rows), pa.int64()), left))
    alike = {
        "its rows are not those of the batch": _has_names(rows, sent.filter(there), chunk.id),
        "its rows have other outcomes than it says": _has_outcomes(rows, made),
        "its rows cost something else than it says": _adds_up(rows, sent, left, made),
        "it is not of this order": _is_of_order(sent, order, made),
    }
    return next((text for text, holds in alike.items() if not holds), None)


def _has_names(rows: pa.Table, sent: pa.Table, token: str) -> bool:
    """Whether rows are those that were sent, each of them once, in any order."""
    names = custom_ids_of(token, sent["_row_id"]).combine_chunks()
    places: Any = pc.index_in(rows["_custom_id"], value_set=names)
    return rows.num_rows == len(names) == len(pc.unique(places.drop_null()))


def _may_leave(sent: pa.Table, made: MadePart) -> bool:
    """Whether the rows that stay in an older part have one, and each is told once."""
    at, ends = made.left_at, made.left_as
    if len(at) != len(ends) or len(set(at)) != len(at):
        return False
    if not all(0 <= position < sent.num_rows for position in at):
        return False
    return pc.take(sent["_replaces"], pa.array(at, pa.int64())).null_count == 0


def _has_outcomes(rows: pa.Table, made: MadePart) -> bool:
    """Whether rows have the outcomes that their part adds up.

    Those that keep an earlier answer succeeded, whatever their new attempt is counted as.
    """
    counts = _counts(rows["_status"])
    told = Counter({outcome: tally.rows for outcome, tally in made.report.tallies.items()})
    told -= Counter(end_of(text)[0] for text in made.left_as)
    told[Outcome.SUCCEEDED.value] += made.kept
    return not counts - told and (told - counts).total() == made.kept


def _adds_up(rows: pa.Table, sent: pa.Table, left: pa.Array, made: MadePart) -> bool:
    """Whether the money that a part adds up is that of its rows, to the picodollar.

    A row holds what earlier attempts cost, too; if a part of that is unknown, it holds nothing, and
    the report has the rest. What the rows had cost that stay in an older part is not replaced.
    """
    report = made.report
    amounts = picodollars(rows["_cost_usd"].combine_chunks())
    in_rows = int(amounts[amounts != UNKNOWN_COST].sum()) + report.superseded
    paid = sum(tally.cost or 0 for tally in report.tallies.values())
    stayed = _sum(pc.take(sent["_replaced_cost"], left))
    replaced = _sum(sent["_replaced_cost"]) + report.superseded - stayed
    return in_rows == paid + _sum(sent["_prior_cost"]) and made.superseded == replaced


def _is_of_order(sent: pa.Table, order: PartOrder, made: MadePart) -> bool:
    """Whether a part has the moment of its order, and says what its chunk replaces and retries."""
    said = made.enriched_at, set(made.replaces), Counter(made.retried)
    return said == (
        order.landed_at,
        set(_counts(sent["_replaces"])),
        _counts(sent["_prior_status"]),
    )


def _counts(column: Any) -> Counter[str]:
    """Return how often a column has each of its values."""
    pairs: list[dict[str, Any]] = pc.value_counts(column.drop_null()).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})


def _sum(column: Any) -> int:
    return pc.sum(column).as_py() or 0
