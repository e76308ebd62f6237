"""Batches that do not end: how long one is waited for, and what is noted once that is over.

A provider may leave a batch `finalizing` or `cancelling` for good. So each is waited for until it
expires, or until it was asked to cancel, and `BATCHATA_CANCEL_GRACE` longer. Then it is overdue:
its rows stay held and its money reserved, its run ends without it, and each later run looks at it
once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.clock import at_awake, awake_clock, now_us
from batchata_tasks.common.files import make_folder, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.packs import kept_json

if TYPE_CHECKING:
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk, Ledger
    from batchata_tasks.providers import BatchLook

_DAY = 86400.0
_HOUR = 3600.0
_ASKED = "cancel_asked_at_us"
WHY, _CHARS = "overdue_because", 500
_LACKS_RESULTS = "lacks_results"
_TAKEN_BACK = "taken_back"
LANDS_IN_PART = "lands_in_part"
"""The fact that a person gave up the rows of an overdue chunk that its results lack."""


def note_intent(folder: DatasetFolder, chunk_id: str, **facts: Any) -> None:
    """Add facts to the file of a chunk's intent."""
    path = folder.intent(chunk_id)
    make_folder(folder.intents)
    write_json(path, {**(kept_json(path) or {}), **facts})


class WaitContext(Protocol):
    """What waiting for a batch needs of a run."""

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        ...

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings."""
        ...

    def log(self, text: str) -> None:
        """Report what goes on."""
        ...


class Wait:
    """For how long a chunk's batch is waited for, from whichever process that began.

    That is until it expires (by the provider, or else a day after it was sent) and the grace; or
    the grace from the first time that it was asked to cancel. That moment is noted beside the
    intent, so that a process that is killed meanwhile does not make the next one begin anew.
    `recorded` is what the ledger has of the last look: the status, and how many requests had ended.
    """

    def __init__(
        self, context: WaitContext, chunk: Chunk, recorded: tuple[str, int | None] | None = None
    ) -> None:
        self._context, self._chunk = context, chunk
        asked = (kept_json(context.folder.intent(chunk.id)) or {}).get(_ASKED)
        self._asked_at = None if asked is None else at_awake(asked)
        sent_at = context.ledger.submitted_at(chunk.batch_id or "") or now_us()
        self._sent, self._sent_at = sent_at / 1e6, at_awake(sent_at)  # since 1970; by `awake_clock`
        self._expires_at = self._sent_at + _DAY
        self._recorded = recorded
        self._told = set[str]()
        self.status: str | None = None  # as it was seen last
        self.cancelling = False  # whether it was asked to cancel in this process

    def cancel_was_asked(self) -> None:
        """Note that the batch was asked to cancel, whatever the provider answered."""
        self.cancelling = True
        if self._asked_at is None:
            note_intent(self._context.folder, self._chunk.id, **{_ASKED: now_us()})
            self._asked_at = awake_clock()

    @property
    def cancel_asked(self) -> bool:
        """Whether the batch was asked to cancel, by whichever process."""
        return self._asked_at is not None

    def saw(self, look: BatchLook) -> None:
        """Record how the batch is, and tell a status that nobody knows, once."""
        self.status = look.status
        if look.expires_at is not None:
            # by the provider's clock, which may be wrong: what counts is how long it may take
            began = self._sent if look.created_at is None else look.created_at
            life = look.expires_at - began
            self._expires_at = self._sent_at + (life if life > 0 else _DAY)
        # only what is new is written: a write per look would keep others off the ledger
        if (look.status, look.done) != self._recorded:
            ledger = self._context.ledger
            ledger.record_look(look.batch_id, look.status, look.done, ended=look.ended)
            self._recorded = look.status, look.done
        if not look.known and not look.ended:
            self.tell(
                f"batch {look.batch_id}: the provider says {look.status!r:.60}, which is not "
                "known; waiting."
            )

    def tell(self, text: str) -> None:
        """Tell something once."""
        if text not in self._told:
            self._told.add(text)
            self._context.log(text)

    def left(self) -> float:
        """Return for how many seconds it is still waited for; not above 0 once that is over."""
        asked_at = math.inf if self._asked_at is None else self._asked_at
        until = min(self._expires_at, asked_at) + self._context.settings.cancel_grace
        return until - awake_clock()

    @property
    def since(self) -> str:
        """Since what it was waited for, as words for people."""
        now = awake_clock()
        if self._asked_at is not None and self._asked_at < self._expires_at:
            return f"{_spell(now - self._asked_at)} after it was asked to cancel"
        return f"{_spell(now - self._expires_at)} after it was to expire"


def set_overdue(context: SubmitContext, chunk: Chunk, wait: Wait) -> None:
    """Set a chunk aside whose batch did not end; the intent's file says so too, and which it is."""
    status = "it cannot be looked at" if wait.status is None else f"{wait.status!r:.60}"
    set_aside(context, chunk, f"batch {chunk.batch_id} has not ended {wait.since} ({status}).")


