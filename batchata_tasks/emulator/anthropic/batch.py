"""An Anthropic message batch: how its requests run and how it looks on the wire."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.answers.broken import answer_to
from batchata_tasks.emulator.answers.text import Answer, answer
from batchata_tasks.emulator.anthropic.citations import content_blocks
from batchata_tasks.emulator.anthropic.odd import billed, odd_error, odd_message
from batchata_tasks.emulator.anthropic.rules import check_params
from batchata_tasks.emulator.core.batches import Batch
from batchata_tasks.emulator.core.clock import DAY, rfc3339
from batchata_tasks.emulator.core.misreports import misreported
from batchata_tasks.emulator.core.spool import Sealed, Spool

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.lengths import Lengths
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.batches import Requests
    from batchata_tasks.emulator.core.fate import Ending
    from batchata_tasks.emulator.core.faults import Faults, Rule
    from batchata_tasks.emulator.core.prompt_cache import PromptCache

ARCHIVED_AFTER = 29 * DAY
_SERVER_ERROR = "Internal server error"


class AnthropicBatch(Batch):
    """A message batch. Like a real one, it reports its counts only once it has ended."""

    provider = "anthropic"

    def __init__(
        self,
        batch_id: str,
        account: str,
        created_at: float,
        requests: Requests,
        *,
        version: str,
        faults: Faults,
        cache: PromptCache,
    ) -> None:
        super().__init__(batch_id, account, created_at, requests)
        self.results: Sealed = b""
        self.archived_at: float | None = None
        self._version = version
        self._faults = faults
        self._cache = cache
        self._spool = Spool()
        self._counts = {"succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}

    @property
    def status(self) -> str:
        """The batch's state in Anthropic's words."""
        if self.ended_at is not None:
            return "ended"
        return "in_progress" if self.cancel_at is None else "canceling"

    def archived(self, now: float) -> float | None:
        """Return when the results were archived; None while they are available."""
        archiving = self.created_at + ARCHIVED_AFTER
        if self.archived_at is not None or self.ended_at is None or now < archiving:
            return self.archived_at
        return archiving

    def run(self, index: int) -> None:
        """Run one request and write its result line."""
        params: JSON = orjson.loads(self.requests.raw(index))["params"]
        rule = self._faults.for_request("anthropic", params)
        kind = None if rule is None else rule.kind
        if kind == "request_missing":
            # Counted as succeeded, but without a result line.
            self._counts["succeeded"] += 1
        elif kind == "request_expired":
            self._write(index, {"type": "expired"})
        elif kind == "request_unknown_type":
            self._counts["errored"] += 1
            self._write(index, {"type": "weird"})
        elif rule is not None and kind in ("request_error", "request_invalid"):
            self._write(index, _refusal(rule))
        elif rule is not None and (result := odd_error(rule)) is not None:
            self._write(index, result)
        else:
            self._answer(index, params, kind)

    def _answer(self, index: int, params: JSON, kind: str | None) -> None:
        problem = check_params(params, self._version)
        if problem is not None:
            self._write(index, errored(problem.kind, problem.message))
            return
        cached = self._cache.use(self.account, params, self.requests.hashes[index])
        given = answer_to("anthropic", params, kind, self.lengths)._replace(cached=cached)
        self.bill(index, billed(given, kind))
        message = message_object(
            self._message_id(index), params, given, refused=kind == "request_refusal"
        )
        result: JSON = {"type": "succeeded", "message": odd_message(message, params, kind)}
        custom_id = self.requests.custom_ids[index]
        # Lines beside the one that counts are written without being counted.
        if kind == "request_error_first":
            self._line(custom_id, errored("api_error", _SERVER_ERROR))
        self._write(index, result, kind)
        if kind == "request_error_last":
            self._line(custom_id, errored("api_error", _SERVER_ERROR))
        if kind == "request_unknown_id":
            self._line(self.unknown_id(index), result)

    def abandon(self, index: int, ending: Ending) -> None:
        """Write the line of a request that never ran."""
        self._write(index, {"type": "expired" if ending == "expired" else "canceled"})

    def close(self) -> None:
        """Make the results available."""
        self.results = self._spool.seal()

    def wire(self, origin: str, now: float) -> JSON:
        """Return the MessageBatch object."""
        ended = self.ended_at is not None
        waiting = 0 if ended else self.size
        counts = self._counts if ended else dict.fromkeys(self._counts, 0)
        archived = self.archived(now)
        told = {
            "id": self.id_on_wire,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {"processing": waiting, **counts},
            "ended_at": None if self.ended_at is None else rfc3339(self.ended_at),
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.expires_at),
            "archived_at": None if archived is None else rfc3339(archived),
            "cancel_initiated_at": None if self.cancel_at is None else rfc3339(self.cancel_at),
            "results_url": (
                f"{origin}/anthropic/v1/messages/batches/{self.id}/results" if ended else None
            ),
        }
        return misreported(self, told)

    def _message_id(self, index: int) -> str:
        digest = blake2b(f"{self.id}:{index}".encode(), digest_size=11)
        return f"msg_01{digest.hexdigest()}"

    def _write(self, index: int, result: JSON, kind: str | None = None) -> None:
        if result["type"] in self._counts:
            self._counts[result["type"]] += 1
        self._line(self.requests.custom_ids[index], result, kind)

    def _line(self, custom_id: str, result: JSON, kind: str | None = None) -> None:
        self.emit(self._spool, {"custom_id": custom_id, "result": result}, kind)


def _refusal(rule: Rule) -> JSON:
    if rule.kind == "request_error":
        return errored("api_error", rule.message or _SERVER_ERROR)
    message = rule.message or "messages: the request is not acceptable"
    return errored("invalid_request_error", message)


def errored(kind: str, message: str) -> JSON:
    """Return the result of a request that failed; its error is nested twice."""
    details = {"type": kind, "message": message}
    return {
        "type": "errored",
        "error": {"type": "error", "error": details, "request_id": None},
    }


def message_object(
    message_id: str, params: JSON, given: Answer, *, refused: bool = False, tier: str = "batch"
) -> JSON:
    """Return a Message."""
    stop_reason = "max_tokens" if given.truncated else "end_turn"
    if refused:
        stop_reason = "refusal"
    cached = given.cached
    explanation = "This request was refused by the emulator."
    return {
        "model": params["model"],
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": content_blocks(params, given.text),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": (
            {"type": "refusal", "category": None, "explanation": explanation} if refused else None
        ),
        "usage": {
            "input_tokens": given.input_tokens - sum(cached),
            "cache_creation_input_tokens": cached.written_5m + cached.written_1h,
            "cache_read_input_tokens": cached.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": cached.written_5m,
                "ephemeral_1h_input_tokens": cached.written_1h,
            },
            "output_tokens": given.output_tokens,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": tier,
            "inference_geo": "not_available",
        },
    }


def whole_message(message_id: str, params: JSON, lengths: Lengths) -> tuple[JSON, Answer]:
    """Answer a single, direct request."""
    given = answer("anthropic", params, lengths=lengths)
    return message_object(message_id, params, given, tier="standard"), given
