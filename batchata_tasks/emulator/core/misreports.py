"""Batches that are told otherwise than they are: by servers that lag, or that err."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.faults import Rule

_LONG = 750  # bytes, of two digits each
_ENDS = ("completed_at", "finalizing_at", "ended_at")
_FILES = ("output_file_id", "error_file_id", "results_url")


def odd_id(rules: Iterable[Rule]) -> str | int | None:
    """Return the id of a new batch, if one of the rules that struck it gives it one."""
    for rule in rules:
        if rule.kind == "odd_id":
            texts = {"same": "batch_1", "long": f"batch_{secrets.token_hex(_LONG)}"}
            return texts.get(str(rule.style), rule.strikes)
    return None


def misreported(batch: Batch, told: JSON) -> JSON:
    """Return what the server tells of a batch instead of the truth, if a fault struck it."""
    fate = batch.fate
    if 0 < batch.reads + batch.reads_since_end <= fate.false_reads:
        return _failed(told, fate.reason, _no_counts(told))
    if 0 < batch.reads_since_end <= fate.taken_back:
        return _running(told)
    if fate.fails and batch.ended_at is not None:
        return _failed(told, fate.reason, told["request_counts"])
    return told


def _failed(told: JSON, reason: str | None, counts: JSON) -> JSON:
    ended = {**_without(told, _FILES), "request_counts": counts}
    if "processing_status" in told:  # Anthropic's batches do not fail
        return {**ended, "processing_status": "ended"}
    problem = {"code": "server_error", "line": None, "message": reason, "param": None}
    errors = None if reason is None else {"object": "list", "data": [problem]}
    return {**_without(ended, _ENDS), "status": "failed", "errors": errors}


def _running(told: JSON) -> JSON:
    running = {**_without(told, (*_FILES, *_ENDS)), "request_counts": _no_counts(told)}
    name = "processing_status" if "processing_status" in told else "status"
    return {**running, name: "in_progress"}


def _without(told: JSON, names: Iterable[str]) -> JSON:
    return {**told, **{name: None for name in names if name in told}}


def _no_counts(told: JSON) -> JSON:
    """Return the counts of a batch of which no request has run."""
    counts = cast("dict[str, int]", told["request_counts"])
    size = sum(counts.values()) if "processing" in counts else counts["total"]
    whole = "processing" if "processing" in counts else "total"
    return {**dict.fromkeys(counts, 0), whole: size}
