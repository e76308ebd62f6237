"""Anthropic's batch objects, read from what official and other servers answer.

States: https://platform.claude.com/docs/en/api/retrieving-message-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.base import BatchLook
from batchata_tasks.providers.wire import (
    checked_id,
    count_or_none,
    seconds_or_none,
    status_of,
    text_or_none,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = frozenset({"in_progress", "canceling", "ended"})
_SPELLINGS = {"cancelling": "canceling", "progress": "in_progress"}
_DONE = ("succeeded", "errored", "canceled", "expired")


def look_of(batch: Mapping[str, Any], batch_id: str | None = None) -> BatchLook:
    """Read a batch object; `batch_id` is the one that was asked for.

    Raises:
        ValueError: it has no id, and none was asked for.
    """
    status = status_of(batch.get("processing_status") or batch.get("status"))
    status = _SPELLINGS.get(status, status)
    results_url = text_or_none(batch.get("results_url"))
    # a word that is new to us must not keep results from landing that are there
    ended_at = seconds_or_none(batch.get("ended_at"))
    ended = status == "ended" or (status not in _KNOWN and (results_url or ended_at) is not None)
    counts = as_dict(batch.get("request_counts"))
    done = [count_or_none(counts.get(name)) for name in _DONE]
    processing = count_or_none(counts.get("processing"))
    total = sum(number or 0 for number in (*done, processing))
    return BatchLook(
        batch_id=batch_id or checked_id(batch),
        status=status,
        ended=ended,
        known=status in _KNOWN,
        created_at=seconds_or_none(batch.get("created_at")),
        expires_at=seconds_or_none(batch.get("expires_at")),
        requests=total or None,
        # counts stand still until the end
        done=sum(number or 0 for number in done) if ended and done != [None] * 4 else None,
        files=() if results_url is None else (results_url,),
        gone=text_or_none(batch.get("archived_at")) is not None,
    )
