"""Creates of equal size, where batches carry no names: two in doubt could not be told apart.

So one waits while the other is unclear. Mostly that is one of the same run, which is answered right
now, or one of a run at work, which looks it up. One of a run that stopped is nobody's to settle but
a person's, or that run's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.clock import awake_clock
from batchata_tasks.common.errors import TerminalError
from batchata_tasks.common.text import pluralize
from batchata_tasks.ledger import ChunkState

if TYPE_CHECKING:
    from batchata_tasks.execution.context import SubmitContext
    from batchata_tasks.ledger import Chunk

_LONG = 10.0  # seconds of a wait after which people are told what it is for
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds


class Rivals:
    """The creates of equal size that a chunk's create waits for."""

    def __init__(self, context: SubmitContext, chunk: Chunk, account: str) -> None:
        self._context, self._chunk, self._account = context, chunk, account
        self._began, self._pause, self._is_told = awake_clock(), _SHORTEST_PAUSE, False

    def wait(self) -> None:
        """Wait a moment; say what for if it takes long.

        Raises:
            TerminalError: the run that sent the other one has stopped, for all of the grace in
                which it may be started again.
        """
        waited = awake_clock() - self._began
        if waited > self._context.settings.unclear_grace and (stopped := self._of_stopped_run()):
            message = (
                f"{self._context.provider.name}: {stopped} is in doubt, and another one of that "
                "size could not be told apart from it, so that it is not sent: start that run "
                "again, or settle it with `batchata reconcile`."
            )
            raise TerminalError(message)
        if waited > _LONG and not self._is_told:
            self._is_told = True
            self._context.log(self._reason())
        self._context.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _others(self) -> list[Chunk]:
        return [
            other
            for other, intent in self._context.ledger.unclear_chunks()
            if (other.state, intent.account, intent.requests)
            == (ChunkState.UNCLEAR, self._account, self._chunk.rows)
        ]

    def _of_stopped_run(self) -> str | None:
        """Name the create that is waited for, if no run is at work on it."""
        others = self._others()
        if not others or any(self._is_at_work(other) for other in others):
            return None
        name = self._context.ledger.run(others[0].run_id).name
        size = pluralize(self._chunk.rows, "request")
        return f"a create of {size} by a run of {name} that stopped (chunk {others[0].id})"

    def _is_at_work(self, other: Chunk) -> bool:
        is_of_this_run = other.run_id == self._chunk.run_id
        return is_of_this_run or self._context.ledger.is_held(other.dataset_id)

    def _reason(self) -> str:
        """Say for which create a chunk waits, and what a person can do if that is needed."""
        size = pluralize(self._chunk.rows, "request")
        if (stopped := self._of_stopped_run()) is not None:
            return (
                f"waiting: {stopped} is in doubt; start that run again, or settle it with "
                "`batchata reconcile`."
            )
        others = self._others()
        if not others or any(other.run_id == self._chunk.run_id for other in others):
            return (
                f"waiting: another create of this run, also of {size}, is not answered yet, or is "
                "looked up; two at a time could not be told apart."
            )
        name = self._context.ledger.run(others[0].run_id).name
        return (
            f"waiting: the run of {name}, which is at work, sends a create of {size}, too, or "
            "looks it up; two at a time could not be told apart."
        )
