"""The output and the error file of an OpenAI batch while they are written, and their counts."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator.core.spool import Spool
from batchata_tasks.emulator.openai.bodies import error_body
from batchata_tasks.emulator.openai.odd import odd_error
from batchata_tasks.emulator.openai.rules import BodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.batches import Batch
    from batchata_tasks.emulator.core.faults import Rule
    from batchata_tasks.emulator.core.spool import Sealed

STRUCK = frozenset(
    {
        *("request_error", "request_invalid", "request_lost", "request_plain_error"),
        *("request_error_beside", "request_error_in_body"),
        *("request_no_credit", "request_no_permission"),
    }
)
"""The faults that leave a request without an answer."""
_SERVER_ERROR = "The server had an error."
_NEVER_RAN = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
}


class Lines:
    """Writes the lines of a batch: answers to the output file, others to the error file."""

    def __init__(self, batch: Batch) -> None:
        self.counts = {"completed": 0, "failed": 0}
        self._batch = batch
        self._spools = {"output": Spool(), "error": Spool()}

    def answered(self, index: int, content: Any, kind: str | None) -> None:
        """Write an answer, and the second line that some faults add.

        The second line goes to the same file, so that the order of the two shows; it is not
        counted.
        """
        response = self._response(index, 200, content)
        if kind == "request_error_first":
            self._failed_beside(index)
        self._counted("output", index, response, kind=kind)
        if kind == "request_error_last":
            self._failed_beside(index)
        if kind == "request_unknown_id":
            self._line("output", index, self._batch.unknown_id(index), response)

    def refused(self, index: int, problem: BodyError) -> None:
        """Write that the request's body is invalid."""
        self._counted("error", index, self._response(index, 400, error_body(problem)))

    def struck(self, index: int, rule: Rule) -> None:
        """Write the error of a fault: of the request, of the provider, or of the account."""
        odd = odd_error(rule, lambda status, body: self._response(index, status, body))
        if odd is not None:
            response, error = odd
            self._counted("error", index, response, error)
            return
        if rule.kind == "request_invalid":
            message = rule.message or "The request is not acceptable."
            self.refused(index, BodyError(message, None, rule.error_code))
            return
        problem = BodyError(rule.message or _SERVER_ERROR, None, rule.error_code)
        self._counted("error", index, self._server_error(index, problem))

    def never_ran(self, index: int, ending: str) -> None:
        """Write why a request never ran."""
        code, message = _NEVER_RAN[ending]
        self._counted("error", index, None, {"code": code, "message": message})

    def unclear(self, index: int) -> None:
        """Write a line that has neither a response nor an error."""
        self._counted("error", index, None)

    def missing(self) -> None:
        """Count a request as completed, and write no line."""
        self.counts["completed"] += 1

    def seal(self) -> Iterator[tuple[str, Sealed]]:
        """Close both files and yield the content of those that have any."""
        for name, spool in self._spools.items():
            content = spool.seal()
            if len(content):
                yield name, content

    def unique(self, index: int) -> str:
        """Return the text from which the ids of a request's answer are made."""
        return blake2b(f"{self._batch.id}:{index}".encode(), digest_size=16).hexdigest()

    def _server_error(self, index: int, problem: BodyError) -> JSON:
        return self._response(index, 500, error_body(problem, "server_error"))

    def _failed_beside(self, index: int) -> None:
        failed = self._server_error(index, BodyError(_SERVER_ERROR, None, None))
        self._line("output", index, self._batch.requests.custom_ids[index], failed)

    def _response(self, index: int, status: int, body: Any) -> JSON:
        return {"status_code": status, "request_id": self.unique(index), "body": body}

    def _counted(
        self, name: str, index: int, response: Any, error: Any = None, kind: str | None = None
    ) -> None:
        self.counts["completed" if name == "output" else "failed"] += 1
        custom_id = self._batch.requests.custom_ids[index]
        self._line(name, index, custom_id, response, error, kind)

    def _line(
        self,
        name: str,
        index: int,
        custom_id: str,
        response: Any,
        error: Any = None,
        kind: str | None = None,
    ) -> None:
        line = {
            "id": f"batch_req_{self.unique(index)}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
        self._batch.emit(self._spools[name], line, kind)
