"""A third provider as a user would write it: one file, over plain HTTP, with no SDK.

It is a gateway that speaks OpenAI's batch API under names of its own: models are called `house-…`.
The emulator's OpenAI side is behind it, under an account of its own.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from batchata_tasks.common.errors import (
    CredentialsError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.common.files import durable
from batchata_tasks.providers import (
    BatchLook,
    Framing,
    Provider,
    check_environment,
    lines_of,
    masked,
    read_line,
    register,
)
from batchata_tasks.providers.base import Limits
from batchata_tasks.providers.result_lines import count_of
from batchata_tasks.providers.sdk import CERTAIN_REFUSALS
from batchata_tasks.providers.wire import is_api_error
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.types.request import Request

_ENDED = {"completed", "failed", "expired", "cancelled"}
_TOKEN = "house_token"
_TRIES = 3


class HouseProvider(Provider):
    """Batches by file, at the house's own gateway."""

    name = "house"
    key_variables = ("HOUSE_API_KEY",)
    limits = Limits(requests=1_000, bytes=10_000_000)
    framing = Framing(
        b'{"custom_id":"', b'","method":"POST","url":"/v1/chat/completions","body":', b"}\n"
    )
    poll_seconds = (2.0, 30.0)
    reserved_params = frozenset(
        {
            "model",
            "max_tokens",
            "max_completion_tokens",
            "messages",
            "response_format",
            "stream",
            "n",
        }
    )
    repriced_params = frozenset({"service_tier"})
    priced_params = frozenset({"metadata", "seed", "temperature"})
    cap_param = "max_completion_tokens"
    caches_unasked = False
    lists_all = True  # the house's gateway is known to list all batches

    def __init__(self) -> None:
        check_environment(self.key_variables, "HOUSE_BASE_URL")
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {self.secret}"},
            timeout=PATIENCE,
        )

    @property
    def base_url(self) -> str:
        return os.environ["HOUSE_BASE_URL"]

    def body(self, request: Request) -> dict[str, Any]:
        messages = [{"role": turn.role, "content": turn.wire()} for turn in request.messages]
        body: dict[str, Any] = {
            "model": request.model.replace("house-", "gpt-6-"),
            "messages": messages,
            "max_completion_tokens": request.max_tokens,
        }
        if request.schema is not None:
            form = {"name": "answer", "schema": request.schema.wire, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body | dict(request.params)

    def upload(self, path: Path) -> str | None:
        with path.open("rb") as stream:
            file_id: str = self._call(
                "POST", "/files", data={"purpose": "batch"}, files={"file": (path.name, stream)}
            ).json()["id"]
        return file_id

    def create(
        self, path: Path, file_id: str | None, token: str, may_send: Callable[[], None]
    ) -> BatchLook:
        request = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_TOKEN: token},
        }
        may_send()
        with _told(creating=True):
            return _look(_checked(self._http.post("/batches", json=request)).json())

    def look(self, batch_id: str) -> BatchLook:
        return _look(self._read(f"/batches/{batch_id}").json())

    def recent(self, since: float) -> Iterator[BatchLook]:
        after: dict[str, str] = {}
        while True:
            page = self._read("/batches", limit="100", **after).json()
            for batch in page["data"]:
                if batch["created_at"] < since - 1:
                    return
                yield _look(batch)
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def owns(self, look: BatchLook, token: str) -> bool | None:
        return look.token == token

    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        paths = [folder / f"{stem}.{number}.jsonl" for number in range(len(look.files))]
        for path, file_id in zip(paths, look.files, strict=True):
            with (
                _told(),
                self._http.stream("GET", f"/files/{file_id}/content") as response,
                durable(path) as stream,
            ):
                if response.is_error:
                    response.read()
                _checked(response)
                for block in response.iter_bytes():
                    stream.write(block)
        return paths

    def answers(self, path: Path) -> Iterator[Answer]:
        for line in lines_of(path):
            yield read_line(line, _answer)

    def cancel(self, batch_id: str) -> None:
        try:
            self._call("POST", f"/batches/{batch_id}/cancel")
        except TransientError as error:
            if error.status == 409:
                message = f"batch {batch_id} cannot be cancelled any more."
                raise TerminalError(message) from error
            raise

    def uploads(self, since: float) -> Iterator[tuple[str, str]]:
        for file in self._read("/files", purpose="batch", limit="1000").json()["data"]:
            if file["created_at"] >= since - 1:
                yield file["id"], file["filename"]

    def discard_upload(self, file_id: str) -> None:
        try:
            self._call("DELETE", f"/files/{file_id}")
        except TransientError as error:
            if error.status != 404:
                raise

    def discard_results(self, look: BatchLook) -> None:
        for file_id in look.files:
            self.discard_upload(file_id)

    def _call(self, method: str, path: str, **given: Any) -> httpx2.Response:
        with _told():
            return _checked(self._http.request(method, path, **given))

    def _read(self, path: str, **query: str) -> httpx2.Response:
        for rest in reversed(range(_TRIES)):
            try:
                return self._call("GET", path, params=query)
            except TransientError as error:
                if not rest or error.status == 404:
                    raise
                time.sleep(0.05)
        raise AssertionError


