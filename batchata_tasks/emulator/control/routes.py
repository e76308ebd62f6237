"""The control routes for tests, under `/_emulator/`, apart from the imitated APIs."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from starlette.routing import Route

from batchata_tasks.emulator.answers.lengths import Lengths
from batchata_tasks.emulator.control.batches import BatchControl, given_of
from batchata_tasks.emulator.core.clock import Clock, Pace
from batchata_tasks.emulator.core.faults import Faults, Rule
from batchata_tasks.emulator.core.ledger import ledger
from batchata_tasks.emulator.core.prompt_cache import PromptCache
from batchata_tasks.emulator.core.shapes import Json
from batchata_tasks.emulator.core.state import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.anthropic.api import AnthropicApi
    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.state import Shared
    from batchata_tasks.emulator.openai.api import OpenAIApi

PREFIX = "/_emulator"
_MODES = ("immediate", "reads", "seconds")


def control_routes(shared: Shared, anthropic: AnthropicApi, openai: OpenAIApi) -> list[Route]:
    """Return all control routes."""
    control = Control(shared, anthropic, openai)
    others = BatchControl(shared, anthropic, openai)
    table: list[tuple[str, str, Callable[[Request], Awaitable[JSON]]]] = [
        ("health", "GET", control.health),
        ("reset", "POST", control.reset),
        ("faults", "GET", control.show_faults),
        ("faults", "POST", control.add_fault),
        ("faults", "DELETE", control.clear_faults),
        ("progress", "POST", control.progress),
        ("clock", "POST", control.clock),
        ("limits", "POST", control.limits),
        ("answers", "POST", control.answers),
        ("cache", "POST", control.cache),
        ("ledger", "GET", control.ledger),
        ("forget", "POST", control.forget),
        ("keys", "POST", others.keys),
        ("foreign", "POST", others.foreign),
        ("batches/{id}/vanish", "POST", others.vanish),
        ("batches/{id}/cancel", "POST", others.cancel),
        ("batches/{id}/finish", "POST", others.finish),
        ("batches/{id}/archive", "POST", others.archive),
        ("batches/{id}/delete_outputs", "POST", others.delete_outputs),
    ]
    return [
        Route(f"{PREFIX}/{path}", _json_route(handler), methods=[method])
        for path, method, handler in table
    ]


def _json_route(
    handler: Callable[[Request], Awaitable[JSON]],
) -> Callable[[Request], Awaitable[Json]]:
    @wraps(handler)
    async def respond(request: Request) -> Json:
        try:
            return Json(await handler(request))
        except (ValueError, TypeError) as error:
            return Json({"error": str(error)}, status_code=400)

    return respond


class Control:
    """Acts on the shared state of an emulator."""

    def __init__(self, shared: Shared, anthropic: AnthropicApi, openai: OpenAIApi) -> None:
        self._shared = shared
        self._anthropic = anthropic
        self._openai = openai
        self._initial = shared.pace

    async def health(self, request: Request) -> JSON:
        """Return that the emulator runs, its time and its pace."""
        del request
        pace = self._shared.pace
        return {"status": "ok", "now": self._shared.clock.now(), "mode": pace.mode, "n": pace.n}

    async def reset(self, request: Request) -> JSON:
        """Forget everything, and go back to the pace that the emulator started with."""
        shared = self._shared
        shared.clock = Clock()
        shared.faults = Faults()
        shared.limits = Limits()
        shared.pace = self._initial
        shared.lengths = Lengths()
        shared.cache = PromptCache(shared.clock)
        shared.creates = []
        shared.direct.clear()
        shared.revoked.clear()
        self._anthropic.reset()
        self._openai.reset()
        return await self.health(request)

    async def show_faults(self, request: Request) -> JSON:
        """Return the rules, and how often each struck."""
        del request
        return {"faults": self._shared.faults.describe()}

    async def add_fault(self, request: Request) -> JSON:
        """Add one fault rule."""
        self._shared.faults.add(Rule.parse(await given_of(request)))
        return await self.show_faults(request)

    async def clear_faults(self, request: Request) -> JSON:
        """Drop all fault rules."""
        self._shared.faults.clear()
        return await self.show_faults(request)

    async def progress(self, request: Request) -> JSON:
        """Set the pace of all batches that have not ended."""
        given = await given_of(request)
        mode, n = given.get("mode"), given.get("n", 0)
        if mode not in _MODES or not isinstance(n, int | float) or n < 0:
            message = f"mode must be one of {_MODES}, and n a number of at least 0"
            raise ValueError(message)
        self._shared.pace = Pace(mode, n)
        return await self.health(request)

    async def clock(self, request: Request) -> JSON:
        """Move the clock forward or back, stop it, or let it run on."""
        given = await given_of(request)
        if "frozen" in given:
            self._shared.clock.freeze(frozen=bool(given["frozen"]))
        self._shared.clock.advance(float(given.get("advance", 0)))
        return await self.health(request)

    async def limits(self, request: Request) -> JSON:
        """Change how much a provider accepts."""
        self._shared.limits = self._shared.limits.changed(await given_of(request))
        return await self.health(request)

    async def answers(self, request: Request) -> JSON:
        """Set the length and language of answers to requests that are created from now on."""
        self._shared.lengths = Lengths.parse(await given_of(request))
        return await self.health(request)

    async def cache(self, request: Request) -> JSON:
        """Set the share of requests that find a prefix which is in Anthropic's cache."""
        share = (await given_of(request)).get("hit_share")
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            message = "hit_share must be a number from 0 to 1"
            raise ValueError(message)
        self._shared.cache.hit_share = share
        return {"hit_share": share}

    async def forget(self, request: Request) -> JSON:
        """Let the servers of a provider, or of both, lose their batches and files."""
        provider = (await given_of(request)).get("provider")
        if provider not in (None, *self._shared.memories):
            message = f"provider must be one of {tuple(self._shared.memories)}"
            raise ValueError(message)
        for name in [provider] if provider else self._shared.memories:
            self._shared.forget(name)
        return await self.health(request)

    async def ledger(self, request: Request) -> JSON:
        """Return what was accepted and billed, after every batch has proceeded to the present.

        A batch that proceeds by reads stands still here: this does not count as a read of it.
        """
        batches: dict[str, list[Batch]] = {
            "anthropic": list(self._anthropic.shelf.all()),
            "openai": list(self._openai.shelf.all()),
        }
        now = self._shared.clock.now()
        if self._shared.pace.mode != "reads":
            for batch in (*batches["anthropic"], *batches["openai"]):
                if batch.appeared(now):
                    await batch.look(self._shared.pace, now, read=False)
        detail = request.query_params.get("detail") not in (None, "", "0")
        return ledger(self._shared, batches, self._openai.files.stored(), detail=detail)
