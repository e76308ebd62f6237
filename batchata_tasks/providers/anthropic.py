"""Anthropic Message Batches, over the official SDK.

Facts of the wire: https://platform.claude.com/docs/en/api/creating-message-batches and the SDK's
own types (anthropic 2.12).
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import anthropic
from anthropic._response import StreamedBinaryAPIResponse
from anthropic.types.messages import MessageBatch

from batchata_tasks.chunk import Limits, is_custom_id
from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import Answer, ErrorCode, Outcome, Usage, as_dict, count_of, describe, text_of
from batchata_tasks.plain import is_unicode
from batchata_tasks.providers import _sdk
from batchata_tasks.providers._base import BatchLook, Framing
from batchata_tasks.providers._keys import check_environment
from batchata_tasks.providers._lines import first_custom_id, joined, lines_of, read_line
from batchata_tasks.providers._provider import Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.documents import Document
    from batchata_tasks.jobs import Job, Message

_ERRORS = _sdk.Errors(anthropic.APIStatusError, anthropic.APIConnectionError, anthropic.APIResponseValidationError)
_PATH = "/v1/messages/batches"
_PAGE = 100
_MOST_PLACES = 2**31
# an hour: a batch takes longer than the five minutes of the usual mark
_MARK = {"type": "ephemeral", "ttl": "1h"}


class AnthropicProvider(Provider):
    """Message Batches: requests travel inline in the create, results come as one file."""

    name = "anthropic"
    key_variables = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    limits = Limits(requests=100_000, bytes=255_000_000)  # documented: 100,000 and 256 MB
    framing = Framing(b'{"custom_id":"', b'","params":', b"}", head=b'{"requests":[\n', joint=b",\n", tail=b"\n]}\n")
    poll_seconds = (1.0, 60.0)
    reserved_params = frozenset({"model", "max_tokens", "messages", "system", "output_config", "stream"})
    repriced_params = frozenset({"inference_geo", "service_tier", "speed"})
    priced_params = frozenset({"metadata", "stop_sequences"})
    cap_param = "max_tokens"
    mixes_models = True
    document_bytes = 23_000_000  # documented: 32 MB a request, and base64 takes a third more
    document_pages = 600
    image_tokens = 6_000  # documented: up to 4,784
    cites = True
    caches_unasked = False  # nothing is cached without `cache_control`: https://platform.claude.com/docs/en/build-with-claude/prompt-caching

    def __init__(self) -> None:
        check_environment(self.key_variables, "ANTHROPIC_BASE_URL")
        http = anthropic.DefaultHttpxClient(event_hooks={"request": [_sdk.watch]})
        self._client = anthropic.Anthropic(max_retries=_sdk.READ_RETRIES, http_client=http)

    @property
    def base_url(self) -> str:
        return str(self._client.base_url)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        if sampling := sorted({"temperature", "top_k", "top_p"} & params.keys()):
            # gone since API version 2026-10-21, which the SDK sends: each line would end in error
            message = f"params.{sampling[0]}: Anthropic's API takes no sampling parameters any more; remove it."
            raise SpecError(message)
        super().check_params(model, params, limited=limited)

    @classmethod
    def check_turns(cls, turns: Sequence[Message]) -> None:
        first = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
        for place, turn in enumerate(turns):
            if turn.role == "system" and place > first:
                message = f"messages.{place}: Anthropic takes system turns only before all others; move it to the front."
                raise SpecError(message)

    def body(self, job: Job) -> dict[str, Any]:
        system = "\n\n".join(turn.text for turn in job.messages if turn.role == "system")
        body: dict[str, Any] = {"model": job.model, "max_tokens": job.max_tokens}
        if system:
            # a block without text cannot be marked
            body["system"] = [{"type": "text", "text": system, "cache_control": _MARK}] if job.cache and system.strip() else system
        body["messages"] = [{"role": turn.role, "content": turn.wire(attached=_attached)} for turn in job.messages if turn.role != "system"]
        if job.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": job.schema.wire}}
        return body | dict(job.params)

    def upload(self, path: Path) -> str | None:  # noqa: ARG002 - requests travel in the create
        return None

    def create(self, path: Path, file_id: str | None, token: str, may_send: Callable[[], None]) -> BatchLook:  # noqa: ARG002 - no file, no name
        # the SDK's own create() would parse and write the requests anew, all in memory; its client
        # sends the file as it stands, block by block
        headers = {"Content-Type": "application/json"}
        with path.open("rb") as stream, _sdk.translated(_ERRORS, self.name, creating=True), _sdk.gated(may_send):
            content = _sdk.GatedFile(stream, may_send)
            batch = self._client.post(
                _PATH, content=content, cast_to=MessageBatch, options={"max_retries": 0, "headers": headers}
            )
            return _look(batch)

    def look(self, batch_id: str) -> BatchLook:
        with _sdk.translated(_ERRORS, self.name):
            return _look(self._client.messages.batches.retrieve(batch_id))

    def newest(self) -> float | None:
        with _sdk.translated(_ERRORS, self.name):
            return next((_look(batch).created_at for batch in self._client.messages.batches.list(limit=1).data), None)

    def recent(self, since: float) -> Iterator[BatchLook]:
        with _sdk.translated(_ERRORS, self.name):
            for batch in self._client.messages.batches.list(limit=_PAGE):
                look = _look(batch)
                if look.created_at < since:
                    return
                yield look

    def owns(self, look: BatchLook, token: str) -> bool | None:
        """Batches carry no name of ours, but every custom_id in the results does."""
        found = self._first_custom_id(look)
        return None if found is None else found.startswith(f"{token}-")

    def ours(self, look: BatchLook) -> bool | None:
        found = self._first_custom_id(look)
        return None if found is None else is_custom_id(found)

    def _first_custom_id(self, look: BatchLook) -> str | None:
        """Return the first custom_id of an ended batch's results, from their first bytes."""
        if not look.ended or look.gone:
            return None
        with _sdk.translated(_ERRORS, self.name), closing(self._results(look.batch_id)) as response:
            return first_custom_id(_lines(response.iter_bytes(1 << 16)))

    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        path = folder / f"{stem}.jsonl"
        with _sdk.translated(_ERRORS, self.name), closing(self._results(look.batch_id)) as response:
            _sdk.save(response, path)
        return [path]

    def _results(self, batch_id: str) -> Any:
        # by path under the configured base URL: the SDK's results() would follow whatever URL the
        # batch names, with the key attached
        headers = {"Accept": "application/binary", "X-Stainless-Raw-Response": "stream"}
        return self._client.get(
            f"{_PATH}/{batch_id}/results", cast_to=StreamedBinaryAPIResponse, options={"headers": headers}
        ).http_response

    def answers(self, path: Path) -> Iterator[Answer]:
        for line in lines_of(path):
            yield read_line(line, _answer)

    def cancel(self, batch_id: str) -> None:
        with _sdk.translated(_ERRORS, self.name):
            self._client.messages.batches.cancel(batch_id)

    def uploads(self, since: float) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - requests travel in the create
        return iter(())

    def discard_upload(self, file_id: str) -> None:  # noqa: ARG002 - there are none
        return

    def discard_results(self, look: BatchLook) -> None:
        # results have no deletion of their own: the batch goes with them
        with _sdk.translated(_ERRORS, self.name), suppress(anthropic.NotFoundError):
            self._client.messages.batches.delete(look.batch_id)


