"""What the official SDKs have in common: error classes of the same names, and raw downloads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

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
from batchata_tasks.common.text import printable, sentence
from batchata_tasks.providers.keys import masked, without_keys
from batchata_tasks.providers.line_errors import is_of_account, is_of_money
from batchata_tasks.providers.network import asked, certificates_of, pointed_to, way_to
from batchata_tasks.providers.retry_after import retry_after
from batchata_tasks.providers.sizes import bounded
from batchata_tasks.providers.wire import batch_in, is_api_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from batchata_tasks.providers.gate import Gate

# statuses of reads that pass after a while: batches that exist have answered 404, too
_PASSING = frozenset(
    {
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
# the only statuses with which the API itself says for certain that it has accepted nothing. A 408,
# say, may be the time-out of a proxy behind which the batch was accepted
CERTAIN_REFUSALS = frozenset({400, 401, 403, 404, 413, 422, 429})
# a 429 with one of these codes does not pass after a while
_SPENT = {
    "insufficient_quota",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
    "billing_hard_limit_reached",
}
_MEND = (
    " Raise the limit, or add credit, at the provider (or ask who can): then the same command goes "
    "on."
)
_WHOLE = (HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION)
READ_RETRIES = 1
# seconds for which a server may say nothing: what moves files, or creates, may take as long as the
# SDKs wait; all else is quick, and tried again
READ_TIMEOUT = httpx2.Timeout(150.0, connect=10.0)
SLOW_TIMEOUT = httpx2.Timeout(600.0, connect=10.0)
_QUOTED = 200  # characters of an answer that nobody can read


@dataclass(frozen=True, slots=True)
class Errors:
    """An SDK's error classes."""

    status: type[Exception]  # the server answered with an error
    connection: type[Exception]  # no answer came
    unreadable: type[Exception]  # the answer cannot be read
    base: type[Exception]  # all that the SDK raises


@contextmanager
def translated(sdk: Errors, provider: str) -> Generator[None, None, None]:
    """Turn an SDK's errors of any call but a create into ours."""
    try:
        yield
    except sdk.status as error:
        raise _read_error(error, provider) from _cause(error)
    except sdk.connection as error:
        if _is_unreadable(error):
            raise _cannot_be_read(error, provider) from error
        raise _unreachable(error, provider) from error
    except _unreadable(sdk) as error:
        raise _cannot_be_read(error, provider) from error


def created(
    sdk: Errors, provider: str, gate: Gate, call: Callable[[], httpx2.Response]
) -> dict[str, Any]:
    """Make a create, one POST; return the batch that its answer names.

    Raises:
        TransientError, TerminalError, CredentialsError: nothing was accepted, for certain: nothing
            was sent, or the API itself refused with one of `CERTAIN_REFUSALS`.
        UnclearError: anything else. The batch may have been accepted or not.
    """
    try:
        response = call()
    except sdk.status as error:
        refused: Any = error
        if (batch := batch_in(refused.response)) is not None:
            return batch
        raise _create_error(error, provider) from _cause(error)
    except sdk.connection as error:
        if isinstance(error.__cause__, BatchataError):
            raise error.__cause__ from None  # the gate's
        if not gate.began:
            raise _unreachable(error, provider) from error
        what = "the connection broke before the answer to a create came"
        if _is_unreadable(error):
            what = "the answer to a create cannot be read"
        message = f"{provider}: {what} ({_reason(error)})."
        raise UnclearError(message) from error
    except _unreadable(sdk) as error:
        if not gate.began:
            message = f"{provider}: a create cannot be sent ({_reason(error)})."
            raise TerminalError(message) from error
        message = f"{provider}: the answer to a create cannot be read ({_reason(error)})."
        raise UnclearError(message) from error
    if (batch := batch_in(response)) is None:
        text = masked(response.text[:_QUOTED]) or "nothing"
        message = (
            f"{provider}: the answer to a create names no batch (HTTP {response.status_code}: "
            f"{text})."
        )
        raise UnclearError(message)
    return batch


def _cause(error: Exception) -> Exception | None:
    """Return an SDK's error as a cause, unless it quotes a key: tracebacks print causes, too."""
    return error if masked(str(error)) == str(error) else None


def _unreadable(sdk: Errors) -> tuple[type[Exception], ...]:
    return (
        sdk.unreadable,
        sdk.base,
        ValueError,
        AttributeError,
        TypeError,
        LookupError,
        httpx2.HTTPError,
    )


def _is_unreadable(error: Exception) -> bool:
    """Whether an SDK calls it a broken connection that an answer came which cannot be read."""
    return isinstance(error.__cause__, httpx2.DecodingError)


def _cannot_be_read(error: Exception, provider: str) -> TransientError:
    return TransientError(f"{provider}: the answer cannot be read ({_reason(error)}).")


def _unreachable(error: Exception, provider: str) -> BatchataError:
    request = _asked_last(error)
    way = "" if request is None else way_to(request.url)
    message = f"{provider}: cannot reach {_host(error)}{way} ({_reason(error)})."
    return TransientError(message + certificates_of(error))


