"""OpenAI's endpoint /v1/responses in batches: bodies and parameters; `results` reads its answers.

Facts of the wire: the SDK's own types (openai 3.54, `types/responses`). The cap includes reasoning
(`max_output_tokens`), and is at least 16 tokens. Unless a request says otherwise, the API stores
each answer for at least 30 days (`store`: "Defaults to true when omitted"), so requests do say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.base import texts_as_given
from batchata_tasks.providers.openai.chat import (
    OpenAIAdapter,
    framing_of,
    schema_form,
    titled,
    untitled,
)
from batchata_tasks.types.document import Document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.types.request import Message, Request

_LEAST_CAP = 16  # the API answers lines with a smaller cap with a 400
_CHAT_SPELLING = {"reasoning_effort": "reasoning: {effort: …}", "verbosity": "text: {verbosity: …}"}
# parameters of chat alone; the API knows none of them here ("Unknown parameter")
_CHAT_ALONE = frozenset(
    {"frequency_penalty", "logit_bias", "logprobs", "presence_penalty", "seed", "stop"}
)


class OpenAIResponsesAdapter(OpenAIAdapter):
    """Batches of /v1/responses."""

    endpoint_name = "responses"
    endpoint = "/v1/responses"
    framing = framing_of(endpoint)
    # set by the spec, here or under the other endpoint's names; batches have no `background` work
    reserved_params = frozenset(
        {
            "background",
            "input",
            "instructions",
            "max_completion_tokens",
            "max_output_tokens",
            "max_tokens",
            "messages",
            "model",
            "n",
            "response_format",
            "stream",
            "stream_options",
        }
    )
    # the provider's tools are billed per call, and background work at other prices
    repriced_params = frozenset({"background_options", "service_tier", "tools"})
    cap_param = "max_output_tokens"
    turns_param = "input"
    schema_path = ("text", "format", "schema")
    priced_params = frozenset(
        {
            "metadata",
            "reasoning",
            "safety_identifier",
            "store",
            "temperature",
            "text",
            "top_p",
            "truncation",
            "user",
        }
    )

    @classmethod
    def check_model(cls, model: str, max_tokens: int) -> None:
        del model
        if max_tokens < _LEAST_CAP:
            message = (
                f"max_tokens: {max_tokens} is less than /v1/responses takes; "
                f"write at least {_LEAST_CAP}, or remove `endpoint`."
            )
            raise SpecError(message)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        for name in params:
            if name in _CHAT_SPELLING:
                message = (
                    f"params.{name}: /v1/responses has it under another name; "
                    f"write `{_CHAT_SPELLING[name]}`."
                )
                raise SpecError(message)
            if name in _CHAT_ALONE:
                message = f"params.{name}: /v1/responses has none; remove it, or `endpoint`."
                raise SpecError(message)
        super().check_params(model, params, limited=limited)
        if "text" in params and as_dict(params["text"]).keys() != {"verbosity"}:
            message = (
                "params.text: only `verbosity` can be set, as response_model gives the form of "
                "answers; write that, or remove it."
            )
            raise SpecError(message)
        if limited and "reasoning" in params and as_dict(params["reasoning"]).keys() != {"effort"}:
            # it is not documented that the cap holds for summaries and other modes of reasoning
            message = (
                "params.reasoning: its effect on the price has no bound but for `effort`, "
                "so a limit forbids it (allowed: effort)."
            )
            raise SpecError(message)

    @classmethod
    def document_of(cls, part: Mapping[str, Any]) -> Document | None:
        if isinstance(text := part.get("text"), str):
            return untitled(text)
        return Document.of_url(str(part.get("filename", "")), part.get("file_data"))

    @texts_as_given
    def body(self, request: Request) -> dict[str, Any]:
        turns = [
            {"role": turn.role, "content": turn.wire(_text_kind(turn), _attached)}
            for turn in request.messages
        ]
        body: dict[str, Any] = {
            "model": request.model,
            "input": turns,
            "max_output_tokens": request.max_tokens,
            "store": False,
        }
        body |= request.params
        if request.schema is not None:
            body["text"] = {
                "format": {"type": "json_schema", **schema_form(request.schema)},
                **as_dict(request.params.get("text")),
            }
        return body


def _text_kind(turn: Message) -> str:
    return "output_text" if turn.role == "assistant" else "input_text"


def _attached(document: Document) -> dict[str, Any]:
    """Return the content part of a document for this endpoint."""
    if document.kind == "text":
        return {"type": "input_text", "text": titled(document)}
    if document.kind == "image":
        return {"type": "input_image", "image_url": document.url, "detail": "auto"}
    return {"type": "input_file", "filename": document.title, "file_data": document.url}
