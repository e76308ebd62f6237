"""What a result line says of an error, in whatever shape, and what that means for its row.

Providers nest an error's object once, twice or not at all; gateways write it beside the response or
in its body, as an object, a text, a JSON text or a list, with a code, a type, both or neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from batchata_tasks.providers.keys import masked
from batchata_tasks.providers.result_json import excerpt_of, object_of
from batchata_tasks.types.answer import Answer
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

_DEPTH = 5  # that an error's object is nested at most
_WORDS = (
    *("message", "detail", "msg", "description", "error_description", "reason", "title"),
    *("details", "error_message"),
)
_NEVER_RAN = {
    "batch_expired": Outcome.EXPIRED,
    "batch_cancelled": Outcome.CANCELED,
    "batch_canceled": Outcome.CANCELED,
}
# codes and types: https://platform.claude.com/docs/en/api/errors and the SDKs' error classes,
# https://platform.openai.com/docs/guides/error-codes
_ACCOUNT = frozenset(
    {
        *("authentication_error", "invalid_api_key", "invalid_authentication", "unauthorized"),
        *("permission_error", "permission_denied", "insufficient_permissions", "forbidden"),
        *("billing_error", "billing_not_active", "billing_hard_limit_reached", "payment_required"),
        *("insufficient_quota", "insufficient_credits", "insufficient_balance", "quota_exceeded"),
        *("enforced_spend_limit_reached", "contract_spend_limit_reached"),
        *("linked_organization_spend_limit_reached", "linked_organization_billing_unavailable"),
        *("user_profile_billing_not_authorized", "user_profile_not_billable"),
        *("account_deactivated", "account_disabled", "account_suspended", "access_terminated"),
        *("organization_on_hold", "organization_disabled", "organization_deactivated"),
    }
)
_ACCOUNT_STATUSES = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
)
# types that say what is wrong, and not that the account is
_SPECIFIC = frozenset(
    {
        *("not_found_error", "request_too_large", "unprocessable_entity", "overloaded_error"),
        *("invalid_prompt", "data_residency_mismatch", "context_length_exceeded"),
        *("bio_policy", "misalignment_policy_violation", "content_policy_violation"),
    }
)
_MONEY = re.compile("billing|billable|credit|balance|funds|payment|quota|spend")
_ACCOUNT_WORDS = re.compile(
    r"credit balance is too low|purchase credits|insufficient (credits?|funds|balance|quota)"
    r"|(out of|no|not enough|add (more )?) ?(credits?|funds)\b|payment (is )?required"
    r"|quota (has been |was |is )?(exceeded|exhausted)(?!.*per (second|minute))"
    r"|billing (is|has been) (not active|disabled)"
    r"|exceeded your current quota|billing hard limit|check your (plan and )?billing"
    r"|reached (your|its|the) [\w ]{0,40}(usage|spend|spending|billing|credit) limits?\b"
    r"|(account|organization|workspace|project|subscription)"
    r" (has been|is|was) (currently )?(disabled|deactivated|suspended|on hold|not active|inactive)"
    r"|organization must be verified",
    re.IGNORECASE,
)
# what the same request meets again each time
_WRONG_REQUEST = frozenset(
    {
        *("invalid_request_error", "invalid_request", "bad_request", "badrequesterror"),
        *("not_found_error", "request_too_large", "unprocessable_entity"),
        *("invalid_prompt", "data_residency_mismatch"),
        *("bio_policy", "misalignment_policy_violation"),
    }
)
# of the 4xx, those that the same request need not meet again
_PASSING_STATUSES = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
    | {HTTPStatus.TOO_MANY_REQUESTS}
)


@dataclass(frozen=True, slots=True)
class LineError:
    """An error as a line tells it: its words, and what it is called."""

    message: str
    code: str | None = None
    kind: str | None = None  # its type, which is a class of errors

    @property
    def status(self) -> int | None:
        """The HTTP status that some servers write as the error's code."""
        code = self.code or ""
        return int(code) if re.fullmatch("[45][0-9]{2}", code) else None

    def answer(
        self, custom_id: str, *, status: int | None = None, shown: str | None = None
    ) -> Answer:
        """Return the answer of a request that ended with this error.

        `status` is its HTTP status, if it has one; `shown` replaces the words for people.
        """
        text = shown or (f"{self.code}: {self.message}" if self.code else self.message)
        text = masked(text)  # before it is cut: part of a key is a secret, too
        if ended := _NEVER_RAN.get(self.code or ""):
            error = describe(ErrorCode.NEVER_RAN, text)
            return Answer(custom_id, ended, error=error)
        code = self.means(status or self.status)
        return Answer(custom_id, Outcome.ERRORED, error=describe(code, text))

    def means(self, status: int | None) -> ErrorCode:
        """Return what the error means for the same request, by its HTTP status if it has one."""
        names = {name.lower() for name in (self.code, self.kind) if name}
        if names & _ACCOUNT or status in _ACCOUNT_STATUSES:
            return ErrorCode.ACCOUNT
        if not names & _SPECIFIC and _ACCOUNT_WORDS.search(self.message):
            return ErrorCode.ACCOUNT
        if status is not None and status >= HTTPStatus.BAD_REQUEST:
            final = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING_STATUSES
            return ErrorCode.REQUEST if final else ErrorCode.PROVIDER
        return ErrorCode.REQUEST if names & _WRONG_REQUEST else ErrorCode.PROVIDER


