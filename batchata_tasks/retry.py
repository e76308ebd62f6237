"""Retrying: which rows are worth another attempt, and what that attempt changes.

A retry is a new request in a new round, never a re-send. Its row keeps the fingerprint of the base
request: what a retry changes (a larger cap, a remark about the answer before) is not what was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.jobs import Outcome, is_final

if TYPE_CHECKING:
    from batchata_tasks.providers import Provider

_MOST_DOUBLINGS = 2  # a truncated answer gets at most four times the spec's cap
_REMARK_CHARS = 1000


def worth_another(status: str, error: str | None, attempts: int, max_attempts: int) -> bool:
    """Whether a row that ended like this may be sent again.

    Refused rows and wrong requests end the same way each time; attempts are counted over all runs.
    """
    return status != Outcome.SUCCEEDED and not is_final(error) and attempts < max_attempts


def changed_body(provider: Provider, body: bytes, status: str, error: str | None, attempts: int) -> bytes:
    """Return the request body of another attempt, from the base request's.

    A truncated answer gets a cap of twice the size for each attempt, an invalid one is told what was
    wrong; whatever else happened had nothing to do with the request, which goes out as it is.
    """
    if status not in (Outcome.TRUNCATED, Outcome.INVALID):
        return body
    changed: dict[str, Any] = orjson.loads(body)
    if status == Outcome.TRUNCATED:
        changed[provider.cap_param] *= 2 ** min(max(attempts, 1), _MOST_DOUBLINGS)
    else:
        changed["messages"] = [*changed["messages"], {"role": "user", "content": _remark(error)}]
    return orjson.dumps(changed)


def cap_of(provider: Provider, body: bytes) -> int:
    """Return the cap on the answer's tokens that a body carries."""
    return int(orjson.loads(body)[provider.cap_param])


def _remark(error: str | None) -> str:
    found = (error or "").partition(": ")[2][:_REMARK_CHARS] or "it does not satisfy the schema"
    return f"An earlier answer to this was not accepted: {found}. Answer again, so that this does not happen."
