"""Whether the source still has what an unfinished run planned: a pass that plans nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.planning.fingerprint import changed
from batchata_tasks.planning.planner import Planner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import pyarrow as pa

    from batchata_tasks.dataset.manifest import PlanWriter
    from batchata_tasks.planning.compared_rows import ComparedRows
    from batchata_tasks.planning.key_arrays import SentRow
    from batchata_tasks.planning.landed import LandedRow
    from batchata_tasks.planning.planner import Wanted
    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.planning.summary import Options, SentBefore
    from batchata_tasks.planning.table import PreparedTable


@dataclass(frozen=True, slots=True)
class Difference:
    """How the rows that an unfinished run has not sent differ from those of today's source.

    `stale` ones ask something else by now, or are gone; `more` are to be sent and not planned.
    """

    stale: int
    more: int


class PlanCheck(Planner):
    """A planning pass that compares the source with the rows that a run planned.

    Of the rows that the run has landed, the ones that failed are for its next round.
    """

    def __init__(
        self,
        table: PreparedTable,
        folder: Path,
        dataset_id: str,
        options: Options,
        progress: Callable[[int], None],
        legacy: Mapping[str, pa.DataType],
        sent_before: SentBefore,
    ) -> None:
        super().__init__(
            table,
            folder,
            dataset_id,
            options,
            progress,
            legacy=legacy,
            lands_first=True,
            sent_before=sent_before,
        )
        self._unchanged = 0  # of the rows that are planned

    def compare(self, rows: Iterable[SentRow], planned: int) -> Difference:
        """Make the pass; `rows` are those that are in flight or planned, and `planned` so many.

        Raises:
            SourceError: see `run`.
        """
        self.run(rows)
        return Difference(planned - self._unchanged, self._reasons.total())

    def _reason_in_flight(self, compared: ComparedRows, place: int) -> str | None:
        if not compared.planned[place]:
            return super()._reason_in_flight(compared, place)
        self._unchanged += not compared.changed_in_flight(place)
        return None

    def _reason(self, compared: ComparedRows, place: int, landed: LandedRow | None) -> str | None:
        is_own = landed is not None and landed.part in self._sent_before.parts
        if landed and is_own and not changed(landed.fingerprint, compared.fingerprint(place)):
            return None
        return super()._reason(compared, place, landed)

    def _write(
        self,
        rows: RowBlock,
        compared: ComparedRows,
        wanted: list[Wanted],
        writers: Mapping[str, PlanWriter],
    ) -> None:
        """Write nothing: what is to be sent is planned once the run has ended."""