def _attached(document: Document) -> dict[str, Any]:
    """Return the content block of a document."""
    if document.kind == "text":
        source = {"type": "text", "media_type": document.media_type, "data": document.text}
    else:
        source = {"type": "base64", "media_type": document.media_type, "data": document.base64}
    if document.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, "title": document.title, **({"citations": {"enabled": True}} if document.cited else {})}


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _look(batch: MessageBatch) -> BatchLook:
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    return BatchLook(
        batch_id=batch.id,
        status=batch.processing_status,
        ended=batch.processing_status == "ended",
        created_at=batch.created_at.timestamp(),
        requests=done + counts.processing,
        done=done if batch.processing_status == "ended" else None,  # counts stand still until the end
        files=(batch.results_url,) if batch.results_url else (),
        gone=batch.archived_at is not None,
    )


def _answer(line: dict[str, Any]) -> Answer:
    custom_id, result = str(line["custom_id"]), line["result"]
    match result["type"]:
        case "succeeded":
            return _message(custom_id, result["message"])
        case "errored":
            error = result["error"].get("error", result["error"])  # nested twice
            wrong = error.get("type") in ("invalid_request_error", "not_found_error", "request_too_large")
            code = ErrorCode.REQUEST if wrong else ErrorCode.PROVIDER
            return Answer(custom_id, Outcome.ERRORED, error=describe(code, f"{error.get('type')}: {error.get('message')}"))
        case "expired":
            return Answer(custom_id, Outcome.EXPIRED, error=describe(ErrorCode.NEVER_RAN, "the batch expired first"))
        case "canceled":
            return Answer(custom_id, Outcome.CANCELED, error=describe(ErrorCode.NEVER_RAN, "the batch was cancelled first"))
        case other:
            # nobody knows what it cost
            return Answer(custom_id, Outcome.ERRORED, error=describe(ErrorCode.PROVIDER, f"unknown result type {other!r}"), readable=False)


