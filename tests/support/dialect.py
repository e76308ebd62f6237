"""One dialect for all SQLite ledgers of a process, which then compile each statement once.

Each test opens ledgers of its own, and each engine has an empty cache of compiled statements:
filling it took a sixth of the suite's time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, create_engine

from batchata_tasks.ledger import Ledger, engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL, Engine


def sharing_one_dialect() -> Callable[..., Engine]:
    """Return what makes engines as `create_engine` does, those of SQLite with one dialect."""
    first = create_engine("sqlite://")
    first.connect().close()  # which tells the dialect what this SQLite can do

    def sharing(url: URL, **options: Any) -> Engine:
        made = create_engine(url, **options)
        if url.get_backend_name() == "sqlite":
            made.dialect = made.pool._dialect = first.dialect
            made._compiled_cache = first._compiled_cache
        return made

    return sharing


def compile_all(file: Path) -> None:
    """Compile the queries of this process's ledgers to come, by asking one of them in a file.

    A process that forks others does so before: it is a quarter of a small run.
    """
    engine.create_engine = sharing_one_dialect()
    ledger = Ledger(f"sqlite:///{file}")
    with ledger.engine.connect() as connection:
        for query in _queries():
            unset = [bind for bind in query.compile().binds.values() if bind.required]
            connection.execute(query, {bind.key: [0] if bind.expanding else 0 for bind in unset})
    ledger.close()


def _queries() -> Iterator[Select[Any]]:
    """Yield the queries that the modules of the ledger build once."""
    for name, module in list(sys.modules.items()):
        if name.startswith(engine.__package__ or ""):
            yield from (value for value in vars(module).values() if isinstance(value, Select))
