"""A batch in the store: its requests, its progress, and what it billed.

Requests run in an order shuffled by the batch id. They run only when the batch is looked at: then
as many run as would have run by that time at the emulator's pace. A cancelled or expired batch
keeps the results that it has.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.answers.odd_bytes import odd_bytes
from batchata_tasks.emulator.answers.text import USUAL
from batchata_tasks.emulator.core.clock import DAY, Pace
from batchata_tasks.emulator.core.fate import Fate

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.answers.text import Answer
    from batchata_tasks.emulator.answers.tokens import Cached
    from batchata_tasks.emulator.core.fate import Ending
    from batchata_tasks.emulator.core.spool import Sealed, Spool

_ROUNDING = 1e-9  # so that 0.6 / 0.75 of ten requests are eight requests
_UNDER_WAY = 0.7  # the share of its life at which a batch that will not finish stops
_ALMOST = 0.95  # the share at which a batch that is stuck stops
_STEP = 250  # requests that run before other calls get their turn


@dataclass(slots=True)
class Requests:
    """The requests of a batch, kept as bytes."""

    custom_ids: list[str] = field(default_factory=list[str])
    content: Sealed = b""
    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    hashes: list[bytes] = field(default_factory=list[bytes])
    """Of each body without its custom_id, so that a content has the same hash in all batches."""

    def raw(self, index: int) -> bytes:
        """Return the stored bytes of one request."""
        return self.content[self.starts[index] : self.ends[index]]

    def add(self, custom_id: str, start: int, end: int, content_hash: bytes) -> None:
        """Append one request by its bounds in the content."""
        self.custom_ids.append(custom_id)
        self.starts.append(start)
        self.ends.append(end)
        self.hashes.append(content_hash)


class Batch(ABC):
    """What both providers' batches have in common."""

    provider: str
    prefix: str

    def __init__(self, batch_id: str, account: str, created_at: float, requests: Requests) -> None:
        self.id = batch_id
        self.id_on_wire: str | int = batch_id
        self.account = account
        self.created_at = created_at
        self.appears_at = -inf
        self.listed_at = -inf
        self.requests = requests
        self.fate = Fate()
        self.lengths = USUAL
        self.foreign = False
        self.deleted = False
        self.reads = 0
        self.reads_since_end = 0
        self.done = 0
        self.cancel_at: float | None = None
        self.ended_at: float | None = None
        self.ending: Ending | None = None
        self.billed_input = array("I", bytes(4 * self.size))
        self.billed_output = array("I", bytes(4 * self.size))
        self.billed_cache: dict[int, Cached] = {}
        self._reads_at_cancel = 0
        self._order: array[int] | None = None
        self._lock = asyncio.Lock()

    @property
    def accepted(self) -> bool:
        """Whether the provider accepted the requests."""
        return True

    @property
    @abstractmethod
    def status(self) -> str:
        """The batch's state in its provider's words."""

    @property
    def size(self) -> int:
        """The number of requests."""
        return len(self.requests.custom_ids)

    @property
    def billed(self) -> int:
        """The number of requests that were billed: an answer has at least one output token."""
        return self.size - self.billed_output.count(0)

    @property
    def expires_at(self) -> float:
        """When the provider gives up on requests that have not run."""
        return self.created_at + DAY

    @property
    def order(self) -> array[int]:
        """The order in which requests run and results are listed."""
        if self._order is None:
            positions = list(range(self.size))
            random.Random(self.id).shuffle(positions)  # noqa: S311 - reproducible, not secret
            self._order = array("I", positions)
        return self._order

    @abstractmethod
    def run(self, index: int) -> None:
        """Run one request and write its result."""

    @abstractmethod
    def abandon(self, index: int, ending: Ending) -> None:
        """Write the result of a request that never ran."""

    @abstractmethod
    def close(self) -> None:
        """Make the results available."""

    def work(self, share: float) -> float:
        """Return the share of requests that have run when `share` of the batch's life is over."""
        return share

    def doomed(self, share: float, pace: Pace, now: float) -> bool:
        """Whether the batch ends by now without having run anything."""
        del share, pace, now
        return False

    def appeared(self, now: float) -> bool:
        """Whether the batch has come to be by now."""
        return self.appears_at <= now

    def bill(self, index: int, answer: Answer) -> None:
        """Record what a request cost; its input tokens include those of a cache."""
        self.billed_input[index] = answer.input_tokens
        self.billed_output[index] = answer.output_tokens
        if any(answer.cached):
            self.billed_cache[index] = answer.cached

    def age(self, now: float) -> float:
        """Return the batch's age, which stops at its expiry."""
        return min(now - self.created_at, DAY)

    def unknown_id(self, index: int) -> str:
        """Return a custom_id that nobody sent."""
        return f"unknown-{blake2b(f'{self.id}:{index}'.encode(), digest_size=8).hexdigest()}"

    def emit(self, spool: Spool, line: JSON, kind: str | None) -> None:
        """Write a result line, changed by the fault (`kind`) that struck its request."""
        encoded = odd_bytes(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), kind)
        spool.write(encoded)
        if kind == "request_duplicated":
            spool.write(encoded)

    async def look(self, pace: Pace, now: float, *, read: bool) -> None:
        """Let the batch proceed to where it would be by now."""
        async with self._lock:
            if self.ended_at is not None:
                self.reads_since_end += read
                return
            if read and (now < self.expires_at or self.cancel_at is not None):
                self.reads += 1
            if self.cancel_at is None:
                await self._proceed(pace, now)
            if self.cancel_at is not None and self.fate.cancels:
                await self._wind_down(pace, now, self.cancel_at)

    async def _proceed(self, pace: Pace, now: float) -> None:
        life, ending = pace.share(self.reads, self.age(now)), self.fate.ending
        most = {"finished": 1.0, "stuck": _ALMOST}.get(ending, _UNDER_WAY)
        share = min(life, most)
        if self.doomed(share, pace, now):
            await self._end("finished", now)
            return
        part = self.work(share)
        part = min(self.fate.share, 1.0 if life >= 1 else part)
        await self._run_to(int(self.size * part + _ROUNDING))
        if ending in ("never", "stuck"):
            return
        if life < 1:
            if now >= self.expires_at:
                await self._end("expired", self.expires_at)
        elif ending == "cancelled":
            self._stop(now)
        else:
            await self._end(ending, pace.end(self.created_at, now))

    async def _wind_down(self, pace: Pace, now: float, since: float) -> None:
        if pace.cancelled(self.reads - self._reads_at_cancel, now - since):
            await self._end("cancelled", now)

    async def cancel(self, pace: Pace, now: float) -> None:
        """Stop the batch; results that it has by now are kept.

        At the immediate pace, a batch that was not looked at before has not run any request, unless
        it never ends. A batch that is stuck takes no notice.
        """
        if pace.mode != "immediate" or self.fate.ending in ("never", "stuck"):
            await self.look(pace, now, read=False)
        if self.ended_at is None and self.cancel_at is None and self.fate.ending != "stuck":
            self._stop(now)

    async def finish(self, pace: Pace, now: float) -> None:
        """End the batch at once: with all results, or with those that it has if it was cancelled.

        A batch that fails its validation fails.
        """
        async with self._lock:
            if self.ended_at is not None:
                return
            if self.cancel_at is not None:
                await self._end("cancelled", now)
                return
            if not self.doomed(1.0, pace, now):
                self.work(1.0)
                await self._run_to(self.size)
            await self._end("finished", now)

    async def work_up_to(self, share: float, now: float) -> None:
        """Run `share` of the requests at once, and no others ever."""
        self.fate = replace(self.fate, ending="never", share=share)
        await self.look(Pace("immediate"), now, read=False)

    def _stop(self, now: float) -> None:
        self.cancel_at = now
        self._reads_at_cancel = self.reads

    async def _run_to(self, target: int) -> None:
        while self.done < target:
            stop = min(target, self.done + _STEP)
            for position in range(self.done, stop):
                self.run(self.order[position])
            self.done = stop
            await asyncio.sleep(0)

    async def _end(self, ending: Ending, moment: float) -> None:
        for start in range(self.done, self.size, _STEP):
            for position in range(start, min(self.size, start + _STEP)):
                self.abandon(self.order[position], ending)
            await asyncio.sleep(0)
        self.ending = ending
        self.ended_at = moment
        self.close()