@contextmanager
def _told(*, creating: bool = False) -> Iterator[None]:
    """Turn errors of the connection into those of the package."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        message = f"house: cannot reach the gateway ({error})."
        raise TransientError(message) from error
    except httpx2.HTTPStatusError as error:
        raise _refused(error.response, creating=creating) from None
    except (httpx2.HTTPError, ValueError, LookupError) as error:
        message = f"house: the answer cannot be read ({error})."
        raise (UnclearError if creating else TransientError)(message) from error


def _checked(response: httpx2.Response) -> httpx2.Response:
    return response.raise_for_status()


def _refused(response: httpx2.Response, *, creating: bool) -> Exception:
    status = response.status_code
    text = masked(f"house: HTTP {status}: {response.text[:300]}")
    if creating and not (status in CERTAIN_REFUSALS and is_api_error(response)):
        return UnclearError(text)
    if status >= 500 or status in (408, 409, 429) or (status == 404 and not creating):
        return TransientError(text, status=status)
    if status in (401, 403):
        return CredentialsError(text)
    return TerminalError(text, status)


def _look(batch: dict[str, Any]) -> BatchLook:
    counts, errors = batch["request_counts"] or {}, (batch["errors"] or {}).get("data") or []
    return BatchLook(
        batch["id"],
        batch["status"],
        ended=batch["status"] in _ENDED,
        created_at=float(batch["created_at"]),
        requests=counts.get("total") or None,
        done=counts.get("completed", 0) + counts.get("failed", 0),
        token=(batch["metadata"] or {}).get(_TOKEN),
        files=tuple(file for file in (batch["output_file_id"], batch["error_file_id"]) if file),
        error="; ".join(str(error["message"]) for error in errors) or None,
        refused=batch["status"] == "failed",
        stopped={"expired": Outcome.EXPIRED, "cancelled": Outcome.CANCELED}.get(batch["status"]),
    )


def _answer(line: dict[str, Any]) -> Answer:
    name, response = str(line["custom_id"]), line["response"]
    if response is None:
        outcome = {"batch_expired": Outcome.EXPIRED, "batch_cancelled": Outcome.CANCELED}[
            line["error"]["code"]
        ]
        return Answer(name, outcome, error=describe(ErrorCode.NEVER_RAN, line["error"]["message"]))
    status, body = response["status_code"], response["body"]
    if status >= 400:
        code = ErrorCode.REQUEST if status == 400 else ErrorCode.PROVIDER
        return Answer(name, Outcome.ERRORED, error=describe(code, str(body["error"]["message"])))
    choice, counts = body["choices"][0], body["usage"]
    usage = Usage(count_of(counts["prompt_tokens"]), count_of(counts["completion_tokens"]))
    outcome, error = Outcome.SUCCEEDED, None
    if choice["message"].get("refusal"):
        outcome, error = Outcome.REFUSED, describe(ErrorCode.REFUSED, choice["message"]["refusal"])
    elif choice["finish_reason"] == "length":
        outcome = Outcome.TRUNCATED
        error = describe(ErrorCode.TRUNCATED, "stopped by the token cap")
    return Answer(
        name,
        outcome,
        choice["message"]["content"],
        error,
        usage,
        body["model"].replace("gpt-6-", "house-"),
    )


register(HouseProvider, models="^house-")