def set_aside(
    context: SubmitContext, chunk: Chunk, problem: str, *, lacks_results: bool = False
) -> None:
    """Set a chunk aside whose batch brought no results; `problem` is a sentence that says why.

    It `lacks_results` if its batch has ended, and they cannot be had.
    """
    rows = held_rows(chunk)
    context.log(f"{problem} {rows[0].upper()}{rows[1:]} {remedy(chunk)}.")
    facts = {"overdue": True, "batch_id": chunk.batch_id, **_why(problem, lacks_results)}
    note_intent(context.folder, chunk.id, **facts)
    context.ledger.set_overdue(context.lease, chunk.id)


def note_why(folder: DatasetFolder, chunk: Chunk, problem: str, *, lacks_results: bool) -> None:
    """Keep why an overdue chunk is that by now."""
    note_intent(folder, chunk.id, **_why(problem, lacks_results))


def _why(problem: str, lacks_results: bool) -> dict[str, Any]:  # noqa: FBT001 - a fact to keep
    return {WHY: problem[:_CHARS], _LACKS_RESULTS: lacks_results, _TAKEN_BACK: False}


def note_taken_back(folder: DatasetFolder, chunk: Chunk) -> None:
    """Keep that a batch which was abandoned has ended, and is to be landed by the next run."""
    problem = f"batch {chunk.batch_id}, which was abandoned, has ended and was taken back."
    facts = {**_why(problem, lacks_results=False), _TAKEN_BACK: True}
    note_intent(folder, chunk.id, overdue=True, batch_id=chunk.batch_id, **facts)


def was_taken_back(folder: DatasetFolder, chunk: Chunk) -> bool:
    """Whether an overdue chunk's batch has ended, and only waits for the next run to land it."""
    return (kept_json(folder.intent(chunk.id)) or {}).get(_TAKEN_BACK) is True


def lacks_results(folder: DatasetFolder, chunk: Chunk) -> bool:
    """Whether an overdue chunk's batch has ended, and its results could not be had."""
    return (kept_json(folder.intent(chunk.id)) or {}).get(_LACKS_RESULTS) is True


def lands_in_part(folder: DatasetFolder, chunk: Chunk) -> bool:
    """Whether what there is of a chunk's results is to be landed, however many rows they lack."""
    return (kept_json(folder.intent(chunk.id)) or {}).get(LANDS_IN_PART) is True


def why_overdue(folder: DatasetFolder, chunk: Chunk) -> str:
    """Return the sentence that says why a chunk's batch is overdue, as it was told then."""
    why = (kept_json(folder.intent(chunk.id)) or {}).get(WHY)
    return why if isinstance(why, str) else f"batch {chunk.batch_id} brought no results in time."


def given_up_record(ledger_id: str, fence: int, chunk: Chunk, spent: int) -> dict[str, Any]:
    """Return the commit record of a chunk of which no row lands; `spent` is in picodollars."""
    return {
        "format": 1,
        "chunk": chunk.id,
        "run_id": chunk.run_id,
        "batch_id": chunk.batch_id,
        "ledger_id": ledger_id,
        "fence": fence,
        "rows": chunk.rows,
        "settled_picodollars": spent,
        "superseded_picodollars": 0,
        "overhead_picodollars": spent,
        "emptied": True,
    }


def held_rows(chunk: Chunk) -> str:
    """Say that a chunk's rows are held."""
    return f"its {pluralize(chunk.rows, 'row is', 'rows are')} held."


def remedy(chunk: Chunk, folder: DatasetFolder | None = None) -> str:
    """Say what becomes of an overdue batch, and what a person can do.

    With the `folder` of its dataset it is known whether it has ended.
    """
    if folder is not None and was_taken_back(folder, chunk):
        return "The next run lands them"
    return (
        "The next run lands them if its results come after all; "
        f"`batchata reconcile --abandon {chunk.batch_id}` gives it up, and its rows are paid for "
        "again"
    )


def _spell(seconds: float) -> str:
    seconds = max(seconds, 0)
    return f"{seconds / _HOUR:.1f} h" if seconds > _HOUR else f"{seconds:.0f} s"
