"""OpenAI's Batch API over the official SDK, for chat completions; `responses` is for the other.

Facts of the wire: https://platform.openai.com/docs/guides/batch and the SDK's own types
(openai 3.54).
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args
from urllib.parse import quote

import httpx2
import openai
from openai.types.shared import ChatModel, ResponsesModel

from batchata_tasks.common.errors import SpecError, TerminalError, TransientError
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers import sdk
from batchata_tasks.providers.base import (
    Adapter,
    BatchLook,
    Framing,
    Limits,
    QueueRule,
    texts_as_given,
)
from batchata_tasks.providers.credentials import ENVIRONMENT
from batchata_tasks.providers.emulated import Answering
from batchata_tasks.providers.gate import gated, watch
from batchata_tasks.providers.keys import NO_KEY, check_environment
from batchata_tasks.providers.listing import (
    around_of,
    is_official,
    recent_of,
    watched_pages,
    with_status,
)
from batchata_tasks.providers.network import http_client
from batchata_tasks.providers.openai import param_rules
from batchata_tasks.providers.openai.batches import TOKEN, look_of
from batchata_tasks.providers.openai.caps import CAPS, cap_name
from batchata_tasks.providers.openai.fast_lines import plain_answer
from batchata_tasks.providers.openai.files import TIDY, says_not_ready, uploads
from batchata_tasks.providers.openai.regions import surcharge
from batchata_tasks.providers.openai.results import answer_of
from batchata_tasks.providers.openai.schema_limits import check_schema
from batchata_tasks.providers.result_lines import (
    first_custom_id,
    lines_of,
    lines_of_blocks,
    read_lines,
)
from batchata_tasks.providers.sizes import first_of
from batchata_tasks.providers.wire import new_id_of, object_of
from batchata_tasks.types.document import TEXT, Document
from batchata_tasks.types.ids import is_custom_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from batchata_tasks.providers.credentials import Credentials
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.answer import Answer
    from batchata_tasks.types.request import OutputSchema, Request

_ERRORS = sdk.Errors(
    openai.APIStatusError,
    openai.APIConnectionError,
    openai.APIResponseValidationError,
    openai.OpenAIError,
)
_PATH = "/batches"
_ADDRESS = "OPENAI_BASE_URL"
# a create goes out once: neither a retry nor a redirect may repeat it
_ONCE: Any = {
    "max_retries": 0,
    "follow_redirects": False,
    "timeout": sdk.SLOW_TIMEOUT,
}
_PAGE = 100
# documented: a picture is 2,833 tokens and 5,667 for each of up to eight tiles; for other models it
# is a few thousand
_DEAR_PICTURES = "gpt-4o-mini"
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


def _chosen_address(credentials: Credentials) -> str | None:
    """Return the address for the SDK; None if it is to read the environment by itself."""
    if credentials.block is None:
        return None
    return credentials.get(_ADDRESS) or "https://api.openai.com/v1"


class OpenAIAdapter(Adapter):
    """Batches by file: one upload, one create; results come as an output and an error file."""

    name = "openai"
    key_variables = ("OPENAI_API_KEY",)
    scope_variables = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
    headers_variable = "OPENAI_CUSTOM_HEADERS"
    limits = Limits(requests=50_000, bytes=199_000_000)  # documented: 50,000 and 200 MB
    queue = QueueRule("tokens", per_model=True)
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
    lists_tokens = True
    caches_unasked = True  # caching is automatic, and models from gpt-5.6 on bill what it writes
    schema_path = ("response_format", "json_schema", "schema")
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

    def __init__(self, credentials: Credentials = ENVIRONMENT) -> None:
        self.credentials = credentials
        check_environment(self.key_variables, _ADDRESS, credentials)
        self.answering = self._who = Answering()
        client = openai.DefaultHttpxClient
        self._http = http_client(client, _ADDRESS, watch, self._who, credentials)
        self._client = openai.OpenAI(
            api_key=credentials.get("OPENAI_API_KEY") or NO_KEY,
            base_url=_chosen_address(credentials),
            max_retries=sdk.READ_RETRIES,
            timeout=sdk.READ_TIMEOUT,
            http_client=self._http,
        )
        if credentials.block is not None:  # for None the SDK reads the environment
            self._client.organization = credentials.get("OPENAI_ORG_ID")
            self._client.project = credentials.get("OPENAI_PROJECT_ID")
        self._official = is_official(self.base_url, "api.openai.com")
        self.lists_all = self.is_exact = self._official
        if self.cap_param in CAPS:
            self.cap_param = cap_name(official=self._official)

    def close(self) -> None:
        self._client.close()

    @property
    def base_url(self) -> str:
        return str(self._client.base_url)

    def is_emulated(self) -> bool | None:
        return False if self._official else self._who.ask(self._http, self.base_url)

    @property
    def names_batches(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.is_exact

    def cap_in(self, body: Mapping[str, Any]) -> str:
        return next((name for name in CAPS if name in body), self.cap_param)

    def surcharge(self, model: str) -> int:
        return surcharge(self.base_url, model)

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
        param_rules.check(model, params)

    @classmethod
    def document_tokens(cls, model: str) -> tuple[int, int]:
        if model.startswith(_DEAR_PICTURES):
            return 60_000, 50_000
        return super().document_tokens(model)

    @classmethod
    def document_of(cls, part: Mapping[str, Any]) -> Document | None:
        if isinstance(text := part.get("text"), str):
            return untitled(text)
        file = as_dict(part.get("file"))
        return Document.of_url(str(file.get("filename", "")), file.get("file_data"))

    @texts_as_given
    def body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [
                {"role": turn.role, "content": turn.wire(attached=_attached)}
                for turn in request.messages
            ],
            self.cap_param: request.max_tokens,
        }
        if request.schema is not None:
            form = schema_form(request.schema)
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body | dict(request.params)

    def upload(self, path: Path) -> str | None:
        # the SDK streams an open file; it would read a Path as a whole
        with path.open("rb") as stream, sdk.translated(_ERRORS, self.name):
            files = self._client.files.with_raw_response
            made = files.create(file=stream, purpose="batch", timeout=sdk.SLOW_TIMEOUT)
            return new_id_of(made.http_response)

    def create(
        self,
        path: Path,  # noqa: ARG002 - uploaded before
        file_id: str | None,
        token: str,
        may_send: Callable[[], None],
    ) -> BatchLook:
        wanted = {
            "input_file_id": file_id or "",
            "endpoint": self.endpoint,
            "completion_window": "24h",
            "metadata": {TOKEN: token},
        }
        with gated(may_send) as gate:

            def post() -> httpx2.Response:
                return self._client.post(_PATH, body=wanted, cast_to=httpx2.Response, options=_ONCE)

            try:
                return look_of(sdk.created(_ERRORS, self.name, gate, post))
            except TerminalError as error:
                if says_not_ready(error):
                    raise TransientError(str(error), status=error.status) from error
                raise

    def look(self, batch_id: str) -> BatchLook:
        with sdk.translated(_ERRORS, self.name):
            return with_status(look_of(object_of(self._get(_batch_path(batch_id))), batch_id))

    def newest(self) -> list[BatchLook]:
        return next(self._pages(limit=_PAGE), list["BatchLook"]())

    def recent(self, since: float) -> Iterator[BatchLook]:
        return recent_of(self._pages(limit=_PAGE), since - 1)  # times are whole seconds here

    def around(self, since: float) -> Iterator[BatchLook]:
        return around_of(self._pages(limit=_PAGE), since)

    def _pages(self, limit: int) -> Iterator[list[BatchLook]]:
        """Yield the pages of the account's list of batches."""

        def fetch(after: str | None) -> httpx2.Response:
            cursor = {} if after is None else {"after": after}
            return self._get(_PATH, {"limit": limit, **cursor})

        with sdk.translated(_ERRORS, self.name):
            for page in watched_pages(self, fetch, official=self._official):
                yield [look_of(batch) for batch in page]

    def _get(self, path: str, query: Mapping[str, object] | None = None) -> httpx2.Response:
        options: Any = {"params": query or {}}
        return self._client.get(path, cast_to=httpx2.Response, options=options)

    def owns(self, look: BatchLook, token: str) -> bool | None:
        if look.token is not None or self.is_exact:
            return look.token == token
        # a server that keeps no metadata, or not of each batch, and may have a name of its own for
        # the file: only the results tell
        return self.names_chunk(self._first_custom_id(look), token)

    def ours(self, look: BatchLook) -> bool | None:
        if look.token is not None or self.is_exact:
            return look.token is not None  # the official API keeps metadata
        name = self._first_custom_id(look)
        return None if name is None else is_custom_id(name)

    def _first_custom_id(self, look: BatchLook) -> str | None:
        """Return the first custom_id of an ended batch's results, from their first bytes."""
        if not look.ended or look.gone or not look.files:
            return None
        with (
            sdk.translated(_ERRORS, self.name),
            self._results(look.files[0]) as response,
        ):
            return first_custom_id(lines_of_blocks(first_of(response.iter_bytes(1 << 16))))

    def _results(self, file_id: str) -> AbstractContextManager[Any]:
        # some servers put the file together only then
        content = self._client.files.with_streaming_response.content
        return content(file_id, timeout=sdk.SLOW_TIMEOUT)

    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        paths: list[Path] = []
        for number, file_id in enumerate(look.files):
            path = folder / f"{stem}.{number}.jsonl"
            with (
                sdk.translated(_ERRORS, self.name),
                self._results(file_id) as response,
            ):
                sdk.save(response, path, look.requests or self.limits.requests)
            paths.append(path)
        return paths

    def answers(self, path: Path) -> Iterator[Answer]:
        return read_lines(lines_of(path), plain_answer, answer_of)

    def cancel(self, batch_id: str) -> None:
        with sdk.translated(_ERRORS, self.name):
            path = f"{_batch_path(batch_id)}/cancel"
            try:
                self._client.post(path, cast_to=httpx2.Response, options={"max_retries": 0})
            except openai.ConflictError as error:
                # elsewhere a conflict passes; here it means that the batch has ended
                message = f"batch {batch_id} cannot be cancelled any more."
                raise TerminalError(message) from error

    def uploads(self, since: float) -> Iterator[tuple[str, str]]:
        with sdk.translated(_ERRORS, self.name):
            yield from uploads(self._client, since)

    def discard_upload(self, file_id: str) -> None:
        with sdk.translated(_ERRORS, self.name), suppress(openai.NotFoundError):
            self._client.delete(
                f"/files/{quote(file_id, safe='')}", cast_to=httpx2.Response, options=TIDY
            )

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


def untitled(text: str) -> Document:
    """Return the text that `titled` put under its name."""
    title, mark, content = text.partition(":\n\n")
    return Document(title, TEXT, content.encode()) if mark else Document("", TEXT, text.encode())


def schema_form(schema: OutputSchema) -> dict[str, Any]:
    """Return the strict form of structured output, as both endpoints take it."""
    return {
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", schema.name)[:64],
        "schema": schema.wire,
        "strict": True,
    }


def _batch_path(batch_id: str) -> str:
    return f"{_PATH}/{quote(batch_id, safe='')}"
