"""The boundaries between a run's steps, and runs that kill themselves at one.

A boundary is recognised by what the process makes durable or sends (see trace.py), not by the names
of functions. Only the launcher's child reads `KILL_AT`; the program under test does not know it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.recovery.trace import Event, Kind, Trace, recorded

if TYPE_CHECKING:
    from contextlib import ExitStack

KILL_AT = "TEST_KILL_AT"  # "<boundary>" or "<boundary>:<n>": at the nth time that it is reached


@dataclass(frozen=True)
class Boundary:
    """A moment between two steps: an event of a kind whose subject matches a pattern."""

    kind: Kind
    what: str
    per_chunk: bool = True
    second_round: bool = False  # reached only if older rows are superseded
    merges: bool = False  # reached only if enough small parts have gathered
    absent: bool = False  # a create of unknown fate never arrived: its absence must be proven

    def is_reached(self, event: Event) -> bool:
        """Whether this event is the boundary."""
        return event.kind == self.kind and re.search(self.what, event.what) is not None


BOUNDARIES: dict[str, Boundary] = {
    "the dataset is held": Boundary("committed", "^held$", per_chunk=False),
    "owner.json is written aside": Boundary("fsync", r"/\.owner\.json", per_chunk=False),
    "the run is in the ledger": Boundary("committed", "^planning ", per_chunk=False),
    "the plan is half written": Boundary("fsync", r"/runs/.*/\.plan\.arrow", per_chunk=False),
    "the plan is written": Boundary("begins", "^open ", per_chunk=False),
    "the plan is fixed": Boundary("committed", "^open ", per_chunk=False),
    "money is reserved": Boundary("committed", "^reservations "),
    "the manifest is written aside": Boundary("fsync", r"/intents/\..*\.arrow"),
    "the request file is written aside": Boundary("fsync", "/requests/"),
    "the request file is written": Boundary("folder", "/requests$"),
    "the intent's file is written aside": Boundary("fsync", r"/intents/\..*\.json"),
    "the intent's file is written": Boundary("begins", "^intents "),
    "the intent is in the ledger": Boundary("committed", "^intents ", absent=True),
    "the create is about to be sent": Boundary("send", "", absent=True),
    "the create is half sent": Boundary("half", "", absent=True),
    "the create is sent": Boundary("sent", ""),
    "the create is answered": Boundary("answer", ""),
    "the batch id is about to be recorded": Boundary("begins", "^batches "),
    "the batch id is recorded": Boundary("committed", "^batches "),
    "the end of the batch was seen": Boundary("committed", "^looked "),
    "the results are written aside": Boundary("fsync", r"/responses/.*\.jsonl"),
    "the results are there": Boundary("fsync", r"/responses/\.[a-z0-9]+\.json\."),
    "the outcomes are about to be counted": Boundary("begins", "^collected "),
    "the outcomes are counted": Boundary("committed", "^collected "),
    "the commit record is written aside": Boundary("fsync", "/commits/"),
    "the part is written aside": Boundary("rename", r"/data/part-"),
    "the part is there": Boundary("folder", "/data$"),
    "an older part is rewritten aside": Boundary(
        "rename", r"/data/part-.*\.v[0-9]+\.parquet", per_chunk=False, second_round=True
    ),
    "an older part is emptied": Boundary("unlink", r"/data/part-", second_round=True),
    "the chunk is about to be landed": Boundary("begins", "^landed "),
    "the chunk is landed": Boundary("committed", "^landed "),
    "the run is about to be closed": Boundary("begins", "^closed ", per_chunk=False),
    "the run is closed": Boundary("committed", "^closed ", per_chunk=False),
    "small parts are merged aside": Boundary(
        "rename", r"/data/merged-[0-9a-f]+\.parquet", per_chunk=False, merges=True
    ),
    "a part is deleted that was merged": Boundary("unlink", r"/data/part-", merges=True),
    "the plan is half deleted": Boundary("unlink", "/runs/.*/plan", per_chunk=False),
    "the dataset is let go": Boundary("committed", "^released$", per_chunk=False),
}


class Killer(Trace):
    """A trace that ends its own process, without warning, when it reaches a boundary.

    `nth` counts how often.
    """

    def __init__(self, boundary: Boundary, nth: int) -> None:
        super().__init__()
        self._boundary = boundary
        self._left = nth
        self._lock = threading.Lock()

    def add(self, kind: Kind, what: object, **more: Any) -> Event:
        event = super().add(kind, what, **more)
        with self._lock:
            if self._boundary.is_reached(event):
                self._left -= 1
                if not self._left:
                    os.kill(os.getpid(), signal.SIGKILL)
        return event


def armed(patches: ExitStack) -> None:
    """Let this process die at the boundary that its environment names.

    Only the launcher's child calls it.
    """
    if (name := os.environ.pop(KILL_AT, None)) is not None:
        name, _, nth = name.partition(":")
        patches.enter_context(recorded(Killer(BOUNDARIES[name], int(nth or 1))))