def _message(custom_id: str, message: dict[str, Any]) -> Answer:
    usage = usage_of(as_dict(message.get("usage")))
    blocks = [block for block in message.get("content") or () if block.get("type") == "text"]
    text = joined(text_of(block["text"]) or "" for block in blocks)
    cited = tuple(_citation(as_dict(found)) for block in blocks for found in block.get("citations") or ())
    outcome, error = Outcome.SUCCEEDED, None
    match message.get("stop_reason"):
        case "end_turn" | "stop_sequence":
            pass
        case "max_tokens" | "model_context_window_exceeded" as reason:
            outcome, error = Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, f"stopped by {reason}")
        case "refusal":
            why = as_dict(message.get("stop_details")).get("explanation") or "the model refused"
            outcome, error = Outcome.REFUSED, describe(ErrorCode.REFUSED, str(why))
        case other:
            outcome, error = Outcome.INVALID, describe(ErrorCode.RESPONSE, f"stopped by {other!r}, which is no finished answer")
    return Answer(custom_id, outcome, text, error, usage, text_of(message.get("model")), usage != Usage(), cited)


def _citation(found: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `_citations`; what is wrong with a citation does not make its answer unreadable.

    Pages count from 1, and characters from 0; the provider's ends are exclusive.
    """
    text, document, after = found.get("cited_text"), found.get("document_title"), _place(found, "end_page_number")
    return {
        "cited_text": text if is_unicode(text) else None,
        "document": document if is_unicode(document) else None,
        "page_start": _place(found, "start_page_number"),
        "page_end": after - 1 if after else None,
        "char_start": _place(found, "start_char_index"),
        "char_end": _place(found, "end_char_index"),
    }


def _place(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_PLACES else None


def usage_of(usage: dict[str, Any]) -> Usage:
    """Anthropic's input_tokens leave cached tokens out: add them.

    Of what was written to caches both the sum and its parts are optional.
    """
    read, parts = count_of(usage.get("cache_read_input_tokens")), as_dict(usage.get("cache_creation"))
    hour, minutes = count_of(parts.get("ephemeral_1h_input_tokens")), count_of(parts.get("ephemeral_5m_input_tokens"))
    written = max(count_of(usage.get("cache_creation_input_tokens")), hour + minutes)
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")) + read + written,
        output_tokens=count_of(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written - hour,
        cache_write_1h_tokens=hour,
        web_searches=count_of(as_dict(usage.get("server_tool_use")).get("web_search_requests")),
        us_only=usage.get("inference_geo") == "us",
    )


