"""The landed rows that the source lacks by now, and those that it has again.

A row is missing if no row of the source has its key. Rows that `where` leaves out, that are beyond
`limit`, or that have a null are in the source, so they are not missing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.planning.key_arrays import Keys

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from batchata_tasks.planning.key_arrays import InFlight
    from batchata_tasks.planning.landed import Landed
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import PreparedTable

_ByPart = dict[str, set[bytes]]


@dataclass(frozen=True)
class MissingRows:
    """The keys (digests) of landed rows, by part: those that are `gone`, and those that are `back`.

    `rows` counts the gone ones, `of` all that were there before. `kept` counts those that the
    source lacks and that stay as they are; 0 if nobody looked.
    """

    gone: _ByPart = field(default_factory=_ByPart)
    back: _ByPart = field(default_factory=_ByPart)
    rows: int = 0
    of: int = 0
    kept: int = 0


class SourceLook:
    """Notes which landed rows the source has, block by block.

    It looks at rows that are left out, too, if the spec asks what is missing, or rows are marked
    that may be back. Else that is not worth the time.
    """

    def __init__(self, table: PreparedTable, landed: Landed) -> None:
        self._table, self._landed = table, landed
        self._seen = np.zeros(len(landed), np.bool_)
        self._is_needed = table.spec.missing is not None or bool(landed.marked.any())
        self._saw_all = True

    def note(self, places: NDArray[np.int64]) -> None:
        """Note the places of landed rows whose keys rows of the source have; -1 is none."""
        self._seen[places[places >= 0]] = True

    def note_left_out(self, batch: pa.RecordBatch) -> None:
        """Note rows of the source that are left out; their keys may be null."""
        if not self._is_needed:
            self._saw_all = False
            return
        key = self._table.spec.key
        for name in key:
            batch = batch.filter(pc.is_valid(batch.column(name)))
        rows = self._table.source.stored(batch.select(key))
        self.note(self._landed.keys.find(Keys.of(key_digests(keys_of(rows, key)))))

    def missing(self, flying: InFlight) -> MissingRows:
        """Return what is missing once the whole source was read.

        A row on its way is not to be deleted: its answer counts on what it replaces.
        """
        marked, terms = self._landed.marked, self._table.spec.missing
        back = self._by_part(self._seen & marked)
        if terms is None:
            kept = int((~self._seen).sum()) if self._saw_all else 0
            return MissingRows(back=back, kept=kept)
        before = np.ones(len(marked), np.bool_) if terms.delete else ~marked
        gone = ~self._seen & before
        if terms.delete and len(flying):
            gone &= flying.find(self._landed.keys) < 0
        return MissingRows(self._by_part(gone), back, int(gone.sum()), int(before.sum()))

    def _by_part(self, rows: NDArray[np.bool_]) -> _ByPart:
        found, keys = defaultdict[str, set[bytes]](set), self._landed.keys
        for place in np.flatnonzero(rows).tolist():
            found[self._landed.part(place)].add(keys.digest(place))
        return dict(found)


def require_whole_source(table: PreparedTable, missing: MissingRows, summary: PlanSummary) -> None:
    """Refuse to mark or delete rows if so many are missing that the source may be cut.

    Raises:
        SourceError: with the remedy; nothing was changed or sent.
    """
    terms = table.spec.missing
    if terms is None or not missing.rows:
        return
    done = "deleted" if terms.delete else "marked"
    if not summary.source_rows:
        message = (
            f"on_missing: the source has no rows, so that all {missing.of:,} of the dataset would "
            f"be {done}; nothing was changed or sent: look at the source, or set "
            "`on_missing: keep`."
        )
        raise SourceError(message)
    share = missing.rows / missing.of
    if share > terms.most:
        enough = math.ceil(share * 100) / 100
        rows = pluralize(missing.rows, "row")
        message = (
            f"on_missing: {rows} of {missing.of:,} of the dataset ({share:.1%}) are no longer in "
            f"the source and would be {done}, and `max_missing_share` allows {terms.most:.1%}; "
            "nothing was changed or sent: look whether the source is whole, and if it is, run "
            f"once with `--set max_missing_share={enough:g}`."
        )
        raise SourceError(message)
