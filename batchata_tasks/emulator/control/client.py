"""The control client: sets an emulator up for a test or a rehearsal, over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.lengths import Distribution
    from batchata_tasks.emulator.answers.text import Provider
    from batchata_tasks.emulator.core.clock import Mode

_TIMEOUT = 60.0


class ControlError(RuntimeError):
    """The emulator refused a control call; the message is its reason."""


class ControlClient:
    """Controls one emulator; faults do not strike control calls."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc

    def reset(self) -> None:
        """Forget all batches, files, faults and bills; the clock runs in real time again."""
        self._call("POST", "reset")

    def faults(self, **knobs: Any) -> None:
        """Add one fault rule, for example `faults(kind="drop_after", nth=1)`.

        `fault_kinds.py` lists the kinds, and `faults.Rule` the settings.
        """
        self._call("POST", "faults", knobs)

    def clear_faults(self) -> None:
        """Drop all fault rules."""
        self._call("DELETE", "faults")

    def list_faults(self) -> list[dict[str, Any]]:
        """Return the rules, each with how often it struck."""
        return self._call("GET", "faults")["faults"]

    def progress(self, mode: Mode, n: float = 0) -> None:
        """Set the pace: `immediate`, after n `reads` of a batch, or n `seconds` after its start."""
        self._call("POST", "progress", {"mode": mode, "n": n})

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock forward or, by negative seconds, back."""
        self._call("POST", "clock", {"advance": seconds})

    def freeze(self, *, frozen: bool = True) -> None:
        """Stop the emulator's clock, or let it run on."""
        self._call("POST", "clock", {"frozen": frozen})

    def now(self) -> float:
        """Return the emulator's time in seconds since the epoch."""
        return self._call("GET", "health")["now"]

    def limits(self, **changed: int) -> None:
        """Change what a provider accepts, for example `limits(anthropic_requests=10)`.

        `anthropic_queued_requests` and `openai_enqueued_tokens` limit what an account may have in
        batches that have not ended; 0 means no limit.
        """
        self._call("POST", "limits", changed)

    def answers(self, lengths: Distribution = "default", **settings: float | str) -> None:
        """Draw the lengths of answers, for example `answers("lognormal", mean=150, sigma=1.2)`.

        The settings are those of `lengths.Lengths`: `mean` in tokens, `sigma` of a `lognormal` and
        `alpha` of a `pareto` distribution, `seed`, and `language`, which decides the bytes per
        token. The cap of a request still cuts its answer. Batches keep the settings of their
        creation; `answer_text(provider, body, Lengths(...))` recomputes an answer.
        """
        self._call("POST", "answers", {"lengths": lengths, **settings})

    def cache(self, hit_share: float) -> None:
        """Set the share of requests that find a prefix which is in Anthropic's cache by then."""
        self._call("POST", "cache", {"hit_share": hit_share})

    def cancel(self, batch_id: str, *, share: float | None = None) -> None:
        """Cancel a batch as another person would; with `share`, after that share of it has run."""
        self._act(batch_id, "cancel", {"share": share})

    def finish(self, batch_id: str) -> None:
        """End a batch at once, also one that is stuck, with all results.

        A batch that was cancelled ends as cancelled, with the results that it has.
        """
        self._act(batch_id, "finish")

    def forget(self, provider: Provider | None = None) -> None:
        """Lose all batches and files, as a server that restarts without storage does.

        The ledger still has them. Both providers' servers forget if none is named.
        """
        self._call("POST", "forget", {"provider": provider})

    def vanish(self, batch_id: str) -> None:
        """Remove a batch from get and list, whatever its state, as if somebody had deleted it."""
        self._act(batch_id, "vanish")

    def archive(self, batch_id: str) -> None:
        """Archive an Anthropic batch that has ended: `archived_at` is set, its results are gone."""
        self._act(batch_id, "archive")

    def delete_outputs(self, batch_id: str) -> None:
        """Delete the files of an OpenAI batch that has ended; the batch still names them."""
        self._act(batch_id, "delete_outputs")

    def revoke(self, account: str = "default", provider: Provider | None = None) -> None:
        """Answer 401 to all calls of an account from now on, of both providers if none is named."""
        self._call("POST", "keys", {"account": account, "provider": provider, "revoked": True})

    def restore(self, account: str = "default", provider: Provider | None = None) -> None:
        """Accept an account's calls again, after `revoke`."""
        self._call("POST", "keys", {"account": account, "provider": provider, "revoked": False})

    def foreign(
        self,
        provider: Provider,
        *,
        batches: int = 1,
        requests: int = 1,
        ends: Literal["pace", "never", "at_once"] = "pace",
        offset: float = 0.0,
        every: float = 0.0,
        account: str = "default",
    ) -> list[str]:
        """Create batches of another program in an account; return their ids, oldest first.

        Each has `requests` requests, custom_ids of its own (`job-0` and so on) and no metadata.
        They are created `offset` seconds from now (negative for the past) and `every` seconds
        apart. They end at the emulator's pace, `never`, or `at_once` with all results. Faults,
        quotas and limits do not apply to their creation, and `ledger` lists them apart, under
        `foreign`.
        """
        wanted = {
            "provider": provider,
            "batches": batches,
            "requests": requests,
            "ends": ends,
            "offset": offset,
            "every": every,
            "account": account,
        }
        return self._call("POST", "foreign", wanted)["ids"]

    def ledger(self, *, detail: bool = False) -> dict[str, Any]:
        """Return what was accepted and billed; `detail` adds every request content.

        A content's `usage` has (input, output) tokens for each of its `custom_ids`, in order.
        `accepted_twice` and `billed_twice` count contents, so that rows with equal prompts count as
        well as a request that was sent twice; `openai.files` lists what is stored, and `foreign`
        holds the batches of other programs, which nothing else here counts.
        """
        return self._call("GET", "ledger?detail=1" if detail else "ledger")

    def _act(self, batch_id: str, act: str, content: Any = None) -> None:
        self._call("POST", f"batches/{batch_id}/{act}", content)

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
