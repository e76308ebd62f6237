"""OpenAI's Batch API over the official SDK, for chat completions; `responses` is for the other.

Facts of the wire: https://platform.openai.com/docs/guides/batch and the SDK's own types
(openai 3.54).
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import openai
from openai.types.shared import ChatModel, ResponsesModel

from batchata_tasks.common.errors import SpecError, TerminalError
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers import sdk
from batchata_tasks.providers.base import Adapter, BatchLook, Framing, Limits
from batchata_tasks.providers.keys import check_environment
from batchata_tasks.providers.openai.results import answer_of
from batchata_tasks.providers.openai.schema_limits import check_schema
from batchata_tasks.providers.result_lines import lines_of, read_line
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from openai.types import Batch, BatchError

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.answer import Answer
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.request import OutputSchema, Request

_ERRORS = sdk.Errors(
    openai.APIStatusError, openai.APIConnectionError, openai.APIResponseValidationError
)
_ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
_PAGE = 100
_FILES_PAGE = 1000
_STORED = 30 * 86400.0  # seconds for which output files are stored
_NO_REASON = "the provider gave no reason"
_STOPPED = {"expired": Outcome.EXPIRED, "cancelled": Outcome.CANCELED}
_NO_ROOM = "token_limit_exceeded"
# documented: a picture is 2,833 tokens and 5,667 for each of up to eight tiles; for other models it
# is a few thousand
_DEAR_PICTURES = "gpt-4o-mini"
_TOKEN = "batchata_token"  # noqa: S105 - the key of our metadata
_REASONING = re.compile(r"^(o\d|gpt-([5-9]|\d\d))")
Endpoint = Literal["/v1/chat/completions", "/v1/responses"]


def _names(kind: Any) -> set[str]:
    """Return the texts of a Literal, or of a union of Literals."""
    names = set[str]()
    for part in get_args(kind):
        names |= {part} if isinstance(part, str) else _names(part)
    return names


# the SDK's types say that chat does not serve these; the API answers each line with a 404
_NOT_CHAT = _names(ResponsesModel) - _names(ChatModel)


def framing_of(endpoint: Endpoint) -> Framing:
    """Return the form of a request file for an endpoint."""
    return Framing(
        before_id=b'{"custom_id":"',
        before_body=f'","method":"POST","url":"{endpoint}","body":'.encode(),
        after_body=b"}\n",
    )


class OpenAIAdapter(Adapter):
    """Batches by file: one upload, one create; results come as an output and an error file."""

    name = "openai"
    key_variables = ("OPENAI_API_KEY",)
    limits = Limits(requests=50_000, bytes=199_000_000)  # documented: 50,000 and 200 MB
    endpoint: ClassVar[Endpoint] = "/v1/chat/completions"
    framing = framing_of(endpoint)
    poll_seconds = (5.0, 60.0)
    reserved_params = frozenset(
        {
            "model",
            "max_tokens",
            "max_completion_tokens",
            "messages",
            "response_format",
            "stream",
            "stream_options",
            "n",
        }
    )
    # sounds are billed by tokens of another price, searches by the piece
    repriced_params = frozenset({"audio", "modalities", "service_tier", "web_search_options"})
    cap_param = "max_completion_tokens"
    document_bytes = 37_000_000  # a file may have 50 MB, and base64 takes a third more
    caches_unasked = True  # caching is automatic, and models from gpt-5.6 on bill what it writes
    priced_params = frozenset(
        {
            "frequency_penalty",
            "logit_bias",
            "metadata",
            "presence_penalty",
            "reasoning_effort",
            "seed",
            "stop",
            "store",
            "temperature",
            "top_p",
            "user",
            "verbosity",
        }
    )

    def __init__(self) -> None:
        check_environment(self.key_variables, "OPENAI_BASE_URL")
        http = openai.DefaultHttpxClient(event_hooks={"request": [sdk.watch]})
        self._client = openai.OpenAI(max_retries=sdk.READ_RETRIES, http_client=http)

    @property
    def base_url(self) -> str:
        return str(self._client.base_url)

    @classmethod
    def check_schema(cls, schema: ResponseSchema) -> None:
        check_schema(schema)

    @classmethod
    def check_model(cls, model: str, max_tokens: int) -> None:
        del max_tokens
        if model in _NOT_CHAT:
            message = (
                f"model: {model} is served by the endpoint /v1/responses alone; "
                "write `endpoint: responses`."
            )
            raise SpecError(message)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        super().check_params(model, params, limited=limited)
        effort = params.get("reasoning_effort", as_dict(params.get("reasoning")).get("effort"))
        reasons = _REASONING.match(model) and effort != "none"
        if reasons and params.get("temperature", 1) != 1:
            message = (
                f"params.temperature: {model} takes only the default (1) and would refuse every "
                "line; remove it."
            )
            raise SpecError(message)

    @classmethod
    def document_tokens(cls, model: str) -> tuple[int, int]:
        if model.startswith(_DEAR_PICTURES):
            return 60_000, 50_000
        return super().document_tokens(model)

    def body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [
                {"role": turn.role, "content": turn.wire(attached=_attached)}
                for turn in request.messages
            ],
            "max_completion_tokens": request.max_tokens,
        }
        if request.schema is not None:
            form = schema_form(request.schema)
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body | dict(request.params)

    def upload(self, path: Path) -> str | None:
        # the SDK streams an open file; it would read a Path as a whole
        with path.open("rb") as stream, sdk.translated(_ERRORS, self.name):
            return self._client.files.create(file=stream, purpose="batch").id

    def create(
        self,
        path: Path,  # noqa: ARG002 - uploaded before
        file_id: str | None,
        token: str,
        may_send: Callable[[], None],
    ) -> BatchLook:
        with sdk.translated(_ERRORS, self.name, creating=True), sdk.gated(may_send):
            batch = self._client.with_options(max_retries=0).batches.create(
                input_file_id=file_id or "",
                endpoint=self.endpoint,
                completion_window="24h",
                metadata={_TOKEN: token},
            )
            return _look(batch)

    def look(self, batch_id: str) -> BatchLook:
        with sdk.translated(_ERRORS, self.name):
            return _look(self._client.batches.retrieve(batch_id))

    def newest(self) -> float | None:
        with sdk.translated(_ERRORS, self.name):
            batches = self._client.batches.list(limit=1).data
            return float(batches[0].created_at) if batches else None

    def recent(self, since: float) -> Iterator[BatchLook]:
        with sdk.translated(_ERRORS, self.name):
            for batch in self._client.batches.list(limit=_PAGE):
                look = _look(batch)
                if look.created_at < since - 1:  # the provider's times are whole seconds
                    return
                yield look

    def owns(self, look: BatchLook, token: str) -> bool | None:
        return look.token == token

    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        paths: list[Path] = []
        for number, file_id in enumerate(look.files):
            path = folder / f"{stem}.{number}.jsonl"
            with (
                sdk.translated(_ERRORS, self.name),
                self._client.files.with_streaming_response.content(file_id) as response,
            ):
                sdk.save(response, path)
            paths.append(path)
        return paths

    def answers(self, path: Path) -> Iterator[Answer]:
        for line in lines_of(path):
            yield read_line(line, answer_of)

    def cancel(self, batch_id: str) -> None:
        with sdk.translated(_ERRORS, self.name):
            try:
                self._client.with_options(max_retries=0).batches.cancel(batch_id)
            except openai.ConflictError as error:
                # elsewhere a conflict passes; here it means that the batch has ended
                message = f"batch {batch_id} cannot be cancelled any more."
                raise TerminalError(message) from error

    def uploads(self, since: float) -> Iterator[tuple[str, str]]:
        with sdk.translated(_ERRORS, self.name):
            for file in self._client.files.list(purpose="batch", order="desc", limit=_FILES_PAGE):
                if file.created_at < since - 1:
                    return
                yield file.id, file.filename

    def discard_upload(self, file_id: str) -> None:
        with sdk.translated(_ERRORS, self.name), suppress(openai.NotFoundError):
            self._client.files.delete(file_id)

    def discard_results(self, look: BatchLook) -> None:
        for file_id in look.files:
            self.discard_upload(file_id)


def _attached(document: Document) -> dict[str, Any]:
    """Return the content part of a document; a text becomes part of the prompt, after its name."""
    if document.kind == "text":
        return {"type": "text", "text": titled(document)}
    if document.kind == "image":
        return {"type": "image_url", "image_url": {"url": document.url}}
    return {"type": "file", "file": {"filename": document.title, "file_data": document.url}}


def titled(document: Document) -> str:
    """Return a text with the name of its file above it."""
    return f"{document.title}:\n\n{document.text}"


def schema_form(schema: OutputSchema) -> dict[str, Any]:
    """Return the strict form of structured output, as both endpoints take it."""
    return {
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", schema.name)[:64],
        "schema": schema.wire,
        "strict": True,
    }


def _look(batch: Batch) -> BatchLook:
    counts = batch.request_counts
    errors = (batch.errors.data or []) if batch.errors is not None else []
    reasons = "; ".join(map(_reason, errors[:3]))
    failed = batch.status == "failed"
    ended_at = batch.completed_at or batch.expired_at or batch.cancelled_at
    return BatchLook(
        batch_id=batch.id,
        status=batch.status,
        ended=batch.status in _ENDED,
        created_at=float(batch.created_at),
        # 0 while the batch is being validated
        requests=(counts.total or None) if counts is not None else None,
        done=counts.completed + counts.failed if counts is not None else None,
        token=(batch.metadata or {}).get(_TOKEN),
        files=tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
        error=reasons or (_NO_REASON if failed else None),
        no_room=failed and any(error.code == _NO_ROOM for error in errors),
        gone=ended_at is not None and ended_at + _STORED < time.time(),
        model=batch.model,
        stopped=_STOPPED.get(batch.status),
        bad_lines={error.line: _reason(error) for error in errors if error.line},
    )


def _reason(error: BatchError) -> str:
    return f"{error.code}: {error.message}"
