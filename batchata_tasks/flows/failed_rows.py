"""The table of failed rows that a flow run leaves on Prefect's server."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.commands import naming
from batchata_tasks.common.html import shortened
from batchata_tasks.common.markdown import inert
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.key_words import key_options, word_of
from batchata_tasks.flows.artifacts import leave, slug
from batchata_tasks.reports.failed_rows import failed_rows
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.reports.failed_rows import FailedRow

_MOST = 100  # rows
_LONGEST_KEY = 200  # characters; a longer one is cut, and no command names it


def leave_failed_rows(
    client: SyncPrefectClient,
    flow_run_id: UUID,
    receipt: Receipt,
    key: list[str],
    spec: str | None,
) -> None:
    """Leave a table of the rows that failed in a run on a flow run's page; none if none did.

    `spec` is the path of its spec, if that is known.

    Raises:
        StorageError: the dataset cannot be read.
        HTTPError: the server does not take it.
    """
    rows, told = failed_table(receipt, key, spec)
    if rows:
        table = json.dumps(rows)
        leave(
            client, flow_run_id, key=failed_key(receipt), kind="table", data=table, description=told
        )


def failed_data(receipt: Receipt, key: list[str], spec: str | None) -> str:
    """Return what the table of a run's failed rows holds, as it is left."""
    return json.dumps(failed_table(receipt, key, spec)[0])


def failed_key(receipt: Receipt) -> str:
    """Return the key of the table of a run's failed rows."""
    return slug(f"failed-{receipt.name}")


def failed_table(
    receipt: Receipt, key: list[str], spec: str | None
) -> tuple[list[dict[str, str]], str]:
    """Return the rows that failed in a run, not too many, and a line about them."""
    failed = sum(rows for outcome, rows in receipt.outcomes.items() if outcome != Outcome.SUCCEEDED)
    if not failed:
        return [], ""
    data = Path(receipt.dataset)
    found = failed_rows(data, key, receipt.run_id)
    rows = [_cells(row, spec or str(data.parent)) for row in islice(found, _MOST)]
    more = f"; {failed - _MOST:,} more are not listed" if failed > _MOST == len(rows) else ""
    return rows, f"{pluralize(len(rows), 'row')} that failed{more}."


def _cells(row: FailedRow, spec: str) -> dict[str, str]:
    """Return a row of the table: one of Prefect's interfaces reads cells as Markdown."""
    words = [word_of(value) for value in row.key.values()]
    if len(words) > 1:
        words = [f"{name}={word}" for name, word in zip(row.key, words, strict=True)]
    shown = ", ".join(words)
    command = ""
    # Markdown has no code that quotes a backtick in a way that can be copied
    if shown.isprintable() and len(shown) <= _LONGEST_KEY and "`" not in shown:
        command = naming("`batchata show SPEC`", spec).strip("`") + f" {key_options(row.key)}"
    return {
        "key": inert(shortened(shown, _LONGEST_KEY)),
        "outcome": row.outcome,
        "error": inert(shortened(row.error or "")),
        "command": inert(command),
    }
