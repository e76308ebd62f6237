"""One HTTP call: its account, the faults that strike it, and its consequences."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from starlette.responses import Response

from batchata_tasks.emulator.core.fate import fate_of
from batchata_tasks.emulator.core.misreports import odd_id
from batchata_tasks.emulator.core.wire import read_body, spool_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.faults import Rule
    from batchata_tasks.emulator.core.spool import Sealed
    from batchata_tasks.emulator.core.state import Shared


@dataclass
class Call:
    """An authenticated call, and its consequences so far."""

    request: Request
    shared: Shared
    account: str
    rule: Rule | None = None
    shapes: list[Rule] = field(default_factory=list["Rule"])
    """The rules that change the shape of the answer."""
    consumed: bool = False
    batch_id: str | None = None
    size: int = 0

    @property
    def now(self) -> float:
        """The moment of the call on the emulator's clock."""
        return self.shared.clock.now()

    @property
    def origin(self) -> str:
        """The scheme, host and port that the client reached us by."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}"

    @property
    def acceptance(self) -> float:
        """When a batch created by this call comes into existence."""
        return self.now + self._seconds("accept_delay")

    @property
    def body_size(self) -> int | None:
        """The size of the body as the client announced it, None if it did not."""
        announced = self.request.headers.get("content-length", "")
        return int(announced) if announced.isdigit() else None

    def start(self, batch: Batch) -> None:
        """Set when the batch that this call creates can be seen, and how it ends."""
        if self.acceptance > self.now:
            batch.appears_at = self.acceptance
        rules = self.shared.faults.for_batch(batch.provider)
        batch.fate = fate_of(rules)
        if batch.fate.list_lag:
            batch.listed_at = batch.created_at + batch.fate.list_lag
        if (wanted := odd_id(rules)) is not None:
            batch.id, batch.id_on_wire = str(wanted), wanted
        batch.lengths = self.shared.lengths
        self.batch_id, self.size = batch.id, batch.size

    def _seconds(self, kind: str) -> float:
        return self.rule.seconds if self.rule is not None and self.rule.kind == kind else 0.0

    async def body(self, limit: int) -> bytearray | None:
        """Read the body into memory; None when it is too large."""
        self.consumed = True
        return await read_body(self.request, limit)

    async def spool(self, limit: int) -> Sealed | None:
        """Read the body to disk; None when it is too large."""
        self.consumed = True
        return await spool_body(self.request, limit)

    async def drain(self) -> None:
        """Read the rest of the body, so that the client gets to read the answer."""
        if not self.consumed:
            await self.body(0)


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]
