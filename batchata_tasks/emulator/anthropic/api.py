"""The Anthropic API: message batches, messages, token counts and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from batchata_tasks.emulator.answers.tokens import input_tokens
from batchata_tasks.emulator.anthropic.batch import AnthropicBatch, whole_message
from batchata_tasks.emulator.anthropic.input import parse, read_requests
from batchata_tasks.emulator.anthropic.models import model_info, models
from batchata_tasks.emulator.anthropic.rules import check_params
from batchata_tasks.emulator.core.pages import anthropic_page, page_of
from batchata_tasks.emulator.core.refusals import RATE_LIMIT, ApiError
from batchata_tasks.emulator.core.routes import INVALID_KEY, route
from batchata_tasks.emulator.core.shapes import Json
from batchata_tasks.emulator.core.state import Shared, Shelf, new_id
from batchata_tasks.emulator.core.wire import Download

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.calls import Call

PREFIX = "/anthropic/v1"


class AnthropicStyle:
    """Headers, keys and errors in Anthropic's form."""

    provider = "anthropic"

    def authenticate(self, request: Request) -> str:
        """Take the key from either header, and insist on the API version."""
        key = request.headers.get("x-api-key")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if not key and scheme.lower() == "bearer" else key
        if not key:
            message = "x-api-key header or bearer token is required"
            raise ApiError(401, message, "authentication_error")
        if key == INVALID_KEY:
            raise self.invalid_key()
        if not request.headers.get("anthropic-version"):
            raise ApiError(400, "anthropic-version: header is required")
        return key

    def invalid_key(self) -> ApiError:
        """Return the error for a key that is not valid (any more)."""
        return ApiError(401, "invalid x-api-key", "authentication_error")

    def error(self, error: ApiError) -> Response:
        """Return an error in Anthropic's envelope."""
        details: JSON = {"type": error.kind, "message": error.message}
        if error.code not in (None, RATE_LIMIT):
            details["details"] = {"error_code": error.code}
        request_id = _request_id()
        content = {"type": "error", "error": details, "request_id": request_id}
        headers = {**error.headers, "request-id": request_id}
        return Json(content, status_code=error.status, headers=headers)

    def headers(self, response: Response) -> dict[str, str]:
        """Return the headers of every answer."""
        request_id = response.headers.get("request-id") or _request_id()
        return {"request-id": request_id, "anthropic-organization-id": "org_emulator"}


def _too_large() -> ApiError:
    return ApiError(413, "Request exceeds the maximum size", "request_too_large")


def _request_id() -> str:
    return new_id("req_011C", 20)


