"""The values that travel: a Job to a provider, an Answer back, and how a Job can end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.documents import Document
    from batchata_tasks.schema import ResponseSchema


class Outcome(StrEnum):
    """How a Job ended; every Job ends in exactly one."""

    SUCCEEDED = "succeeded"  # a usable answer that satisfies the response model
    INVALID = "invalid"  # answered, but the answer fails the response model
    TRUNCATED = "truncated"  # stopped by the token cap
    REFUSED = "refused"  # the model refused
    ERRORED = "errored"  # the provider reports an error for this request
    EXPIRED = "expired"  # never ran: the batch's time was over
    CANCELED = "canceled"  # never ran: the batch was cancelled
    MISSING = "missing"  # the provider returned no line for it

    @property
    def never_ran(self) -> bool:
        """Whether the request cannot have cost anything, so that it is no attempt."""
        return self in (Outcome.EXPIRED, Outcome.CANCELED)


class ErrorCode(StrEnum):
    """First word of a row's `_error`, followed by `: ` and the message."""

    REQUEST = "request"  # the provider says that the request itself is wrong
    TOO_LARGE = "too_large"  # the request alone is over the provider's limit; it was not sent
    PROVIDER = "provider"  # any other error of the provider for this request
    RESPONSE = "response"  # the answer does not satisfy the response model
    TRUNCATED = "truncated"
    REFUSED = "refused"
    NEVER_RAN = "never_ran"

    @property
    def final(self) -> bool:
        """Whether sending the same request again cannot help."""
        return self in (ErrorCode.REQUEST, ErrorCode.TOO_LARGE, ErrorCode.REFUSED)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that is sent: a text, or parts that stay apart, each a text or a document."""

    role: Literal["system", "user", "assistant"]
    content: str | tuple[str | Document, ...]

    @property
    def text(self) -> str:
        """The whole text of the turn."""
        return self.content if isinstance(self.content, str) else "\n\n".join(part for part in self.content if isinstance(part, str))

    def wire(self, kind: str = "text", attached: Callable[[Document], dict[str, Any]] | None = None) -> str | list[dict[str, Any]]:
        """Return the content as requests hold it.

        `kind` is what the endpoint calls a part of text; `attached` makes the part of a document, where a
        provider takes some (`Provider.document_bytes`).
        """
        if isinstance(self.content, str):
            return self.content
        parts = list[dict[str, Any]]()
        for part in self.content:
            if isinstance(part, str):
                parts.append({"type": kind, "text": part})
            elif attached is None:
                message = "an adapter that takes documents tells how requests hold them: give `attached`."
                raise TypeError(message)
            else:
                parts.append(attached(part))
        return parts


@dataclass(frozen=True, slots=True)
class Job:
    """One request to a model; its provider-side name, the custom_id, is given when it is sent."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: ResponseSchema | None = None
    cache: bool = False  # mark the system prompt, so that other requests find it in the provider's cache


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, both providers' conventions brought to one.

    `input_tokens` is the whole input, what was read from or written to a cache included.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    us_only: bool = False  # Anthropic: inference was bound to the US, at a tenth more for each token


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a provider's results, classified.

    `text` is the raw answer where there is one. `error` starts with an `ErrorCode`. `citations` are
    rows of the column `_citations`.
    """

    custom_id: str
    outcome: Outcome
    text: str | None = None
    error: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    readable: bool = True  # whether the line said what it used; else its cost is not known
    citations: tuple[dict[str, Any], ...] = ()


def as_dict(value: object) -> dict[str, Any]:
    """Return a JSON object as it is, and anything else (null, absent) as an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_MOST_TOKENS = 2**40


def count_of(value: object) -> int:
    """Return a number of tokens or calls as a provider states it; absent means none.

    Raises:
        ValueError: it is no count.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_TOKENS:
        message = f"{value!r:.50} is no number of tokens"
        raise ValueError(message)
    return value


def text_of(value: object) -> str | None:
    """Return a text of a provider's answer, or None where there is none.

    Raises:
        TypeError, ValueError: it is no text, or one that is no Unicode.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"{value!r:.50} is no text"
        raise TypeError(message)
    value.encode()
    return value


def describe(code: ErrorCode, message: str, limit: int = 2000) -> str:
    """Return the text of a row's `_error` column: code, message, at most `limit` characters."""
    return f"{code}: {message}"[:limit]


def error_code(error: str | None) -> ErrorCode | None:
    """Return the code that a stored `_error` begins with."""
    word = (error or "").partition(":")[0]
    return ErrorCode(word) if word in set(ErrorCode) else None


def is_final(error: str | None) -> bool:
    """Whether a stored `_error` says that sending the same request again cannot help."""
    code = error_code(error)
    return code is not None and code.final


def outcome_of(error: str | None) -> Outcome:
    """Return the outcome of a request that was changed since it ended with this `_error`."""
    return Outcome.TRUNCATED if error_code(error) is ErrorCode.TRUNCATED else Outcome.INVALID
