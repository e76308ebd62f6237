"""OpenAI's endpoint /v1/responses in batches: its bodies, its parameters, its answers.

Facts of the wire: the SDK's own types (openai 3.54, `types/responses`). The cap holds what is reasoned,
too (`max_output_tokens`), and of at least 16 tokens. Where a request does not say otherwise, the API keeps each
answer for at least 30 days (`store`: "Defaults to true when omitted"), so requests do say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import Answer, ErrorCode, Outcome, Usage, as_dict, count_of, describe, text_of
from batchata_tasks.providers.openai import OpenAIProvider, framing_of, schema_form
from batchata_tasks.providers.openai_lines import answer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchata_tasks.jobs import Job

_LEAST_CAP = 16  # the API answers each line with a smaller one with a 400
_CHAT_SPELLING = {"reasoning_effort": "reasoning: {effort: …}", "verbosity": "text: {verbosity: …}"}
# errors that the same request meets again; all others pass
_WRONG = frozenset({"invalid_prompt", "data_residency_mismatch", "bio_policy", "misalignment_policy_violation"})


class OpenAIResponses(OpenAIProvider):
    """Batches of /v1/responses."""

    endpoint = "/v1/responses"
    framing = framing_of(endpoint)
    # what is set by the spec, and under names of the other endpoint; a batch waits for no answer in the background
    reserved_params = frozenset(
        {
            "background", "input", "instructions", "max_completion_tokens", "max_output_tokens", "max_tokens", "messages", "model", "n",
            "response_format", "stream", "stream_options",
        }
    )
    # the provider's tools are billed by the call, windows of background work at other prices
    repriced_params = frozenset({"background_options", "service_tier", "tools"})
    cap_param = "max_output_tokens"
    turns_param = "input"
    priced_params = frozenset(
        {"metadata", "reasoning", "safety_identifier", "store", "temperature", "text", "top_p", "truncation", "user"}
    )

    @classmethod
    def check_model(cls, model: str, max_tokens: int) -> None:
        del model
        if max_tokens < _LEAST_CAP:
            message = f"max_tokens: {max_tokens} is less than /v1/responses takes; write at least {_LEAST_CAP}, or remove `endpoint`."
            raise SpecError(message)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        for name in params:
            if name in _CHAT_SPELLING:
                message = f"params.{name}: /v1/responses has it under another name; write `{_CHAT_SPELLING[name]}`."
                raise SpecError(message)
        super().check_params(model, params, limited=limited)
        if "text" in params and as_dict(params["text"]).keys() != {"verbosity"}:
            message = "params.text: only `verbosity` can be set, as response_model says what an answer is; write that, or remove it."
            raise SpecError(message)
        if limited and "reasoning" in params and as_dict(params["reasoning"]).keys() != {"effort"}:
            # nothing says that the cap holds summaries, and other modes of reasoning
            message = "params.reasoning: its effect on the price has no bound but for `effort`, so a limit forbids it (allowed: effort)."
            raise SpecError(message)

    def body(self, job: Job) -> dict[str, Any]:
        turns = [
            {"role": turn.role, "content": turn.wire("output_text" if turn.role == "assistant" else "input_text")}
            for turn in job.messages
        ]
        body: dict[str, Any] = {"model": job.model, "input": turns, "max_output_tokens": job.max_tokens, "store": False}
        body |= job.params
        if job.schema is not None:
            body["text"] = {"format": {"type": "json_schema", **schema_form(job.schema)}, **as_dict(job.params.get("text"))}
        return body

    @classmethod
    def _answer(cls, line: dict[str, Any]) -> Answer:
        return answer_of(line, response)


def response(custom_id: str, body: dict[str, Any]) -> Answer:
    """Read the body of an answer."""
    stated = body.get("usage")
    usage, status = usage_of(as_dict(stated)), body.get("status")
    parts = list(_parts(body))
    texts = [text_of(part.get("text")) or "" for part in parts if part.get("type") == "output_text"]
    refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
    outcome, error = _ending(body, refusals)
    return Answer(
        custom_id, outcome, "".join(texts) if texts else None, error, usage, text_of(body.get("model")),
        readable=isinstance(stated, dict) or status == "failed",
    )


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of all messages that belong to the answer; reasoning and commentary on the way to it do not."""
    for item in body.get("output") or ():
        if item.get("type") == "message" and item.get("phase") != "commentary":
            yield from item.get("content") or ()


def _ending(body: dict[str, Any], refusals: list[str]) -> tuple[Outcome, str | None]:
    status, reason = body.get("status"), as_dict(body.get("incomplete_details")).get("reason")
    if status == "failed":
        wrong = as_dict(body.get("error"))
        code = ErrorCode.REQUEST if wrong.get("code") in _WRONG else ErrorCode.PROVIDER
        text = f"{wrong.get('code')}: {wrong.get('message')}" if wrong else "the response failed without a reason"
        return Outcome.ERRORED, describe(code, text)
    if refusals or (status == "incomplete" and reason == "content_filter"):
        return Outcome.REFUSED, describe(ErrorCode.REFUSED, " ".join(refusals) or "stopped by the content filter")
    if status == "incomplete" and reason == "max_output_tokens":
        return Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, f"stopped by the token cap ({reason})")
    if status != "completed":
        what = f"{status}, {reason}" if reason else str(status)
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, f"ended as {what!r}, which is no finished answer")
    return Outcome.SUCCEEDED, None


def usage_of(usage: dict[str, Any]) -> Usage:
    """Its input_tokens hold cached tokens already, output_tokens what was reasoned."""
    details = as_dict(usage.get("input_tokens_details"))
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")),
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_tokens=count_of(details.get("cached_tokens")),
        cache_write_tokens=count_of(details.get("cache_write_tokens")),
    )
