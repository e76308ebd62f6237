"""One look at each of some batches: by the providers' lists, if there are more than a few.

Nothing is waited for. A provider that does not answer now is asked again by the next pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import (
    CredentialsError,
    InputError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.text import duration, pluralize
from batchata_tasks.execution.look import NO_SUCH_BATCH
from batchata_tasks.execution.look_pace import note_refusal
from batchata_tasks.providers import (
    block_of,
    is_other_scope,
    names_of_account,
    open_adapter,
)
from batchata_tasks.providers.pace import within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.ledger import AwaitedBatch, Ledger
    from batchata_tasks.providers import Adapter, BatchLook

_FEW = 3  # batches of one provider that are looked at one by one
_MOST_LISTED = 2000  # batches of an account that are read to find those that are awaited
_DAY = 86400.0
_PATIENT = 20.0  # seconds for which one call may take


@dataclass
class Looks:
    """How batches are, by id; `unknown` are those that the provider does not know.

    `unseen` are those for whose account this process has no key, or a wrong one. `calls` is how
    many requests were made, and `notes` say what could not be asked.
    """

    by_id: dict[str, BatchLook] = field(default_factory=dict[str, "BatchLook"])
    unknown: set[str] = field(default_factory=set[str])
    unseen: set[str] = field(default_factory=set[str])
    calls: int = 0
    notes: list[str] = field(default_factory=list[str])


def look_at(batches: Iterable[AwaitedBatch], ledger: Ledger) -> Looks:
    """Look once at batches that have not ended, each with the credentials that it was sent with.

    Those are the environment's, or a block's, as they are now. A provider that wants to be left
    alone is not asked.
    """
    looks, by_account = Looks(), dict[tuple[str, str | None], list["AwaitedBatch"]]()
    for batch in batches:
        place = batch.chunk.provider, block_of(batch.scope)
        by_account.setdefault(place, []).append(batch)
    for (name, block), awaited in by_account.items():
        try:
            adapter = open_adapter(name, block=block)
        except InputError as error:  # no key, or an address that cannot be right
            looks.notes.append(f"{name} is not asked: {error}")
            looks.unseen |= {batch.batch_id for batch in awaited}
            continue
        try:
            paused = ledger.looks_under(adapter.account(ledger.id)).paused
            if paused > 0:
                looks.notes.append(
                    f"{name} was asked too often: it is left alone for {duration(paused)}"
                )
                continue
            _look(adapter, awaited, ledger.id, looks)
        except CredentialsError as error:  # refused here; another process may have the right key
            looks.notes.append(f"{name} cannot be asked: {error}")
            looks.unseen |= {batch.batch_id for batch in awaited} - looks.by_id.keys()
        except (TransientError, TerminalError) as error:
            if isinstance(error, TransientError):
                note_refusal(ledger, adapter.account(ledger.id), error)
            looks.notes.append(f"{name} cannot be asked now: {error}")
        finally:
            adapter.close()
    return looks


def _look(adapter: Adapter, awaited: list[AwaitedBatch], ledger_id: str, looks: Looks) -> None:
    """Look at the batches of one provider.

    Raises:
        TransientError, TerminalError, CredentialsError: it does not answer, or not under this key.
    """
    names = names_of_account(adapter, ledger_id)
    # an account may have got another key since: whether it is the same one, a look tells
    mine = [one for one in awaited if not is_other_scope(adapter, ledger_id, one.scope)]
    sure = {batch.batch_id for batch in mine if batch.account in names}
    wanted = {batch.batch_id for batch in mine}
    if len(wanted) > _FEW:
        _list(adapter, mine[0].submitted_at / 1e6 - _DAY, wanted, looks)
    left = wanted - looks.by_id.keys()
    # if they are many, another account's would take up this one's calls each minute
    for batch_id in [*sorted(left & sure), *sorted(left - sure)[:_FEW]]:
        looks.calls += 1
        try:
            with within(_PATIENT):
                looks.by_id[batch_id] = adapter.look(batch_id)
        except CredentialsError:
            if batch_id in sure:
                raise
        except (TransientError, TerminalError) as error:
            if error.status not in NO_SUCH_BATCH:
                raise
            if batch_id in sure:
                looks.unknown.add(batch_id)
    hidden = {batch.batch_id for batch in awaited} - looks.by_id.keys() - looks.unknown
    if hidden:
        looks.unseen |= hidden
        looks.notes.append(
            f"{pluralize(len(hidden), 'batch was', 'batches were')} sent to {adapter.name} under "
            "another key or other settings, so this process does not see them: `batchata "
            "reconcile` names what to set"
        )


def _list(adapter: Adapter, since: float, wanted: set[str], looks: Looks) -> None:
    """Find batches in the account's list, as far back as `since` (seconds since 1970)."""
    looks.calls += 1
    try:
        for number, look in enumerate(adapter.around(since), 1):
            if look.batch_id in wanted:
                looks.by_id[look.batch_id] = look
            if number >= _MOST_LISTED or wanted <= looks.by_id.keys():
                return
    except TerminalError:  # it has no list of batches
        return
