"""What the official SDKs have in common: error classes of the same names, and raw downloads."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx2

from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    TerminalError,
    TransientError,
    UnclearError,
)
from batchata_tasks.common.files import durable
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.keys import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

_WAIT_CODES = {408, 409, 425}
# a 429 with one of these codes does not pass after a while
_SPENT = {
    "insufficient_quota",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
    "billing_hard_limit_reached",
}
READ_RETRIES = 3


# called when the request's first byte is about to go out, after the connection was made; it raises
# to stop that. A process may sleep for hours while it connects, and then nothing must be sent.
_MAY_SEND: ContextVar[Callable[[], None] | None] = ContextVar("batchata_may_send", default=None)


@contextmanager
def gated(may_send: Callable[[], None]) -> Generator[None, None, None]:
    """Call `may_send` at the last moment before any byte of a create goes out."""
    token = _MAY_SEND.set(may_send)
    try:
        yield
    finally:
        _MAY_SEND.reset(token)


def watch(request: httpx2.Request) -> None:
    """Request hook of the SDKs' HTTP clients: call the gate once the connection has been made."""
    if (may_send := _MAY_SEND.get()) is None:
        return

    def trace(event: str, _info: object) -> None:
        if event.endswith("send_request_headers.started"):
            may_send()

    request.extensions = {**request.extensions, "trace": trace}


class GatedFile:
    """A request file that calls the gate before each block is read, and so before it is sent."""

    def __init__(self, stream: BinaryIO, may_send: Callable[[], None]) -> None:
        self._stream, self._may_send = stream, may_send

    def fileno(self) -> int:
        """Return the file's descriptor, from which its size is taken."""
        return self._stream.fileno()

    def read(self, size: int = -1) -> bytes:
        """Return the next block."""
        self._may_send()
        return self._stream.read(size)

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(1 << 16):
            yield block


@dataclass(frozen=True, slots=True)
class Errors:
    """An SDK's error classes."""

    status: type[Exception]  # the server answered with an error
    connection: type[Exception]  # no answer came
    unreadable: type[Exception]  # the answer cannot be read


@contextmanager
def translated(
    sdk: Errors, provider: str, *, creating: bool = False
) -> Generator[None, None, None]:
    """Turn an SDK's errors into ours.

    If `creating`, a refused connection and any 4xx are certain refusals. A 5xx, a timeout, a broken
    connection or an unreadable answer leave the create in doubt: that is an UnclearError.
    """
    try:
        yield
    except sdk.status as error:
        cause = error if masked(str(error)) == str(error) else None  # tracebacks print causes too
        raise _status_error(error, provider, creating=creating) from cause
    except sdk.connection as error:
        cause = error.__cause__
        if isinstance(cause, BatchataError):
            raise cause from None  # the gate's
        if creating and not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            message = (
                f"{provider}: the connection broke before the answer to a create came "
                f"({_reason(error)})."
            )
            raise UnclearError(message) from error
        message = f"{provider}: cannot reach {_host(error)} ({_reason(error)})."
        raise TransientError(message) from error
    except (
        sdk.unreadable,
        ValueError,
        AttributeError,
        TypeError,
        LookupError,
        httpx2.HTTPError,
    ) as error:
        message = f"{provider}: the answer cannot be read ({_reason(error)})."
        raise (UnclearError(message) if creating else TransientError(message)) from error


def _status_error(error: Any, provider: str, *, creating: bool) -> BatchataError:
    status = int(error.status_code)
    text = f"{provider}: HTTP {status}: {_message(error)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UnclearError(text) if creating else TransientError(text, status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        if _code(error) in _SPENT:
            return TerminalError(f"{text} Raise the limit at the provider.")
        return TransientError(text, _retry_after(error), status)
    if status in _WAIT_CODES or (status == HTTPStatus.NOT_FOUND and not creating):
        # batches that exist have answered 404 for a while: that never proves one to be lost
        return TransientError(text, status=status)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        remedy = "The API key was refused: check the key in the environment."
        return CredentialsError(f"{text} {remedy}")
    return TerminalError(text)


def _code(error: Any) -> str | None:
    details = getattr(error, "details", None)
    for holder, name in ((error, "error_code"), (details, "error_code"), (error, "code")):
        if code := getattr(holder, name, None):
            return str(code)
    return None


def _message(error: Any) -> str:
    body = as_dict(error.body)
    details = as_dict(body.get("error")) or body
    return masked(str(details.get("message") or error.message))[:500]


def _retry_after(error: Any) -> float | None:
    headers = error.response.headers
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
    return None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return masked(str(cause)) or type(cause).__name__


def _host(error: Any) -> str:
    request = getattr(error, "request", None)
    if request is None:
        return "the server"
    url = request.url
    return f"{url.host}:{url.port}" if url.port else str(url.host)


def save(response: Any, path: Path) -> None:
    """Stream a download to a file that appears only when it is whole.

    A broken connection raises, so a download that was cut leaves nothing behind. So does a body
    that is shorter than the server said.
    """
    length = response.headers.get("content-length")
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    with durable(path) as stream:
        size = 0
        for block in response.iter_bytes(1 << 18):
            size += len(block)
            stream.write(block)
        if length is not None and not encoded and size != int(length):
            message = f"the download of {path.name} ended after {size:,} of {int(length):,} bytes"
            raise httpx2.RemoteProtocolError(message)