class AnthropicApi:
    """The routes over one shelf of batches."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.shelf: Shelf[AnthropicBatch] = Shelf(shared.clock)
        shared.memories["anthropic"] = self.forget

    def forget(self) -> None:
        """Lose all batches, as a server without storage does when it restarts."""
        self.shelf.forget()

    def reset(self) -> None:
        """Forget everything."""
        self.shelf = Shelf(self.shared.clock)

    def routes(self) -> list[Route]:
        """Return all routes."""
        batches = f"{PREFIX}/messages/batches"
        one = f"{batches}/{{id}}"
        style = AnthropicStyle()
        return [
            route(batches, "POST", "create", style, self.create),
            route(batches, "GET", "list", style, self.list_batches),
            route(one, "GET", "get", style, self.get),
            route(one, "DELETE", "delete", style, self.delete),
            route(f"{one}/cancel", "POST", "cancel", style, self.cancel),
            route(f"{one}/results", "GET", "results", style, self.results),
            route(f"{PREFIX}/messages", "POST", "messages", style, self.message),
            route(f"{PREFIX}/messages/count_tokens", "POST", "count_tokens", style, self.count),
            route(f"{PREFIX}/models", "GET", "models", style, self.list_models),
            route(f"{PREFIX}/models/{{id}}", "GET", "models", style, self.get_model),
        ]

    async def create(self, call: Call) -> Response:
        """Accept a batch, or refuse it as a whole."""
        body = await call.spool(self.shared.limits.anthropic_bytes)
        if body is None:
            raise _too_large()
        requests = await read_requests(body, self.shared.limits.anthropic_requests)
        batch = AnthropicBatch(
            new_id("msgbatch_01"),
            call.account,
            call.acceptance,
            requests,
            version=call.request.headers["anthropic-version"],
            faults=self.shared.faults,
            cache=self.shared.cache,
        )
        await self._check_queue(call, batch.size)
        call.start(batch)
        self.shelf.add(batch)
        return Json(batch.wire(call.origin, call.now))

    async def _check_queue(self, call: Call, size: int) -> None:
        """Refuse a batch if the account has too many requests that have not run."""
        most = self.shared.limits.anthropic_queued_requests
        if not most:
            return
        waiting = self.shelf.unfinished(call.account)
        for batch in waiting:
            await batch.look(self.shared.pace, call.now, read=False)
        queued = sum(batch.size - batch.done for batch in waiting if batch.ended_at is None)
        if queued + size > most:
            message = (
                f"This request would exceed the limit of {most:,} batch requests in the processing "
                "queue of your organization. Please try again once some of them have been "
                "processed."
            )
            raise ApiError(429, message, "rate_limit_error", code=RATE_LIMIT)

    async def _find(self, call: Call, *, read: bool) -> AnthropicBatch:
        batch_id = call.request.path_params["id"]
        batch = self.shelf.find(batch_id, call.account)
        if batch is None:
            raise ApiError(404, f"Message Batch {batch_id} not found.", "not_found_error")
        await batch.look(self.shared.pace, call.now, read=read)
        return batch

    async def get(self, call: Call) -> Response:
        """Show one batch."""
        batch = await self._find(call, read=True)
        return Json(batch.wire(call.origin, call.now))

    async def list_batches(self, call: Call) -> Response:
        """List batches, newest first."""
        batches = self.shelf.listed(call.account)
        page, has_more = page_of(anthropic_page, batches, call.request.query_params, call.shapes)
        for batch in page:
            await batch.look(self.shared.pace, call.now, read=False)
        content = {
            "data": [batch.wire(call.origin, call.now) for batch in page],
            "has_more": has_more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        return Json(content)

    async def cancel(self, call: Call) -> Response:
        """Stop a batch that has not ended."""
        batch_id = call.request.path_params["id"]
        batch = self.shelf.find(batch_id, call.account)
        if batch is None:
            raise ApiError(404, f"Message Batch {batch_id} not found.", "not_found_error")
        await batch.cancel(self.shared.pace, call.now)
        if batch.cancel_at is None and batch.ended_at is not None:
            raise ApiError(400, f"Message Batch {batch_id} has already ended.")
        return Json(batch.wire(call.origin, call.now))

    async def delete(self, call: Call) -> Response:
        """Remove a batch that has ended."""
        batch = await self._find(call, read=False)
        if batch.ended_at is None:
            message = f"Message Batch {batch.id} cannot be deleted while it is being processed."
            raise ApiError(400, message)
        batch.deleted = True
        return Json({"id": batch.id, "type": "message_batch_deleted"})

    async def results(self, call: Call) -> Response:
        """Stream the results of a batch that has ended."""
        batch = await self._find(call, read=False)
        if batch.ended_at is None or batch.archived(call.now) is not None:
            message = f"Message Batch {batch.id} has no available results."
            raise ApiError(404, message, "not_found_error")
        disposition = f"attachment; filename*=utf-8''{batch.id}_results.jsonl"
        headers = {"content-type": "application/x-jsonl", "content-disposition": disposition}
        return Download(batch.results, headers)

    async def message(self, call: Call) -> Response:
        """Answer one request directly, at the full price."""
        params = await self._params(call)
        problem = check_params(params, call.request.headers["anthropic-version"], batch=False)
        if problem is not None:
            status = 404 if problem.kind == "not_found_error" else 400
            raise ApiError(status, problem.message, problem.kind)
        if params.get("stream"):
            raise ApiError(400, "stream: the emulator does not stream")
        content, given = whole_message(new_id("msg_01"), params, self.shared.lengths)
        self.shared.bill_direct("anthropic", (given.input_tokens, given.output_tokens))
        return Json(content)

    async def count(self, call: Call) -> Response:
        """Count the tokens of a request."""
        params = await self._params(call)
        problem = check_params(
            {"max_tokens": 1, **params}, call.request.headers["anthropic-version"], batch=False
        )
        if problem is not None:
            raise ApiError(400, problem.message, problem.kind)
        return Json({"input_tokens": input_tokens(params)})

    async def _params(self, call: Call) -> JSON:
        body = await call.body(self.shared.limits.anthropic_message_bytes)
        if body is None:
            raise _too_large()
        params = parse(body)
        if not isinstance(params, dict):
            raise ApiError(400, "Input should be a valid dictionary")
        return cast("JSON", params)

    async def list_models(self, call: Call) -> Response:
        """List the models."""
        del call
        listed = models()
        ids = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        return Json({"data": listed, "has_more": False, **ids})

    async def get_model(self, call: Call) -> Response:
        """Show one model."""
        name = call.request.path_params["id"]
        info = model_info(name)
        if info is None:
            raise ApiError(404, f"model: {name}", "not_found_error")
        return Json(info)
