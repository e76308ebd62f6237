"""Anthropic Message Batches, over the official SDK.

Facts of the wire: https://platform.claude.com/docs/en/api/creating-message-batches and the SDK's
own types (anthropic 2.12).
"""

from __future__ import annotations

from base64 import b64decode
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anthropic
import httpx2
from anthropic._response import StreamedBinaryAPIResponse

from batchata_tasks.common.errors import SpecError, TerminalError
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers import sdk
from batchata_tasks.providers.anthropic import param_rules
from batchata_tasks.providers.anthropic.batches import look_of
from batchata_tasks.providers.anthropic.fast_lines import plain_answer
from batchata_tasks.providers.anthropic.results import answer_of
from batchata_tasks.providers.anthropic.schema_limits import check_schema
from batchata_tasks.providers.base import (
    Adapter,
    BatchLook,
    Framing,
    Limits,
    QueueRule,
    texts_as_given,
)
from batchata_tasks.providers.checks import roles_alone
from batchata_tasks.providers.credentials import ENVIRONMENT
from batchata_tasks.providers.emulated import Answering
from batchata_tasks.providers.gate import GatedFile, gated, watch
from batchata_tasks.providers.keys import NO_KEY, check_environment
from batchata_tasks.providers.listing import (
    around_of,
    is_official,
    recent_of,
    watched_pages,
    with_status,
)
from batchata_tasks.providers.network import http_client
from batchata_tasks.providers.result_lines import (
    first_custom_id,
    lines_of,
    lines_of_blocks,
    read_lines,
)
from batchata_tasks.providers.sizes import first_of
from batchata_tasks.providers.wire import object_of
from batchata_tasks.types.document import Document
from batchata_tasks.types.ids import is_custom_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.providers.credentials import Credentials
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.answer import Answer
    from batchata_tasks.types.request import Message, Request

_ERRORS = sdk.Errors(
    anthropic.APIStatusError,
    anthropic.APIConnectionError,
    anthropic.APIResponseValidationError,
    anthropic.AnthropicError,
)
_PATH = "/v1/messages/batches"
_ADDRESS = "ANTHROPIC_BASE_URL"
_PAGE = 100
# for an hour: a batch takes longer than the default of five minutes
_CACHE_MARK = {"type": "ephemeral", "ttl": "1h"}


def _chosen_key(credentials: Credentials) -> str | None:
    """Return the key for the SDK; None if it is to read the environment by itself."""
    if credentials.block is None:
        return None
    return credentials.get("ANTHROPIC_API_KEY") or NO_KEY


def _chosen_address(credentials: Credentials) -> str | None:
    """Return the address for the SDK; None if it is to read the environment by itself."""
    if credentials.block is None:
        return None
    return credentials.get(_ADDRESS) or "https://api.anthropic.com"


