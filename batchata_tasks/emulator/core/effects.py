"""What a fault of scope `call` does to the call that it strikes."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from batchata_tasks.emulator.core.fault_kinds import KINDS
from batchata_tasks.emulator.core.refusals import file_not_ready, instead_of_json, refuse
from batchata_tasks.emulator.core.shapes import reshape
from batchata_tasks.emulator.core.state import Created
from batchata_tasks.emulator.core.wire import Download, Drip, Endless, HalfAnswer, HangUp

if TYPE_CHECKING:
    from starlette.types import Message

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.calls import Call, Handler
    from batchata_tasks.emulator.core.faults import Rule

_BEFORE = frozenset(
    {
        "http_429",
        "http_error",
        "http_500_before",
        "html_413",
        "not_found",
        "spend_cap",
        "hard_limit",
        "length_required",
        "cancel_conflict",
    }
)
"""Faults that refuse a call without looking at it."""
_AFTER = frozenset({"http_500_after", "http_error_after"})
"""Faults that answer a call with an error although it took effect."""
_CREATE_BYTES = 1_000_000
_BODY_BYTES = 300_000_000  # more than any API takes


async def misbehave(call: Call, rule: Rule, provider: str, handler: Handler) -> Response:
    """Answer a call that a rule strikes."""
    creates = call.shared.creates
    if rule.kind == "slow":
        await asyncio.sleep(rule.seconds)
        if creates is not call.shared.creates:
            # The emulator was reset in between: this call belongs to a test that has ended.
            return HangUp()
    elif rule.kind == "drop_before":
        await call.drain()
        return HangUp()
    elif rule.kind == "file_not_ready":
        return file_not_ready(rule, await _input_file(call))
    elif rule.kind == "forgets":
        call.shared.forget(provider)
    elif rule.kind in _BEFORE:
        return refuse(rule, provider)
    elif rule.kind == "repeats_create":
        handler = await _repeated(call, provider, handler)
    return await _after(call, rule, provider, reshape(await handler(call), call.shapes))


async def _after(call: Call, rule: Rule, provider: str, response: Response) -> Response:
    """Return what the client gets of the answer to a call that took effect."""
    if rule.kind == "slow_after":
        await asyncio.sleep(rule.seconds)
    elif rule.kind in _AFTER:
        return refuse(rule, provider)
    elif rule.kind in ("drop_after", "accept_delay"):
        return HangUp()
    elif rule.kind in ("drip", "endless"):
        response = _long(rule, response)
    elif rule.kind == "garbled_answer":
        return _garbled(rule, response)
    elif rule.kind == "redirect":
        return _elsewhere(rule, call)
    elif rule.kind == "drop_mid_answer":
        if not isinstance(response, Download):
            return HalfAnswer(response)
        response.halve(clean=False)
    elif rule.kind == "cut_download" and isinstance(response, Download):
        response.cut(rule.after_bytes, clean=rule.clean)
        response.status_code = response.status_code if rule.status is None else rule.status
    return response


def _garbled(rule: Rule, response: Response) -> Response:
    """Return an answer of success that is not what the API sends."""
    instead = instead_of_json(rule, 200)
    if instead is not None:
        return instead
    if rule.gzip:
        packed = gzip.compress(_whole(response))
        headers = {"content-encoding": "gzip"}
        return Response(packed[: len(packed) // 2], 200, headers, media_type=response.media_type)
    if isinstance(response, Download):
        response.halve(clean=True)
        return response
    half = bytes(response.body[: len(response.body) // 2])
    return Response(half, response.status_code, media_type=response.media_type)


def _long(rule: Rule, response: Response) -> Response:
    """Return an answer that takes long, or has no end."""
    if rule.kind == "drip":
        return Drip(response, rule.seconds)
    return Endless(response, _whole(response), packed=rule.gzip)


def _whole(response: Response) -> bytes:
    return response.whole if isinstance(response, Download) else bytes(response.body)


def _elsewhere(rule: Rule, call: Call) -> Response:
    """Return a redirection to the batch that a create made, or to the same call once more."""
    status = KINDS[rule.kind].status if rule.status is None else rule.status
    path = call.request.url.path
    same = status in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
    place = f"{path}?again=1" if same or call.batch_id is None else f"{path}/{call.batch_id}"
    return Response(status_code=status, headers={"location": place})


async def _repeated(call: Call, provider: str, handler: Handler) -> Handler:
    """Let a create take effect, unanswered; return what handles the same call once more."""
    body = await call.body(_BODY_BYTES)

    def again() -> Call:
        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(body or b""), "more_body": False}

        return replace(call, request=Request(call.request.scope, receive))

    first = again()
    await handler(first)
    seen = Created(provider, call.now, first.batch_id, first.size, None)
    call.shared.creates.append(seen)

    async def second(_: Call) -> Response:
        repeated = again()
        response = await handler(repeated)
        call.batch_id, call.size = repeated.batch_id, repeated.size
        return response

    return second


async def _input_file(call: Call) -> object:
    """Return the id of the input file that a create names."""
    body = await call.body(_CREATE_BYTES)
    try:
        given = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        return None
    return cast("JSON", given).get("input_file_id") if isinstance(given, dict) else None
