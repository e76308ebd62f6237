"""The seam to a provider: what one adapter must do, and the values that cross it."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from batchata_tasks.providers.checks import Checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from batchata_tasks.providers import Framing
    from batchata_tasks.types.answer import Answer
    from batchata_tasks.types.outcome import Outcome
    from batchata_tasks.types.request import Request

# batches end within 24 hours; with room for clocks that differ
_LONGEST_LIFE = 26 * 3600.0


@dataclass(frozen=True, slots=True)
class Framing:
    """How requests stand in a request file: head, lines with joints between them, tail."""

    before_id: bytes
    before_body: bytes
    after_body: bytes
    head: bytes = b""
    joint: bytes = b""
    tail: bytes = b""

    def line(self, custom_id: str, body: bytes) -> bytes:
        """Return one request; `body` is its JSON."""
        return b"".join(
            (self.before_id, custom_id.encode(), self.before_body, body, self.after_body)
        )

    def size(self, id_chars: int, body: bytes) -> int:
        """Return how many bytes one request takes in the file."""
        fixed = len(self.before_id) + len(self.before_body) + len(self.after_body) + len(self.joint)
        return fixed + id_chars + len(body)


@dataclass(frozen=True, slots=True)
class BatchLook:
    """What one look at a batch found.

    `status` is as the provider spells it. `requests` is None where the provider does not say (yet).
    `bad_lines` names, by the number of the line from 1, requests that a failed validation refused;
    `error` is why a batch as a whole was refused. `no_room` means that it was, since the account's
    queue was full: nothing ran, and the same requests may be sent again later. `gone` means that
    its results are so old that the provider need not keep them any more;
    `stopped` how requests ended that a batch had not run when it was stopped.
    """

    batch_id: str
    status: str
    ended: bool
    created_at: float
    requests: int | None = None
    done: int | None = None
    token: str | None = None
    files: tuple[str, ...] = ()
    error: str | None = None
    bad_lines: Mapping[int, str] = field(default_factory=dict[int, str])
    no_room: bool = False
    gone: bool = False
    model: str | None = None
    stopped: Outcome | None = None


class Adapter(Checks, ABC):
    """One provider's batch API, call by call: what an adapter has to supply.

    It takes nothing to make one: the key is in the environment. Reads are retried; creates go out once.
    Every error of the wire becomes one of TransientError, TerminalError, UnclearError (creates alone) or
    CredentialsError.
    """

    key_variables: ClassVar[
        tuple[str, ...]
    ]  # hold the API key, the first that is set: it is masked in every text
    limits: ClassVar[Limits]
    framing: ClassVar[Framing]
    poll_seconds: ClassVar[tuple[float, float]]  # first wait between looks, longest wait
    cap_param: ClassVar[str]  # how bodies call the cap on an answer's tokens
    mixes_models: ClassVar[bool] = False  # whether requests of several models may share a batch
    turns_param: ClassVar[str] = "messages"  # how bodies call the list of turns
    caches_unasked: ClassVar[
        bool
    ]  # whether input may be billed as written to a cache where no request asks for it

    @property
    def secret(self) -> str:
        """The API key in use; only for deriving `account`."""
        return next(filter(None, map(os.environ.get, self.key_variables)), "")

    @property
    @abstractmethod
    def base_url(self) -> str:
        """Where requests go."""

    @abstractmethod
    def body(self, request: Request) -> dict[str, Any]:
        """Return the body of a request, built anew each time."""

    @abstractmethod
    def upload(self, path: Path) -> str | None:
        """Send the request file ahead, where the provider wants one; its id. Costs nothing."""

    @abstractmethod
    def create(
        self, path: Path, file_id: str | None, token: str, may_send: Callable[[], None]
    ) -> BatchLook:
        """Create one batch: one POST, never repeated.

        `may_send` is asked at the last moment before bytes go out, and raises to stop them.

        Raises:
            TransientError, TerminalError: it is certain that nothing was accepted.
            UnclearError: nobody knows.
        """

    @abstractmethod
    def look(self, batch_id: str) -> BatchLook:
        """Return the batch's present state."""

    @abstractmethod
    def recent(self, since: float) -> Iterator[BatchLook]:
        """Yield the account's batches created at or after `since` (seconds), newest first."""

    def newest(self) -> float | None:
        """Return when the newest batch that is listed was created, by the provider's clock; None where there is none."""
        return next((look.created_at for look in self.recent(0.0)), None)

    def open_batches(self, model: str | None = None) -> set[str]:
        """Return the ids of the account's batches that have not ended, whoever sent them.

        With a model, those that are known to be of another one are left out.
        """
        recent = self.recent(time.time() - _LONGEST_LIFE)
        return {
            look.batch_id
            for look in recent
            if not look.ended and (model is None or look.model in (None, model))
        }

    @abstractmethod
    def owns(self, look: BatchLook, token: str) -> bool | None:
        """Whether a batch carries the token; None while that cannot be known."""

    def ours(self, look: BatchLook) -> bool | None:
        """Whether this program sent a batch, under whatever ledger; None while that cannot be known."""
        return look.token is not None

    @abstractmethod
    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        """Stream the results of an ended batch into files of `folder`; none where there are none."""

    @abstractmethod
    def answers(self, path: Path) -> Iterator[Answer]:
        """Yield every line of a results file, classified, in the file's order."""

    @abstractmethod
    def cancel(self, batch_id: str) -> None:
        """Ask the provider to cancel a batch; what ran by then is kept and billed.

        Raises:
            TerminalError: it has ended already.
        """

    @abstractmethod
    def uploads(self, since: float) -> Iterator[tuple[str, str]]:
        """Yield (file id, file name) of the request files uploaded at or after `since` that are still kept."""

    @abstractmethod
    def discard_upload(self, file_id: str) -> None:
        """Delete an uploaded request file; one that is gone already is no error."""

    @abstractmethod
    def discard_results(self, look: BatchLook) -> None:
        """Delete what the provider keeps of an ended batch's results; what is gone already is no error."""

    def account(self, ledger_id: str) -> str:
        """Return a name for the account in use that gives nothing of the key away."""
        seed = f"{self.name} {self.base_url} {self.secret}".encode()
        return hmac.new(ledger_id.encode(), seed, hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold: requests, bytes of its file."""

    requests: int
    bytes: int
