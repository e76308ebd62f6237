"""A ledger as another process sees it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sqlalchemy import Engine


class LedgerLook:
    """The contents of a ledger for one dataset."""

    def __init__(self, ledger_url: str, output: Path) -> None:
        self.ledger_url, self.output = ledger_url, output
        self._engine: Engine | None = None

    def ask_ledger(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; there are none before the ledger exists.

        {datasets} and {runs} are this dataset's.
        """
        if (
            self.ledger_url.startswith("sqlite")
            and not Path(make_url(self.ledger_url).database or "").exists()
        ):
            return []
        datasets = f"(SELECT id FROM datasets WHERE url = '{self.output.resolve().as_uri()}')"
        runs = f"(SELECT id FROM runs WHERE dataset_id IN {datasets})"
        try:
            with self._looked_at().connect() as connection:
                rows = connection.exec_driver_sql(query.format(datasets=datasets, runs=runs))
                return [tuple(row) for row in rows]
        except (OperationalError, ProgrammingError):  # no tables yet
            return []

    def _looked_at(self) -> Engine:
        if self._engine is None:
            file = make_url(self.ledger_url).database
            looks = (
                f"sqlite:///file:{file}?mode=ro&uri=true"
                if self.ledger_url.startswith("sqlite")
                else self.ledger_url
            )
            self._engine = create_engine(looks, poolclass=NullPool)
        return self._engine

    def stages(self) -> Counter[str]:
        """Return the stages of the newest run's chunks, with their number."""
        chunks = self.ask_ledger(
            "SELECT u.state, c.state, r.chunk_id IS NOT NULL, b.ended_at IS NOT NULL"
            " FROM (SELECT id, state FROM runs WHERE id IN {runs}"
            " ORDER BY started_at DESC LIMIT 1) u"
            " LEFT JOIN chunks c ON c.run_id = u.id"
            " LEFT JOIN reservations r ON r.chunk_id = c.id"
            " LEFT JOIN batches b ON b.chunk_id = c.id"
        )
        if not chunks:
            return Counter({"starting": 1})
        state = chunks[0][0]
        if state != "open":
            return Counter({"planning" if state == "planning" else "ended": 1})
        names = {
            ("planned", 1, 0): "writing",
            ("unclear", 1, 0): "sending",
            ("submitted", 1, 0): "polling",
            ("submitted", 1, 1): "downloading",
            ("collected", 1, 1): "landing",
        }
        return Counter(names[chunk[1:]] for chunk in chunks if chunk[1:] in names) or Counter(
            {"between": 1}
        )
