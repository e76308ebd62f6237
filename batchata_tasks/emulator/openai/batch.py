"""An OpenAI batch: how its requests run and how it looks on the wire."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.answers.broken import answer_to
from batchata_tasks.emulator.answers.tokens import input_tokens
from batchata_tasks.emulator.core.batches import Batch, Requests
from batchata_tasks.emulator.core.misreports import misreported
from batchata_tasks.emulator.core.state import new_id
from batchata_tasks.emulator.openai.bodies import answer_body, heard
from batchata_tasks.emulator.openai.lines import STRUCK, Lines
from batchata_tasks.emulator.openai.odd import odd_body
from batchata_tasks.emulator.openai.response import failed_body
from batchata_tasks.emulator.openai.rules import RESPONSES, check_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.batches import Requests
    from batchata_tasks.emulator.core.clock import Pace
    from batchata_tasks.emulator.core.fate import Ending
    from batchata_tasks.emulator.core.faults import Faults
    from batchata_tasks.emulator.core.spool import Sealed
    from batchata_tasks.emulator.openai.rules import LineError

VALIDATED = 0.1
FINALIZING = 0.75
"""The shares of a batch's life at which it is validated, and at which its requests have run."""


class OpenAIBatch(Batch):
    """A batch over an input file, whose results become an output and an error file."""

    provider = "openai"

    def __init__(
        self,
        account: str,
        created_at: float,
        requests: Requests,
        *,
        given: JSON,
        model: str | None,
        errors: list[tuple[LineError, int | None]],
        faults: Faults,
        store: Callable[[OpenAIBatch, str, Sealed], str],
        quota: Callable[[OpenAIBatch, float], LineError | None],
    ) -> None:
        super().__init__(new_id("batch_", 32), account, created_at, requests)
        self.output_expires_after: float | None = None
        self.model = model
        self.validated = False
        self._given = given
        self._errors = errors
        self._faults = faults
        self._store = store
        self._quota = quota
        self._lines = Lines(self)
        self.files: dict[str, str] = {}
        self._share = 0.0
        self._reasoned = 0

    @property
    def accepted(self) -> bool:
        """Whether the input file passed validation."""
        return not self._errors

    @property
    def status(self) -> str:
        """The batch's state in OpenAI's words."""
        if self.ended_at is not None:
            if self._errors and self.ending == "finished":
                return "failed"
            return {"finished": "completed"}.get(str(self.ending), str(self.ending))
        if self.cancel_at is not None:
            return "cancelling"
        if self._share < VALIDATED:
            return "validating"
        return "finalizing" if self._share >= FINALIZING else "in_progress"

    def work(self, share: float) -> float:
        """Return the share of requests that have run: none before validation, all by the end."""
        self._share = share
        return 0.0 if share < VALIDATED else min(1.0, share / FINALIZING)

    def doomed(self, share: float, pace: Pace, now: float) -> bool:
        """Whether the batch fails its validation by now."""
        if share >= VALIDATED and not self.validated:
            self.validated = True
            moment = pace.moment(VALIDATED, self.created_at, now)
            problem = None if self._errors else self._quota(self, moment)
            if problem is not None:
                self._errors.append((problem, None))
        return self.validated and bool(self._errors)

    @cached_property
    def prompt_tokens(self) -> int:
        """The tokens that the batch takes up in the queue."""
        return prompt_tokens(self.requests)

    @property
    def _untouched(self) -> bool:
        """Whether the batch was stopped before it was validated; then it gets no files."""
        return self.cancel_at is not None and self._share < VALIDATED

    def run(self, index: int) -> None:
        """Run one request and write its line to one of the two files."""
        body: JSON = heard(orjson.loads(self.requests.raw(index))["body"], self._faults)
        rule = self._faults.for_request("openai", body)
        kind = None if rule is None else rule.kind
        if kind == "request_missing":
            self._lines.missing()
        elif kind == "request_expired":
            self._lines.never_ran(index, "expired")
        elif kind == "request_unknown_type":
            self._lines.unclear(index)
        elif rule is not None and kind in STRUCK:
            self._lines.struck(index, rule)
        else:
            self._answer(index, body, kind)

    def _answer(self, index: int, body: JSON, kind: str | None) -> None:
        endpoint: str = self._given["endpoint"]
        problem = check_body(body, endpoint)
        if problem is not None:
            self._lines.refused(index, problem)
            return
        given = answer_to("openai", body, kind, self.lengths)
        unique, created = self._lines.unique(index)[:29], int(self.created_at) + 1
        if kind == "request_failed" and endpoint == RESPONSES:
            self._lines.answered(index, failed_body(unique, created, body), kind)
            return
        self.bill(index, given)
        self._reasoned += given.reasoned
        content = odd_body(answer_body(endpoint, unique, created, body, given, kind), body, kind)
        self._lines.answered(index, content, kind)

    def abandon(self, index: int, ending: Ending) -> None:
        """Write the line of a request that never ran."""
        if not self._errors and not self._untouched:
            self._share = max(self._share, VALIDATED)
            self._lines.never_ran(index, "expired" if ending == "expired" else "cancelled")

    def close(self) -> None:
        """Store the two files; a file without lines does not exist."""
        for name, content in self._lines.seal():
            self.files[name] = self._store(self, name, content)

    def named(self, now: float) -> dict[str, str]:
        """Return the ids of the files that the batch names by now.

        A fault may delay them, or one of them, beyond the batch's end, by seconds or by reads; the
        read that finds the batch ended does not count.
        """
        ended, fate = self.ended_at, self.fate
        if ended is None:
            return {}
        if now >= ended + fate.late_seconds and self.reads_since_end >= fate.late_reads:
            return self.files
        return {
            name: file for name, file in self.files.items() if fate.late_file not in (None, name)
        }

    def wire(self, now: float) -> JSON:
        """Return the Batch object, all keys present."""
        status, files = self.status, self.named(now)
        started = self._share >= VALIDATED and self.accepted
        ended = None if self.ended_at is None else int(self.ended_at)
        created = int(self.created_at)
        soon = created + 1 if ended is None else min(created + 1, ended)
        cancelling = None if self.cancel_at is None else int(self.cancel_at)
        finalizing = ended if status == "completed" else None
        told = {
            "id": self.id_on_wire,
            "object": "batch",
            "endpoint": self._given["endpoint"],
            "model": self.model if started else None,
            "errors": self._failure() if status == "failed" else None,
            "input_file_id": self._given["input_file_id"],
            "completion_window": self._given["completion_window"],
            "status": status,
            "output_file_id": files.get("output"),
            "error_file_id": files.get("error"),
            "created_at": created,
            "in_progress_at": soon if started else None,
            "expires_at": int(self.expires_at),
            "finalizing_at": soon if status == "finalizing" else finalizing,
            "completed_at": ended if status == "completed" else None,
            "failed_at": ended if status == "failed" else None,
            "expired_at": ended if status == "expired" else None,
            "cancelling_at": cancelling,
            "cancelled_at": ended if status == "cancelled" else None,
            "request_counts": {"total": self.size if started else 0, **self._lines.counts},
            "usage": self._usage() if status in ("completed", "expired", "cancelled") else None,
            "metadata": self._given.get("metadata"),
        }
        return misreported(self, told)

    def _failure(self) -> JSON:
        data = [
            {"code": item.code, "line": line, "message": item.message, "param": item.param}
            for item, line in self._errors
        ]
        return {"object": "list", "data": data}

    def _usage(self) -> JSON:
        sent, received = sum(self.billed_input), sum(self.billed_output)
        return {
            "input_tokens": sent,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": received,
            "output_tokens_details": {"reasoning_tokens": self._reasoned},
            "total_tokens": sent + received,
        }


def prompt_tokens(requests: Requests) -> int:
    """Count the prompt tokens of all requests of a batch."""
    bodies = (orjson.loads(requests.raw(i))["body"] for i in range(len(requests.custom_ids)))
    return sum(input_tokens(body) for body in bodies)
