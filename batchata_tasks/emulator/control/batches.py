"""Control routes that act as other people do: cancel, delete, archive, revoke, create."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.anthropic.batch import AnthropicBatch
from batchata_tasks.emulator.control.foreign import Wanted, add_foreign
from batchata_tasks.emulator.openai.batch import OpenAIBatch

if TYPE_CHECKING:
    from starlette.requests import Request

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.anthropic.api import AnthropicApi
    from batchata_tasks.emulator.core.state import Shared
    from batchata_tasks.emulator.openai.api import OpenAIApi

_PROVIDERS = ("anthropic", "openai")


async def given_of(request: Request) -> JSON:
    """Return the body of a control call."""
    given: Any = orjson.loads(await request.body() or b"{}")
    if not isinstance(given, dict):
        message = "the body must be a JSON object"
        raise TypeError(message)
    return cast("JSON", given)


class BatchControl:
    """Acts on batches and keys as another person or program would."""

    def __init__(self, shared: Shared, anthropic: AnthropicApi, openai: OpenAIApi) -> None:
        self._shared = shared
        self._anthropic = anthropic
        self._openai = openai

    def _batch(self, request: Request) -> AnthropicBatch | OpenAIBatch:
        batch_id = request.path_params["id"]
        batch = self._anthropic.shelf.get(batch_id) or self._openai.shelf.get(batch_id)
        if batch is None:
            message = f"there is no batch {batch_id}"
            raise ValueError(message)
        return batch

    async def _ended(self, request: Request) -> AnthropicBatch | OpenAIBatch:
        batch = self._batch(request)
        await batch.look(self._shared.pace, self._shared.clock.now(), read=False)
        if batch.ended_at is None:
            message = f"the batch {batch.id} has not ended"
            raise ValueError(message)
        return batch

    async def vanish(self, request: Request) -> JSON:
        """Remove a batch from get and list, whatever its state."""
        batch = self._batch(request)
        batch.deleted = True
        return {"id": batch.id, "status": batch.status}

    async def cancel(self, request: Request) -> JSON:
        """Cancel a batch; if `share` is given, after that share of its requests has run."""
        batch, given = self._batch(request), await given_of(request)
        now = self._shared.clock.now()
        if given.get("share") is not None:
            await batch.work_up_to(float(given["share"]), now)
        await batch.cancel(self._shared.pace, now)
        if batch.ended_at is not None:
            message = f"the batch {batch.id} has already ended"
            raise ValueError(message)
        return {"id": batch.id, "status": batch.status}

    async def finish(self, request: Request) -> JSON:
        """End a batch at once, also one that is stuck."""
        batch = self._batch(request)
        await batch.finish(self._shared.pace, self._shared.clock.now())
        return {"id": batch.id, "status": batch.status}

    async def archive(self, request: Request) -> JSON:
        """Archive the results of an Anthropic batch that has ended."""
        batch = await self._ended(request)
        if not isinstance(batch, AnthropicBatch):
            message = "only Anthropic archives results"
            raise TypeError(message)
        batch.archived_at = self._shared.clock.now()
        return {"id": batch.id, "status": batch.status}

    async def delete_outputs(self, request: Request) -> JSON:
        """Delete the output and error file of an OpenAI batch; the batch still names them."""
        batch = await self._ended(request)
        if not isinstance(batch, OpenAIBatch):
            message = "only OpenAI has output files"
            raise TypeError(message)
        for file_id in batch.files.values():
            self._openai.files.remove(file_id)
        return {"id": batch.id, "status": batch.status}

    async def keys(self, request: Request) -> JSON:
        """Revoke or restore an account's access to a provider; to both if none is named."""
        given = await given_of(request)
        provider, account = given.get("provider"), str(given.get("account", "default"))
        if provider not in (None, *_PROVIDERS):
            message = f"provider must be one of {_PROVIDERS}"
            raise ValueError(message)
        pairs = {(name, account) for name in ([provider] if provider else _PROVIDERS)}
        if given.get("revoked"):
            self._shared.revoked |= pairs
        else:
            self._shared.revoked -= pairs
        return {"revoked": sorted(self._shared.revoked)}

    async def foreign(self, request: Request) -> JSON:
        """Create batches of another program."""
        wanted = Wanted(**await given_of(request))
        now = self._shared.clock.now()
        return {"ids": await add_foreign(wanted, self._anthropic, self._openai, now)}
