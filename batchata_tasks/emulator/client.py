"""The control client: what a test or a rehearsal turns, over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

if TYPE_CHECKING:
    from batchata_tasks.emulator.clock import Mode

_TIMEOUT = 60.0


class ControlError(RuntimeError):
    """The emulator refused a control call; the message is its reason."""


class ControlClient:
    """Drives one emulator; a control call is never met by a fault."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc

    def reset(self) -> None:
        """Forget all batches, files, faults and books; the clock runs in real time again."""
        self._call("POST", "reset")

    def faults(self, **knobs: Any) -> None:
        """Put one fault rule in force, for example `faults(kind="drop_after", nth=1)`."""
        self._call("POST", "faults", knobs)

    def clear_faults(self) -> None:
        """Drop all fault rules."""
        self._call("DELETE", "faults")

    def list_faults(self) -> list[dict[str, Any]]:
        """Return the rules in force, each with how often it struck."""
        return self._call("GET", "faults")["faults"]

    def progress(self, mode: Mode, n: float = 0) -> None:
        """Set the pace: `immediate`, after n `reads` of a batch, or n `seconds` after its start."""
        self._call("POST", "progress", {"mode": mode, "n": n})

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock forward."""
        self._call("POST", "clock", {"advance": seconds})

    def freeze(self, *, frozen: bool = True) -> None:
        """Stop the emulator's clock, or let it run on."""
        self._call("POST", "clock", {"frozen": frozen})

    def now(self) -> float:
        """Return the emulator's time in seconds since the epoch."""
        return self._call("GET", "health")["now"]

    def limits(self, **changed: int) -> None:
        """Lower what a provider takes in one call, for example `limits(anthropic_requests=10)`."""
        self._call("POST", "limits", changed)

    def ledger(self, *, detail: bool = False) -> dict[str, Any]:
        """Return what was accepted and billed; `detail` adds every request content."""
        return self._call("GET", "ledger?detail=1" if detail else "ledger")

    def _call(self, method: str, path: str, content: Any = None) -> Any:
        connection = HTTPConnection(self._netloc, timeout=_TIMEOUT)
        try:
            body = None if content is None else orjson.dumps(content)
            connection.request(method, f"/_emulator/{path}", body)
            response = connection.getresponse()
            answer = orjson.loads(response.read())
            refused = response.status != HTTPStatus.OK
        finally:
            connection.close()
        if refused:
            raise ControlError(answer["error"])
        return answer
