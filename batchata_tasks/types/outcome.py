"""How a Job can end, and the errors in a row's `_error`."""

from __future__ import annotations

from enum import StrEnum


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
        """Whether the request cannot have cost anything; then it does not count as an attempt."""
        return self in (Outcome.EXPIRED, Outcome.CANCELED)


class ErrorCode(StrEnum):
    """The first word of a row's `_error`; `: ` and the message follow."""

    REQUEST = "request"  # the provider says that the request itself is wrong
    TOO_LARGE = "too_large"  # the request alone is over the provider's limit; it was not sent
    DOCUMENT = "document"  # its document cannot be sent; nor was the request
    PROVIDER = "provider"  # any other error of the provider for this request
    RESPONSE = "response"  # the answer does not satisfy the response model
    TRUNCATED = "truncated"
    REFUSED = "refused"
    NEVER_RAN = "never_ran"
    ACCOUNT = "account"  # the account lacks credit, quota or a permission; the request is fine

    @property
    def final(self) -> bool:
        """Whether sending the same request again cannot help."""
        return self in (
            ErrorCode.REQUEST,
            ErrorCode.TOO_LARGE,
            ErrorCode.DOCUMENT,
            ErrorCode.REFUSED,
        )


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


def is_attempt(outcome: Outcome, error: str | None) -> bool:
    """Whether a request that ended so counts as one of its row's attempts.

    It does not if it never ran, or if all that it lacked was a document that can be sent, or an
    account that may run it.
    """
    lacked = error_code(error) in (ErrorCode.ACCOUNT, ErrorCode.DOCUMENT)
    return not outcome.never_ran and not lacked


def outcome_of(error: str | None) -> Outcome:
    """Return the outcome of a request that was changed since it ended with this `_error`."""
    return Outcome.TRUNCATED if error_code(error) is ErrorCode.TRUNCATED else Outcome.INVALID
