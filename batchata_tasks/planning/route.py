"""Routes: where requests go that may share a batch, and the most that they can cost there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchata_tasks.planning.retry import REMARK_BYTES, changed_body, largest_cap
from batchata_tasks.pricing.token_bounds import input_bound
from batchata_tasks.types.destination import Destination

if TYPE_CHECKING:
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.providers import Adapter
    from batchata_tasks.types.document import Document

_BOUNDS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """The facts of a request on which its bound rests, and which another attempt needs.

    `turns` counts the messages of the body: a system prompt is one with some providers only.
    `structured` says whether the answer has to be JSON. `schema` is the digest of a response model
    that is the request's own. `attached` is the most tokens of its document, beyond the bytes that
    it has in the body.
    """

    cap: int
    turns: int
    structured: bool
    schema: str | None = None
    attached: int = 0


@dataclass
class Route:
    """One provider's model at one endpoint.

    `cap` is the most output tokens that one of its requests asks for. `rates` is None without a
    known price. `factor`, in millionths, multiplies bounds: it is more than one once an answer of
    the model cost more than its bound. `caches` says whether its requests may be read from a cache
    or written to one. `attached` is the number of bytes that documents have in the requests built
    so far, and of the tokens that they are likely to be.
    """

    provider: Adapter
    model: str
    endpoint: str
    rates: Rates | None
    cap: int = 1
    factor: int = 10**6
    caches: bool = True
    attached: tuple[int, int] = (0, 0)
    # by input tokens, cap, and whether a cache may be written to: the same ones recur by thousands
    _bounds: dict[tuple[int, int, bool], int] = field(default_factory=dict[Any, int], repr=False)

    @property
    def destination(self) -> Destination:
        """The names of its provider, model and endpoint."""
        return Destination(self.provider.name, self.model, self.endpoint)

    def attach(self, document: Document) -> int:
        """Add a document to `attached`; return the most tokens of it, as a Shape has them."""
        size, tokens = document.usual()
        self.attached = self.attached[0] + size, self.attached[1] + tokens
        return document.token_bound(*self.provider.document_tokens(self.model))

    def bound(self, body: bytes, shape: Shape) -> int:
        """Return the most that a request can cost, in picodollars; 0 without a known price."""
        if self.rates is None:
            return 0
        tokens = input_bound(len(body), shape.turns, schema=shape.structured) + shape.attached
        return self._bound(self.rates, tokens, shape.cap, writes=self._writes(body))

    def further(self, body: bytes, shape: Shape, attempts: range) -> int:
        """Return the most that more attempts at a request can cost, in picodollars.

        They are given by how many attempts were made before each.
        """
        if self.rates is None:
            return 0
        size, turns = len(body) + REMARK_BYTES, shape.turns + 1
        tokens = input_bound(size, turns, schema=shape.structured) + shape.attached
        caps = [largest_cap(shape.cap, before) for before in attempts]
        writes = self._writes(body)
        return sum(self._bound(self.rates, tokens, cap, writes=writes) for cap in caps)

    def _writes(self, body: bytes) -> bool:
        """Whether a request may be written to a cache."""
        # a text that says so is no match: its quotes are escaped in the body
        return self.provider.caches_unasked or b'"cache_control"' in body

    def _bound(self, rates: Rates, tokens: int, cap: int, *, writes: bool) -> int:
        if (known := self._bounds.get((tokens, cap, writes))) is None:
            if len(self._bounds) > _BOUNDS_KEPT:
                self._bounds.clear()
            known = self._bounds[tokens, cap, writes] = rates.bound(
                tokens, cap, cache_writes=writes
            )
        return -(-known * self.factor // 10**6)

    def again(
        self, body: bytes, shape: Shape, status: str, error: str | None, attempts: int
    ) -> tuple[bytes, int] | None:
        """Return the body of another attempt and its bound; None if it is sent again as it was.

        `body` is the last request, or the base request if that one is lost.
        """
        changed = changed_body(
            body,
            status,
            error,
            attempts,
            cap_in=self.provider.cap_in,
            turns_param=self.provider.turns_param,
            cap=shape.cap,
            turns=shape.turns,
        )
        if changed is None:
            return None
        text, cap, turns = changed
        return text, self.bound(text, replace(shape, turns=turns, cap=cap))
