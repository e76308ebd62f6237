"""The sign that `watch` leaves for a ledger: a Prefect variable, for which its runs look.

A run is suspended only if somebody is going to resume it. That there is a deployment of `watch`
does not show that: it may look at another ledger, or at another copy of it, or have no key for the
account, or no way to the folder.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate

from batchata_tasks.common.json import as_dict
from batchata_tasks.common.unwatched import unwatched

if TYPE_CHECKING:
    from collections.abc import Iterable

FRESH = 600.0
"""Seconds for which a sign counts: `watch` is due every minute, and a pass may take some."""

_MOST = 50  # runs that are named: a variable holds 5000 characters


def leave_sign(ledger_id: str, unseen: Iterable[str]) -> None:
    """Leave the sign that `watch` looked at a ledger's batches, but for those of `unseen` runs.

    Raises:
        HTTPError: Prefect's server does not answer.
    """
    value = {
        "looked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cannot_see_runs": sorted(unseen)[:_MOST],
    }
    name = _name(ledger_id)
    with get_client(sync_client=True) as client:
        if client.read_variable_by_name(name) is None:
            client.create_variable(VariableCreate(name=name, value=value, tags=["batchata"]))
        else:
            client.update_variable(VariableUpdate(name=name, value=value))


def why_unwatched(ledger_id: str, let_go: Iterable[str]) -> str | None:
    """Return why nobody would resume a flow run; None if `watch` looks at its ledger's batches.

    `let_go` are the runs of the ledger for which it was suspended before.
    """
    with get_client(sync_client=True) as client:
        variable = client.read_variable_by_name(_name(ledger_id))
    sign = _read(None if variable is None else variable.value)
    looked_at = _moment(sign.get("looked_at"))
    ago = None if looked_at is None else (datetime.now(UTC) - looked_at).total_seconds()
    # one from the future is of a clock that was ahead, and tells nothing for as long as it was
    if ago is None or ago < -FRESH:
        return unwatched(None)
    if ago > FRESH:
        return unwatched(ago)
    unseen = str(sign.get("cannot_see_runs"))
    if any(run_id in unseen for run_id in let_go):
        return (
            "`watch` cannot look at its batches: it has no key for their account, no way to the "
            "dataset's folder, or another copy of the ledger"
        )
    return None


def _read(value: Any) -> dict[str, Any]:
    """Return a sign's facts: people may have edited the variable."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return as_dict(value)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _name(ledger_id: str) -> str:
    return f"batchata_watch_{ledger_id.lower()}"
