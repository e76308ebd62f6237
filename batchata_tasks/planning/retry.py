"""Retrying: which rows are worth another attempt, and what that attempt changes.

A retry is a new request in a new round, never a re-send. Its row keeps the fingerprint of the base
request: what a retry changes (a larger cap, a remark on the earlier answer) is no other question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.types.outcome import ErrorCode, Outcome, error_code, is_final

if TYPE_CHECKING:
    from collections.abc import Callable

REMARK_BYTES = 1200  # that another attempt has more than the base request, at most
_MOST = 4  # after truncated answers, the cap grows to at most four times the spec's
_QUOTED_BYTES = 1000  # of an error in a remark, as JSON has it


def worth_another(status: str, error: str | None, attempts: int, max_attempts: int) -> bool:
    """Whether a row that ended like this may be sent again.

    Refused rows and wrong requests end the same way each time. Attempts are counted over all runs;
    what met trouble of the account was none.
    """
    if error_code(error) is ErrorCode.ACCOUNT:
        return True
    return status != Outcome.SUCCEEDED and not is_final(error) and attempts < max_attempts


def changed_body(
    body: bytes,
    status: str,
    error: str | None,
    attempts: int,
    *,
    cap_in: Callable[[dict[str, Any]], str],
    turns_param: str,
    cap: int,
    turns: int,
) -> tuple[bytes, int, int] | None:
    """Return the body of another attempt, its cap and its number of turns.

    Return None if the last body will do. After a truncated answer the cap doubles with each
    attempt; after an invalid one, a remark says what was wrong. Whatever else happened had nothing
    to do with the request, which goes out as it is.

    Args:
        body: the last request, or the base request if that one is lost.
        status: how the last attempt ended.
        error: why it ended so.
        attempts: the number of attempts until now.
        cap_in: returns the name of the cap in a body.
        turns_param: the name of the turns in a body.
        cap: the spec's cap.
        turns: how many of the body's turns are the spec's own.
    """
    if status not in (Outcome.TRUNCATED, Outcome.INVALID):
        return None
    changed: dict[str, Any] = orjson.loads(body)
    cap_param = cap_in(changed)
    if status == Outcome.TRUNCATED:
        changed[cap_param] = max(
            min(2 * changed[cap_param], _MOST * cap), largest_cap(cap, attempts)
        )
    else:
        remark = {"role": "user", "content": _remark(error)}
        changed[turns_param] = [*changed[turns_param][:turns], remark]
    return orjson.dumps(changed), changed[cap_param], len(changed[turns_param])


def largest_cap(cap: int, attempts: int) -> int:
    """Return the largest cap on the answer of a request that had so many attempts before."""
    return cap * min(2**attempts, _MOST)


def _remark(error: str | None) -> str:
    reason = _cut((error or "").partition(": ")[2]) or "it does not satisfy the schema"
    return (
        f"An earlier answer to this was not accepted: {reason}. "
        "Answer again, so that this does not happen."
    )


def _cut(text: str) -> str:
    """Return as much of a text as JSON has room for in _QUOTED_BYTES."""
    text = text[:_QUOTED_BYTES]
    while (excess := len(orjson.dumps(text)) - 2 - _QUOTED_BYTES) > 0:
        text = text[: -max(excess // 6, 1)]  # a character takes six bytes at most
    return text
