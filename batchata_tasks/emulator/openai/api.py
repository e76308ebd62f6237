"""The OpenAI API: batches, direct answers and models; for files see `files.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import orjson

from batchata_tasks.emulator.answers.text import answer
from batchata_tasks.emulator.core.batches import Requests
from batchata_tasks.emulator.core.faults import Faults
from batchata_tasks.emulator.core.pages import openai_page, page_of
from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.core.routes import route
from batchata_tasks.emulator.core.shapes import Json
from batchata_tasks.emulator.core.state import Shared, Shelf, StoredFile, new_id
from batchata_tasks.emulator.openai.batch import OpenAIBatch
from batchata_tasks.emulator.openai.bodies import answer_body, heard
from batchata_tasks.emulator.openai.create import check_create
from batchata_tasks.emulator.openai.files import EXPIRY, Files
from batchata_tasks.emulator.openai.input import Validated, validate
from batchata_tasks.emulator.openai.quota import over_limit, quota_problem
from batchata_tasks.emulator.openai.rules import (
    CHAT,
    MODELS,
    RESPONSES,
    LineError,
    check_body,
    known_model,
)
from batchata_tasks.emulator.openai.style import OpenAIStyle

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.calls import Call
    from batchata_tasks.emulator.core.spool import Sealed

PREFIX = "/openai/v1"
_BODY_BYTES = 32_000_000
_STOPPED = frozenset({"completed", "failed", "expired"})


class OpenAIApi:
    """The routes over one shelf of batches and one of files."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.shelf: Shelf[OpenAIBatch] = Shelf(shared.clock)
        self.files = Files(shared)
        shared.memories["openai"] = self.forget

    def forget(self) -> None:
        """Lose all batches and files, as a server without storage does when it restarts."""
        self.shelf.forget()
        self.files.forget()

    def reset(self) -> None:
        """Forget everything."""
        self.shelf = Shelf(self.shared.clock)
        self.files.clear()

    def routes(self) -> list[Route]:
        """Return all routes."""
        style = OpenAIStyle()
        batches = f"{PREFIX}/batches"
        return [
            *self.files.routes(PREFIX, style),
            route(batches, "POST", "create", style, self.create),
            route(batches, "GET", "list", style, self.list_batches),
            route(f"{batches}/{{id}}", "GET", "get", style, self.get),
            route(f"{batches}/{{id}}/cancel", "POST", "cancel", style, self.cancel),
            route(f"{PREFIX}/chat/completions", "POST", "messages", style, self.chat),
            route(f"{PREFIX}/responses", "POST", "messages", style, self.respond),
            route(f"{PREFIX}/models", "GET", "models", style, self.list_models),
            route(f"{PREFIX}/models/{{id}}", "GET", "models", style, self.get_model),
        ]

    async def create(self, call: Call) -> Response:
        """Create a batch; whether its input is valid shows only later."""
        given = await _json(call)
        expires_after = check_create(given)
        read = await self._validated(call, given)
        batch = self.batch(
            call.account, call.acceptance, read.requests, read.model, given, read.errors
        )
        batch.output_expires_after = expires_after
        call.start(batch)
        self.shelf.add(batch)
        return Json(batch.wire(call.now))

    def batch(
        self,
        account: str,
        created_at: float,
        requests: Requests,
        model: str | None,
        given: JSON,
        errors: list[tuple[LineError, int | None]] | None = None,
        *,
        foreign: bool = False,
    ) -> OpenAIBatch:
        """Return a batch that stores its files here; faults do not strike a `foreign` one."""
        batch = OpenAIBatch(
            account,
            created_at,
            requests,
            given=given,
            model=model,
            errors=errors or [],
            faults=Faults() if foreign else self.shared.faults,
            store=self._store,
            quota=self._quota,
        )
        batch.foreign = foreign
        return batch

    async def _validated(self, call: Call, given: JSON) -> Validated:
        if call.rule is not None and call.rule.kind == "token_limit":
            return Validated(Requests(), [(over_limit("this model"), None)])
        file_id = str(given["input_file_id"])
        file = self.files.find(file_id, call.account)
        if file is None or file.purpose != "batch":
            message = (
                f"Cannot find file {file_id}, or organization org-emulator "
                "does not have access to it."
            )
            problem = LineError("invalid_request", message, "file_id")
            return Validated(Requests(), [(problem, None)])
        most = self.shared.limits.openai_requests
        return await validate(file.content, given["endpoint"], most, self.shared.faults)

    def _quota(self, batch: OpenAIBatch, moment: float) -> LineError | None:
        if batch.foreign:
            return None
        others = (other for other in self.shelf.all() if other.account == batch.account)
        return quota_problem(batch, others, self.shared.limits.openai_enqueued_tokens, moment)

    async def _settle(self, call: Call) -> None:
        """Let all batches that count against a quota proceed to the present."""
        if self.shared.limits.openai_enqueued_tokens:
            for batch in self.shelf.unfinished(call.account):
                await batch.look(self.shared.pace, call.now, read=False)

    def _store(self, batch: OpenAIBatch, name: str, content: Sealed) -> str:
        ended = self.shared.clock.now() if batch.ended_at is None else batch.ended_at
        lifetime = batch.output_expires_after or EXPIRY
        file = StoredFile(
            id=new_id("file-"),
            account=batch.account,
            filename=f"{batch.id}_{name}.jsonl",
            purpose="batch_output",
            created_at=ended,
            expires_at=ended + lifetime,
            content=content,
            foreign=batch.foreign,
        )
        return self.files.add(file).id

    async def _find(self, call: Call) -> OpenAIBatch:
        batch_id = call.request.path_params["id"]
        batch = self.shelf.find(batch_id, call.account)
        if batch is None:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        await self._settle(call)
        return batch

    async def get(self, call: Call) -> Response:
        """Show one batch."""
        batch = await self._find(call)
        await batch.look(self.shared.pace, call.now, read=True)
        return Json(batch.wire(call.now))

    async def list_batches(self, call: Call) -> Response:
        """List batches, newest first."""
        batches = self.shelf.listed(call.account)
        page, has_more = page_of(openai_page, batches, call.request.query_params, call.shapes)
        await self._settle(call)
        for batch in page:
            await batch.look(self.shared.pace, call.now, read=False)
        return Json(
            {
                "object": "list",
                "data": [batch.wire(call.now) for batch in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": has_more,
            }
        )

    async def cancel(self, call: Call) -> Response:
        """Stop a batch that has not ended; cancelling a cancelled batch again is allowed."""
        batch = await self._find(call)
        await batch.cancel(self.shared.pace, call.now)
        if batch.status in _STOPPED:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        return Json(batch.wire(call.now))

    async def chat(self, call: Call) -> Response:
        """Answer one chat request directly, at the full price."""
        return await self._direct(call, CHAT)

    async def respond(self, call: Call) -> Response:
        """Answer one Responses request directly, at the full price."""
        return await self._direct(call, RESPONSES)

    async def _direct(self, call: Call, endpoint: str) -> Response:
        body = heard(await _json(call), self.shared.faults)
        model = body.get("model")
        if not isinstance(model, str) or not known_model(model):
            message = f"The model '{model}' does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")
        problem = check_body(body, endpoint)
        if problem is not None:
            raise ApiError(400, problem.message, param=problem.param, code=problem.code)
        if body.get("stream"):
            raise ApiError(400, "The emulator does not stream.", param="stream")
        given = answer("openai", body, lengths=self.shared.lengths)
        self.shared.bill_direct("openai", (given.input_tokens, given.output_tokens))
        created = int(call.now)
        return Json(answer_body(endpoint, new_id("", 29), created, body, given))

    async def list_models(self, call: Call) -> Response:
        """List the models."""
        del call
        return Json({"object": "list", "data": [_model(name) for name in MODELS]})

    async def get_model(self, call: Call) -> Response:
        """Show one model."""
        name = call.request.path_params["id"]
        if name not in MODELS:
            message = f"The model '{name}' does not exist"
            raise ApiError(404, message, param="model", code="model_not_found")
        return Json(_model(name))


def _model(name: str) -> JSON:
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "openai"}


async def _json(call: Call) -> JSON:
    body = await call.body(_BODY_BYTES)
    if body is None:
        raise ApiError(413, "Request entity too large.")
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(given, dict):
        raise ApiError(400, "The JSON body of your request must be an object.")
    return cast("JSON", given)