class AnthropicAdapter(Adapter):
    """Message Batches: requests travel inline in the create, results come as one file."""

    name = "anthropic"
    key_variables = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    headers_variable = "ANTHROPIC_CUSTOM_HEADERS"
    limits = Limits(requests=100_000, bytes=255_000_000)  # documented: 100,000 and 256 MB
    framing = Framing(
        before_id=b'{"custom_id":"',
        before_body=b'","params":',
        after_body=b"}",
        head=b'{"requests":[\n',
        joint=b",\n",
        tail=b"\n]}\n",
    )
    queue = QueueRule("requests", per_model=False)
    poll_seconds = (1.0, 60.0)
    reserved_params = frozenset(
        {"model", "max_tokens", "messages", "system", "output_config", "stream"}
    )
    repriced_params = frozenset({"inference_geo", "service_tier", "speed"})
    priced_params = frozenset({"metadata", "stop_sequences"})
    cap_param = "max_tokens"
    mixes_models = True
    document_bytes = 23_000_000  # documented: 32 MB a request, and base64 takes a third more
    document_pages = 600
    cites = True
    # "messages: text content blocks must be non-empty", or "… must contain non-whitespace text"
    blank_turns = False
    # only what `cache_control` marks is cached:
    # https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    caches_unasked = False
    schema_path = ("output_config", "format", "schema")

    def __init__(self, credentials: Credentials = ENVIRONMENT) -> None:
        self.credentials = credentials
        check_environment(self.key_variables, _ADDRESS, credentials)
        self.answering = self._who = Answering()
        client = anthropic.DefaultHttpxClient
        self._http = http_client(client, _ADDRESS, watch, self._who, credentials)
        self._client = anthropic.Anthropic(
            api_key=_chosen_key(credentials),
            base_url=_chosen_address(credentials),
            max_retries=sdk.READ_RETRIES,
            timeout=sdk.READ_TIMEOUT,
            http_client=self._http,
        )
        self._first_ids = dict[str, str | None]()  # by batch; results do not change
        self._official = is_official(self.base_url, "api.anthropic.com")
        self.lists_all = self.is_exact = self._official

    def close(self) -> None:
        self._client.close()

    @property
    def base_url(self) -> str:
        return str(self._client.base_url)

    def is_emulated(self) -> bool | None:
        return False if self._official else self._who.ask(self._http, self.base_url)

    @classmethod
    def check_schema(cls, schema: ResponseSchema) -> None:
        check_schema(schema)

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        if sampling := sorted({"temperature", "top_k", "top_p"} & params.keys()):
            # gone since API version 2026-10-21, which the SDK sends: each line would end in error
            message = (
                f"params.{sampling[0]}: Anthropic's API takes no sampling parameters any more; "
                "remove it."
            )
            raise SpecError(message)
        super().check_params(model, params, limited=limited)
        param_rules.check(model, params)

    @classmethod
    def check_cap(cls, max_tokens: int, params: Mapping[str, Any]) -> None:
        param_rules.check_budget(max_tokens, params)

    @classmethod
    @roles_alone
    def check_turns(cls, turns: Sequence[Message]) -> None:
        others = False
        for place, turn in enumerate(turns):
            if turn.role != "system":
                others = True
            elif others:
                message = (
                    f"messages.{place}: Anthropic takes system turns only before all others; "
                    "move it to the front."
                )
                raise SpecError(message)

    @classmethod
    def document_tokens(cls, model: str) -> tuple[int, int]:
        # documented, for a page: up to 3,000 of text and 4,784 of picture
        # (https://platform.claude.com/docs/en/build-with-claude/pdf-support)
        del model
        return 10_000, 6_000

    @classmethod
    def document_of(cls, part: Mapping[str, Any]) -> Document | None:
        return _document_of(part)

    @texts_as_given
    def body(self, request: Request) -> dict[str, Any]:
        system = "\n\n".join(turn.text for turn in request.messages if turn.role == "system")
        body: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens}
        if request.cache and system.strip():  # a block without text cannot be marked
            body["system"] = [{"type": "text", "text": system, "cache_control": _CACHE_MARK}]
        elif system.strip():
            body["system"] = system
        body["messages"] = [
            {"role": turn.role, "content": turn.wire(attached=_attached)}
            for turn in request.messages
            if turn.role != "system"
        ]
        if request.schema is not None:
            body["output_config"] = {
                "format": {"type": "json_schema", "schema": request.schema.wire}
            }
        return body | dict(request.params)

    def upload(self, path: Path) -> str | None:  # noqa: ARG002 - no files
        return None

    def create(
        self,
        path: Path,
        file_id: str | None,  # noqa: ARG002 - no file
        token: str,  # noqa: ARG002 - no name
        may_send: Callable[[], None],
    ) -> BatchLook:
        # the SDK's own create() would parse and serialize all requests in memory; its client sends
        # the file unchanged, block by block
        with path.open("rb") as stream, gated(may_send) as gate:
            content = GatedFile(stream, gate)
            # some servers refuse a body in chunks, which HTTP clients send without this header
            size = {"Content-Length": str(content.size)}
            headers = {"Content-Type": "application/json", **size}

            def post() -> httpx2.Response:
                return self._client.post(
                    _PATH,
                    content=content,
                    cast_to=httpx2.Response,
                    options={
                        "max_retries": 0,
                        "headers": headers,
                        "follow_redirects": False,
                        "timeout": sdk.SLOW_TIMEOUT,
                    },
                )

            return look_of(sdk.created(_ERRORS, self.name, gate, post))

    def look(self, batch_id: str) -> BatchLook:
        with sdk.translated(_ERRORS, self.name):
            return with_status(look_of(object_of(self._get(_batch_path(batch_id))), batch_id))

    def newest(self) -> list[BatchLook]:
        return next(self._pages(limit=1), list["BatchLook"]())

    def recent(self, since: float) -> Iterator[BatchLook]:
        return recent_of(self._pages(limit=_PAGE), since)

    def around(self, since: float) -> Iterator[BatchLook]:
        return around_of(self._pages(limit=_PAGE), since)

    def _pages(self, limit: int) -> Iterator[list[BatchLook]]:
        """Yield the pages of the account's list of batches."""

        def fetch(after: str | None) -> httpx2.Response:
            cursor = {} if after is None else {"after_id": after}
            return self._get(_PATH, {"limit": limit, **cursor})

        with sdk.translated(_ERRORS, self.name):
            for page in watched_pages(self, fetch, official=self._official):
                yield [look_of(batch) for batch in page]

    def _get(self, path: str, query: Mapping[str, object] | None = None) -> httpx2.Response:
        options: Any = {"params": query or {}}
        return self._client.get(path, cast_to=httpx2.Response, options=options)

    def owns(self, look: BatchLook, token: str) -> bool | None:
        """Whether results carry the token: batches have no name of ours, but custom_ids do."""
        return self.names_chunk(self._first_custom_id(look), token)

    def token_of(self, look: BatchLook) -> str | None:
        name = self._first_custom_id(look)
        return name.partition("-")[0] if name is not None and is_custom_id(name) else None

    def ours(self, look: BatchLook) -> bool | None:
        name = self._first_custom_id(look)
        return None if name is None else is_custom_id(name)

    def _first_custom_id(self, look: BatchLook) -> str | None:
        """Return the first custom_id of an ended batch's results, from their first bytes."""
        if not look.ended or look.gone:
            return None
        if look.batch_id not in self._first_ids:
            self._first_ids[look.batch_id] = self._read_first_custom_id(look)
        return self._first_ids[look.batch_id]

    def _read_first_custom_id(self, look: BatchLook) -> str | None:
        with sdk.translated(_ERRORS, self.name), closing(self._results(look.batch_id)) as response:
            return first_custom_id(lines_of_blocks(first_of(response.iter_bytes(1 << 16))))

    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        path = folder / f"{stem}.jsonl"
        with sdk.translated(_ERRORS, self.name), closing(self._results(look.batch_id)) as response:
            sdk.save(response, path, look.requests or self.limits.requests)
        return [path]

    def _results(self, batch_id: str) -> Any:
        # by path under the configured base URL: the SDK's results() would follow any URL that the
        # batch names, and send the key there
        headers = {"Accept": "application/binary", "X-Stainless-Raw-Response": "stream"}
        path = f"{_batch_path(batch_id)}/results"
        # some servers put them together only then
        options: Any = {"headers": headers, "timeout": sdk.SLOW_TIMEOUT}
        response = self._client.get(path, cast_to=StreamedBinaryAPIResponse, options=options)
        return response.http_response

    def answers(self, path: Path) -> Iterator[Answer]:
        return read_lines(lines_of(path), plain_answer, answer_of)

    def cancel(self, batch_id: str) -> None:
        with sdk.translated(_ERRORS, self.name):
            try:
                self._client.messages.batches.cancel(batch_id)
            except anthropic.ConflictError as error:
                # elsewhere a conflict passes; servers that refuse a cancel go on refusing it
                message = f"batch {batch_id} cannot be cancelled any more."
                raise TerminalError(message) from error

    def uploads(self, since: float) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - no files
        return iter(())

    def discard_upload(self, file_id: str) -> None:  # noqa: ARG002 - there are none
        return

    def discard_results(self, look: BatchLook) -> None:
        # results cannot be deleted by themselves: the batch is deleted with them
        with sdk.translated(_ERRORS, self.name), suppress(anthropic.NotFoundError):
            self._client.messages.batches.delete(look.batch_id)


def _document_of(part: Mapping[str, Any]) -> Document | None:
    """Return the document that `_attached` made a content block of."""
    source, title = as_dict(part.get("source")), str(part.get("title", ""))
    kind, data = str(source.get("media_type")), source.get("data")
    if not isinstance(data, str):
        return None
    if source.get("type") == "text":
        return Document(title, kind, data.encode())
    return Document(title, kind, b64decode(data))


def _attached(document: Document) -> dict[str, Any]:
    """Return the content block of a document."""
    if document.kind == "text":
        source = {"type": "text", "media_type": document.media_type, "data": document.text}
    else:
        source = {"type": "base64", "media_type": document.media_type, "data": document.base64}
    if document.kind == "image":
        return {"type": "image", "source": source}
    block = {"type": "document", "source": source, "title": document.title}
    return block | {"citations": {"enabled": True}} if document.cited else block


def _batch_path(batch_id: str) -> str:
    return f"{_PATH}/{quote(batch_id, safe='')}"
