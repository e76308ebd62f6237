"""The flow runs of a Prefect server, as far as `watch` needs them: found, resumed, and told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from batchata_tasks.common.clock import now_us
from batchata_tasks.pipeline.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from batchata_tasks.progress.snapshot import Snapshot


@dataclass(frozen=True)
class Waiters:
    """The flow runs that waited for one run of the ledger, by their ids, the oldest first.

    Those that are `suspended`, those that are `under_way` again, and those that a person
    `cancelled`.
    """

    suspended: tuple[str, ...] = ()
    under_way: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


class Fate(StrEnum):
    """What became of a flow run whose process was lost."""

    STARTED = "started again"
    CANCELLED = "cancelled"  # by a person, before it was lost
    LEFT = "left as it is"


class FlowRuns(Protocol):
    """The flow runs of a Prefect server, if one `is_there`.

    `repeated` tells whether more passes follow this one: a single one is no sign that somebody
    resumes what is suspended.
    """

    is_there: bool
    repeated: bool

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        """Return the flow runs that wait for runs of the ledger, by run.

        Those that are suspended are told for all runs, the others for some alone.
        """
        ...

    def resume(self, flow_run_id: str) -> bool:
        """Have a suspended flow run started again; return False if nobody can do that."""
        ...

    def take_up(self, work: str) -> Fate:
        """Have a flow run started again whose process was lost, as the ledger names its work."""
        ...

    def leave_sign(self, ledger_id: str, unseen: Iterable[str], waiting: int) -> None:
        """Leave the sign that the ledger is watched, but for `unseen` runs.

        So many flow runs are still suspended, `waiting` for the next pass.
        """
        ...

    def show(self, work: str, name: str, snapshot: Snapshot) -> None:
        """Show on a flow run's page how the run of the ledger stands that it began.

        `work` is its id, or what the ledger calls it; `name` is its spec's.
        """
        ...

    def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
        """Tell what was landed here of a run that `work` began, and if it has ended, on its page.

        `key` are the columns of the dataset's key. It may be told again, and is there once.
        """
        ...

    def log(self, work: str, text: str) -> None:
        """Write a line into the log of the flow run that began a run of the ledger."""
        ...

    def take_up_lost(self, at_work: Collection[str]) -> list[str]:
        """Have the flow runs started again that were lost while they held no dataset; name them.

        `at_work` names the work of the processes that hold one.
        """
        ...

    def cancelled(self, works: Collection[str]) -> set[str]:
        """Return those works that are flow runs which a person cancelled."""
        ...


class NoFlowRuns:
    """See FlowRuns: there is no server."""

    is_there, repeated = False, False

    def waiters(self, ledger_id: str, runs: Iterable[str]) -> Mapping[str, Waiters]:
        """See FlowRuns."""
        del ledger_id, runs
        return {}

    def resume(self, flow_run_id: str) -> bool:
        """See FlowRuns."""
        del flow_run_id
        return False

    def take_up(self, work: str) -> Fate:
        """See FlowRuns."""
        del work
        return Fate.LEFT

    def leave_sign(self, ledger_id: str, unseen: Iterable[str], waiting: int) -> None:
        """See FlowRuns."""
        del ledger_id, unseen, waiting

    def show(self, work: str, name: str, snapshot: Snapshot) -> None:
        """See FlowRuns."""
        del work, name, snapshot

    def tell(self, work: str | None, receipt: Receipt, key: list[str], *, ended: bool) -> None:
        """See FlowRuns."""
        del work, receipt, key, ended

    def log(self, work: str, text: str) -> None:
        """See FlowRuns."""
        del work, text

    def take_up_lost(self, at_work: Collection[str]) -> list[str]:
        """See FlowRuns."""
        del at_work
        return []

    def cancelled(self, works: Collection[str]) -> set[str]:
        """See FlowRuns."""
        del works
        return set()


@dataclass(frozen=True)
class Untold:
    """What Prefect's server is to be told of a run that `watch` ended or landed: see `tell`.

    `at` is the moment when that was done, in microseconds since 1970.
    """

    work: str | None
    key: list[str]
    ended: bool
    receipt: Receipt
    at: int = field(default_factory=now_us)

    def to_json(self) -> str:
        """Return it as a text."""
        facts = {"work": self.work, "key": self.key, "ended": self.ended, "at": self.at}
        return json.dumps({**facts, "receipt": self.receipt.to_json()})

    @staticmethod
    def from_json(text: str) -> Untold | None:
        """Return what a text says; None if a program of another version wrote it."""
        facts: dict[str, Any] = json.loads(text)
        try:
            return Untold(receipt=Receipt(**facts.pop("receipt")), **facts)
        except TypeError:
            return None