def _create_error(error: Any, provider: str) -> BatchataError:
    """Return the error of a create that was answered with an HTTP error."""
    status = int(error.status_code)
    if status in CERTAIN_REFUSALS and is_api_error(error.response):
        return _refusal(error, provider)
    text = _text(error, provider)
    # a 402, say: the API means it, but the rules of what is certain do not list it
    is_trouble = (
        status < HTTPStatus.INTERNAL_SERVER_ERROR
        and is_api_error(error.response)
        and (status == HTTPStatus.PAYMENT_REQUIRED or is_of_account(error.body, status))
    )
    return UnclearError(text, f"{text}{_MEND}" if is_trouble else None)


def _read_error(error: Any, provider: str) -> BatchataError:
    """Return the error of any other call that was answered with an HTTP error."""
    status = int(error.status_code)
    # a page of something in between says nothing about the call, but a body can be too large for it
    is_final = is_api_error(error.response) or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    is_final = is_final and status >= HTTPStatus.BAD_REQUEST  # no API answers a read with a 304
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING or not is_final:
        if status == HTTPStatus.TOO_MANY_REQUESTS and _code(error) in _SPENT:
            return _refusal(error, provider)
        # a page that says 404 says nothing about the batch or file that was asked for
        is_page = status == HTTPStatus.NOT_FOUND and not is_api_error(error.response)
        return TransientError(
            _text(error, provider), retry_after(error.response.headers), None if is_page else status
        )
    return _refusal(error, provider)


def _refusal(error: Any, provider: str) -> BatchataError:
    """Return the error of a call that the API has refused for certain."""
    status, text = int(error.status_code), _text(error, provider)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        if _code(error) in _SPENT:
            return TerminalError(f"{text}{_MEND}", status)
        return TransientError(text, retry_after(error.response.headers), status)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        remedy = (
            " The API key was refused: check the key in the environment, or in the block that "
            "`credentials` names."
        )
        return CredentialsError(f"{text}{_MEND if is_of_money(error.body) else remedy}")
    is_account = is_of_account(error.body, status)
    return TerminalError(f"{text}{_MEND}" if is_account else text, status)


def _text(error: Any, provider: str) -> str:
    """Return what an HTTP error says, and what helps against one that concerns sizes."""
    text = f"{provider}: HTTP {error.status_code}: {_message(error)}"
    text += asked(error.response, provider, by_api=is_api_error(error.response))
    text += pointed_to(error.response, provider)
    if int(error.status_code) != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return text
    return f"{text} Make batches smaller: set `items_per_batch`."


def _code(error: Any) -> str | None:
    details = getattr(error, "details", None)
    for holder, name in ((error, "error_code"), (details, "error_code"), (error, "code")):
        if code := getattr(holder, name, None):
            return str(code)
    return None


def _message(error: Any) -> str:
    body = as_dict(error.body)
    details = as_dict(body.get("error")) or body
    return sentence(masked(str(details.get("message") or error.message or "no reason"))[:500])


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return masked(str(cause))[:500] or type(cause).__name__


def _host(error: Any) -> str:
    """Return the host that did not answer, and, if redirects led there, from which."""
    first, last = _request_of(error), _asked_last(error)
    if last is None:
        return "the server"
    there = _shown_host(last.url)
    if first is None or _shown_host(first.url) == there:
        return there
    return f"{there}, to which {_shown_host(first.url)} leads"


def _asked_last(error: BaseException) -> httpx2.Request | None:
    """Return the request that failed, behind redirects; an SDK's error has the one before them."""
    cause = error.__cause__
    last = None if cause is None else _request_of(cause)
    return last or _request_of(error)


def _request_of(error: BaseException) -> httpx2.Request | None:
    try:
        return getattr(error, "request", None)
    except RuntimeError:  # so httpx says that there is none
        return None


def _shown_host(url: httpx2.URL) -> str:
    return printable(f"{url.host}:{url.port}" if url.port else str(url.host))


def save(response: Any, path: Path, requests: int) -> None:
    """Stream the results of so many requests to a file that appears only when it is whole.

    A broken connection raises, so a download that was cut leaves nothing behind. So does a body
    that is shorter than the server said, or said to be a part (206), or larger than such results
    can be.
    """
    if response.status_code not in _WHOLE:
        message = f"HTTP {response.status_code}, which is not the whole of the results"
        raise httpx2.RemoteProtocolError(message)
    length = response.headers.get("content-length")
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    with durable(path) as stream:
        size = 0
        blocks = bounded(response.iter_bytes(1 << 18), requests, path.parent)
        for block in without_keys(blocks):
            size += len(block)
            stream.write(block)
        if length is not None and not encoded and size != int(length):
            message = f"the download of {path.name} ended after {size:,} of {int(length):,} bytes"
            raise httpx2.RemoteProtocolError(message)
