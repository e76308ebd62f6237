"""OpenAI's batch objects, read from what official and other servers answer.

States: https://platform.openai.com/docs/guides/batch. Gateways spell them in capitals, or
`PROGRESS`, leave fields out, and give errors as texts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.base import BatchLook
from batchata_tasks.providers.wire import (
    checked_id,
    count_or_none,
    errors_of,
    reason_of,
    seconds_or_none,
    status_of,
    text_or_none,
)
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "batchata_token"  # noqa: S105 - the key of our metadata
_ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
_RUNNING = frozenset(
    {"validating", "in_progress", "finalizing", "cancelling", "progress", "queued", "pending"}
)
_SPELLINGS = {"canceled": "cancelled", "canceling": "cancelling"}
_STOPPED = {"expired": Outcome.EXPIRED, "cancelled": Outcome.CANCELED}
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_NO_ROOM = "token_limit_exceeded"
_HOLDS = re.compile(r"\bLimit: ([0-9][0-9,]{0,20}) enqueued tokens")
_MOST_HELD = 10**15  # tokens; the largest limits are of some 10**10


def look_of(batch: Mapping[str, Any], batch_id: str | None = None) -> BatchLook:
    """Read a batch object; `batch_id` is the one that was asked for.

    Raises:
        ValueError: it has no id, and none was asked for.
    """
    status = status_of(batch.get("status"))
    status = _SPELLINGS.get(status, status)
    total, ran = _counts(batch, status)
    names = (text_or_none(batch.get(name)) for name in ("output_file_id", "error_file_id"))
    files = tuple(name for name in names if name is not None)
    known = status in _ENDED or status in _RUNNING
    errors = errors_of(batch.get("errors"))
    failed = status == "failed"
    bad_lines = {
        line: reason_of(error) for error in errors if (line := count_or_none(error.get("line")))
    }
    full = [error for error in errors if text_or_none(error.get("code")) == _NO_ROOM]
    no_room = bool(full)
    reasons = "; ".join(map(reason_of, errors[:3])) or None
    # a failure without a reason proves nothing: one of several servers may be behind the others
    began = seconds_or_none(batch.get("in_progress_at")) is not None
    refused = failed and bool(errors) and not files and not ran
    refused &= no_room or (not began and (ran == 0 or bool(bad_lines)))
    ended_at = next(filter(None, map(seconds_or_none, map(batch.get, _ENDS))), None)
    return BatchLook(
        batch_id=batch_id or checked_id(batch),
        status=status,
        # a word that is new to us must not keep results from landing that are there
        ended=status in _ENDED or (not known and (bool(files) or ended_at is not None)),
        known=known,
        created_at=seconds_or_none(batch.get("created_at")),
        expires_at=seconds_or_none(batch.get("expires_at")),
        # 0 while the batch is being validated
        requests=total or None,
        done=ran,
        token=text_or_none(as_dict(batch.get("metadata")).get(TOKEN)),
        input_file_id=text_or_none(batch.get("input_file_id")),
        answers=text_or_none(batch.get("output_file_id")) if len(files) > 1 else None,
        files=files,
        error=reasons if failed or (status not in _RUNNING and not files) else None,
        refused=refused,
        # what ran of it all the same lands, as of any other batch
        no_room=refused and no_room,
        queue_limit=next(filter(None, map(_queue_limit, full)), None),
        model=text_or_none(batch.get("model")),
        stopped=_STOPPED.get(status),
        bad_lines=bad_lines,
    )


def _queue_limit(error: Mapping[str, Any]) -> int | None:
    """Return how many tokens a full queue holds, as its refusal says in words.

    None if it says nothing, or what is no limit: 0, or more than any queue holds.
    """
    told = _HOLDS.search(text_or_none(error.get("message")) or "")
    holds = 0 if told is None else int(told[1].replace(",", ""))
    return holds if 0 < holds < _MOST_HELD else None


def _counts(batch: Mapping[str, Any], status: str) -> tuple[int | None, int | None]:
    """Return how many requests a batch holds, and how many of them ran, as far as it tells.

    Counts that are all 0 tell something only of a batch that ended before it was in progress.
    """
    counts = as_dict(batch.get("request_counts"))
    total = count_or_none(counts.get("total"))
    done = [count_or_none(counts.get(name)) for name in ("completed", "failed")]
    ran = None if done == [None, None] else sum(number or 0 for number in done)
    never_began = "in_progress_at" in batch and batch["in_progress_at"] is None
    is_told = total or ran or status == "failed" or (status in _STOPPED and never_began)
    return total, ran if is_told else None