def is_of_account(body: object, status: int) -> bool:
    """Whether an error that refused a call is about the account: its credit, quota or limits."""
    error = told(body)
    return error is not None and error.means(status) is ErrorCode.ACCOUNT


def is_of_money(body: object) -> bool:
    """Whether an error that refused a call is about money: credit, a quota, billing."""
    error = told(body)
    words = () if error is None else (error.code, error.kind, error.message)
    return any(_MONEY.search(word.lower()) for word in words if word)


def told(*values: object) -> LineError | None:
    """Return the first error that one of these parts of a line tells, or None if none does."""
    for value in values:
        if (error := _told(value, _DEPTH)) is not None:
            return error
    return None


def _told(value: object, depth: int) -> LineError | None:
    if isinstance(value, str):
        if (held := object_of(value)) and (error := _told(held, depth - 1)) is not None:
            return error
        return LineError(value.strip()) if value.strip() else None
    if isinstance(value, list):
        items = cast("list[object]", value)
        parts = (_told(item, depth - 1) for item in items) if depth else ()
        errors = [part for part in parts if part is not None]
        text = "; ".join(error.message for error in errors)
        return LineError(text, errors[0].code, errors[0].kind) if errors else None
    if not isinstance(value, dict):
        return None
    return _of_object(cast("dict[str, Any]", value), depth)


def _of_object(value: dict[str, Any], depth: int) -> LineError | None:
    code, kind = _name(value.get("code")), _name(value.get("type"))
    kind = None if kind == "error" else kind  # of an envelope
    code = _name(object_of(value.get("details")).get("error_code")) or code
    inner = _told(value.get("error"), depth - 1) if depth else None
    if inner is not None:
        return LineError(inner.message, inner.code or code, inner.kind or kind)
    for name in _WORDS:
        words = _told(value.get(name), depth - 1) if depth else None
        if words is not None:
            return LineError(words.message, code or words.code, kind or words.kind)
    named = {name for name in value if value[name] not in (None, "", [], {})}
    if not named or not (code or kind):
        return LineError(excerpt_of(value, 2000)) if named else None
    return LineError(kind or code or "", code, kind)


def _name(value: object) -> str | None:
    """Return an error's code or type as a text; 0 and empty ones say nothing."""
    named = isinstance(value, str | int) and not isinstance(value, bool) and value
    return str(value).strip()[:100] or None if named else None
