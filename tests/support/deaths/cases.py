"""What dies at which moment, and what must have become of the run after that, by itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tests.support.deaths import moments
from tests.support.deaths.world import ROWS, Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.deaths.moments import Begun

WITHIN, CANCELLED_WITHIN = 180.0, 90.0
"""Seconds in which a lost run must be taken up, and in which batches are cancelled if one lives."""
_ENDED = ("COMPLETED", "CANCELLED", "FAILED")
_PATIENCE = 420.0  # seconds in which a run must have ended

# each process or machine that dies, and what is done to it
VICTIMS: dict[str, Callable[[Lane, str], None]] = {
    "engine": Lane.kill_engine,
    "worker": Lane.kill_worker,
    "both": Lane.kill_both,
    "drain": Lane.drain_worker,
    "server": Lane.kill_server,
    "database": Lane.kill_database,
    "cancelled": Lane.cancel,
}
MOMENTS: dict[str, Callable[[Lane, str], Begun]] = {
    "scheduled": moments.scheduled,
    "pending": moments.pending,
    "planning": moments.planning,
    "submitting": moments.submitting,
    "waiting in its process": moments.waiting,
    "suspended": moments.suspended,
    "resuming": moments.resuming,
    "starting again": moments.starting_again,
    "landing": moments.landing,
    "cancelling": moments.cancelling,
}
SHARED = ("server", "database")
"""What all teams of a server lose at once."""
_NO_PROCESS = {"suspended", "resuming"}  # at which there is no engine to kill
_FOR_PEOPLE = {"scheduled", "waiting in its process"}  # at which a run is cancelled, that is all
_GONE = ("ended", "canceling")


@dataclass(frozen=True)
class Fate:
    """What became of a run; all times are in seconds from the death.

    `states` are those that the run went through since, as (seconds, name, who set it). `ran` is how
    many requests the provider answered, and `rows` how many have an answer in the dataset.
    `cancelled_after` tells when no batch of a cancelled run went on at the provider.
    """

    moment: str
    victim: str
    states: list[tuple[float, str, str]]
    rows: int
    ran: int
    accepted: int
    twice: int
    ended_after: float
    cancelled_after: float

    @property
    def is_cancelled(self) -> bool:
        """Whether a person cancelled the run."""
        return self.moment == "cancelling" or self.victim == "cancelled"

    @property
    def taken_up_by(self) -> str:
        """Who took the run up, as its states tell."""
        who = [one for _, name, one in self.states if one and name != "Crashed"]
        if who:
            return ", ".join(dict.fromkeys(who))
        names = [name for _, name, _ in self.states]
        if "Resuming" in names:
            return "watch"
        if "Pending" in names or "Running" in names:
            return "a worker"
        return "nobody: it went on"

    @property
    def taken_up_after(self) -> float | None:
        """After how long it ran again, or was ended; None if it went on."""
        if self.taken_up_by.startswith("nobody"):
            return None
        ended = ("Cancelled", "Failed", "Running")
        return next((after for after, name, _ in self.states if name in ended), float("inf"))

    def problems(self) -> list[str]:
        """Return what must not be."""
        wrong = {
            f"taken up after {self.taken_up_after} s": (self.taken_up_after or 0) > WITHIN,
            "it did not end": self.ended_after == float("inf"),
            f"{self.rows} rows, {self.ran} ran": self.rows != self.ran,
            f"{self.rows} rows": self.rows != ROWS and not self.is_cancelled,
            f"{self.accepted} requests accepted": self.accepted > ROWS,
            f"{self.twice} accepted twice": self.twice,
            f"cancelled after {self.cancelled_after} s": self.is_cancelled
            and self.cancelled_after > (CANCELLED_WITHIN if self.victim == "cancelled" else WITHIN),
        }
        return [text for text, holds in wrong.items() if holds]

    def line(self) -> str:
        """Return it as a line of a Markdown table."""
        states = " → ".join(f"{name} {after:.0f} s" for after, name, _ in self.states)
        after = self.cancelled_after if self.is_cancelled else self.taken_up_after
        cells = (
            self.moment,
            self.victim,
            states or "nothing changed",
            self.taken_up_by,
            "" if after is None else f"{after:.0f} s",
            f"{self.ended_after:.0f} s",
            f"{self.rows:,}",
            f"{self.twice}",
            "; ".join(self.problems()) or "well",
        )
        return f"| {' | '.join(cells)} |"


HEADER = """\
| moment | killed | states since | taken up by | after | ended after | rows | twice | |
|---|---|---|---|---|---|---|---|---|
"""


def cases() -> list[tuple[str, str]]:
    """Return each (moment, victim) that makes sense."""
    return [
        (moment, victim)
        for victim in VICTIMS
        for moment in MOMENTS
        if not (victim in ("engine", "drain") and moment in _NO_PROCESS)
        and (victim != "cancelled" or moment != "cancelling")
        and (victim == "cancelled" or moment not in _FOR_PEOPLE)
    ]


def died(lane: Lane, moment: str, victim: str) -> Fate:
    """Bring a run to a moment, let something die, and do nothing more by hand but to wait."""
    run = MOMENTS[moment](lane, f"{moment.replace(' ', '-')}-{victim}")
    killed = time.time()
    VICTIMS[victim](lane, run.id)
    is_cancelled = moment == "cancelling" or victim == "cancelled"
    cancelled_after = ended_after = float("inf")
    while ended_after == float("inf") and time.time() < killed + _PATIENCE:
        if is_cancelled and cancelled_after == float("inf") and _is_stopped(run):
            cancelled_after = time.time() - killed
            lane.emulator.control.progress("immediate")  # the provider is done with cancelling
        if _is_over(run):
            ended_after = time.time() - killed
        time.sleep(1)
    book = lane.emulator.control.ledger()["anthropic"]
    return Fate(
        moment,
        victim,
        [_told(state, killed) for state in run.states() if _moment(state) > killed],
        _answered(run),
        book["requests_billed"],
        book["requests_accepted"],
        book["accepted_twice"]["number"],
        ended_after,
        cancelled_after,
    )


def _is_stopped(run: Begun) -> bool:
    """Whether no batch goes on at the provider, nor a process that could send one."""
    batches = run.lane.emulator.control.ledger()["anthropic"]["batches"]
    is_gone = all(batch["status"] in _GONE for batch in batches)
    return is_gone and not run.lane.team.engines(run.id)


def _is_over(run: Begun) -> bool:
    """Whether a run has ended, on the server and in the ledger."""
    try:
        if run.state()["type"] not in _ENDED:
            return False
    except OSError:  # the server is away
        return False
    return bool(run.stage("ended") or run.stage("starting"))


def _answered(run: Begun) -> int:
    folder = run.ledger.output / "data"
    if not any(folder.glob("*.parquet")):
        return 0
    return pq.read_table(folder, columns=["_status"])["_status"].to_pylist().count("succeeded")


def _moment(state: dict[str, Any]) -> float:
    return datetime.fromisoformat(state["timestamp"]).timestamp()


def _told(state: dict[str, Any], killed: float) -> tuple[float, str, str]:
    message = state["message"] or ""
    signs = {
        "carries on.": "watch",
        "lost while it was being cancelled": "watch",
        "is not started again": "watch",
        "It crashed; it is started again": "an automation",
        "another one may": "an automation",
        "Its process was lost": "watch",
        "No sign of life": "an automation",
        "exited with status": "the worker",
    }
    who = next((who for sign, who in signs.items() if sign in message), "")
    if state["name"] == "AwaitingRetry" and "It crashed; it is started again" in message:
        who = "an automation"
    return _moment(state) - killed, state["name"], who
