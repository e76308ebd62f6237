"""Retrying: which rows are worth another attempt, and what that attempt changes.

A retry is a new request in a new round, never a re-send. Its row keeps the fingerprint of the base
request: what a retry changes (a larger cap, a remark about the answer before) is not what was asked.
"""

from __future__ import annotations

from typing import Any

import orjson

from batchata_tasks.types.outcome import Outcome, is_final

_MOST = 4  # a truncated answer gets at most four times the spec's cap
_REMARK_CHARS = 1000


def worth_another(status: str, error: str | None, attempts: int, max_attempts: int) -> bool:
    """Whether a row that ended like this may be sent again.

    Refused rows and wrong requests end the same way each time; attempts are counted over all runs.
    """
    return status != Outcome.SUCCEEDED and not is_final(error) and attempts < max_attempts


def changed_body(
    body: bytes,
    status: str,
    error: str | None,
    attempts: int,
    *,
    cap_param: str,
    turns_param: str,
    cap: int,
    turns: int,
) -> tuple[bytes, int, int] | None:
    """Return the body of another attempt with its cap and its number of turns, or None where the last one's will do.

    A truncated answer gets a cap of twice the size with each attempt, an invalid one is told what
    was wrong; whatever else happened had nothing to do with the request, which goes out as it is.

    Args:
        body: the request that was sent last, or the base request where that is not known any more.
        status: how it ended, with `error`, after so many `attempts`.
        error: see there.
        attempts: see there.
        cap_param: how the body calls the cap.
        turns_param: how the body calls its turns.
        cap: the spec's cap.
        turns: how many of the body's turns are the spec's own.
    """
    if status not in (Outcome.TRUNCATED, Outcome.INVALID):
        return None
    changed: dict[str, Any] = orjson.loads(body)
    if status == Outcome.TRUNCATED:
        changed[cap_param] = min(
            max(2 * changed[cap_param], cap * 2 ** min(attempts, 2)), _MOST * cap
        )
    else:
        changed[turns_param] = [
            *changed[turns_param][:turns],
            {"role": "user", "content": _remark(error)},
        ]
    return orjson.dumps(changed), changed[cap_param], len(changed[turns_param])


def _remark(error: str | None) -> str:
    found = (error or "").partition(": ")[2][:_REMARK_CHARS] or "it does not satisfy the schema"
    return f"An earlier answer to this was not accepted: {found}. Answer again, so that this does not happen."
