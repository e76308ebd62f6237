"""The seam to a provider: what one adapter must do, and the values that cross it."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from batchata_tasks.errors import SpecError
from batchata_tasks.jobs import Answer, ErrorCode, Outcome, describe
from batchata_tasks.providers._keys import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batchata_tasks.chunk import Limits
    from batchata_tasks.job import Job
    from batchata_tasks.jobs import Job as Request
    from batchata_tasks.jobs import Message


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
        return b"".join((self.before_id, custom_id.encode(), self.before_body, body, self.after_body))

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


class Provider(ABC):
    """One provider's batch API, over its official SDK.

    Reads go out with the SDK's retries; creates go out once. Every SDK error becomes one of
    TransientError, TerminalError, UnclearError (creates alone) or CredentialsError.
    """

    name: ClassVar[str]
    limits: ClassVar[Limits]
    framing: ClassVar[Framing]
    poll_seconds: ClassVar[tuple[float, float]]  # first wait between looks, longest wait
    reserved_params: ClassVar[frozenset[str]]  # set by the pipeline: a spec may not
    repriced_params: ClassVar[frozenset[str]]  # change what a token costs, and no usage says so: refused
    priced_params: ClassVar[frozenset[str]]  # cannot change price or count: allowed under a limit
    cap_param: ClassVar[str]  # how bodies call the cap on an answer's tokens
    caches_unasked: ClassVar[bool]  # whether input may be billed as written to a cache where no request asks for it

    @property
    @abstractmethod
    def secret(self) -> str:
        """The API key in use; only for deriving `account`."""

    @property
    @abstractmethod
    def base_url(self) -> str:
        """Where requests go."""

    @abstractmethod
    def body(self, job: Request) -> dict[str, Any]:
        """Return the request body of a job, built anew each time."""

    @abstractmethod
    def upload(self, path: Path) -> str | None:
        """Send the request file ahead, where the provider wants one; its id. Costs nothing."""

    @abstractmethod
    def create(self, path: Path, file_id: str | None, token: str, may_send: Callable[[], None]) -> BatchLook:
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
        return {look.batch_id for look in recent if not look.ended and (model is None or look.model in (None, model))}

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

    @classmethod
    def validate_job(cls, job: Job, *, limited: bool = False) -> None:
        """Check a job against the provider's rules; `limited` says whether a cost limit is to hold.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        job.check()
        try:
            cls.check_params(job.model, job.request(None).params, limited=limited)
            cls.check_turns(job.turns())
        except SpecError as error:
            message = f"job {job.id!r:.80}: {error}"
            raise SpecError(message) from None

    @classmethod
    def check_turns(cls, turns: Sequence[Message]) -> None:
        """Refuse turns that the provider would refuse, or read otherwise than they stand."""
        del turns

    @classmethod
    def check_params(cls, model: str, params: Mapping[str, Any], *, limited: bool) -> None:
        """Refuse parameters that the spec may not set, that `model` refuses, or of unbounded price.

        Raises:
            SpecError: naming the parameter.
        """
        del model  # adapters know which models refuse what
        for name in params:
            if name in cls.reserved_params:
                message = f"params.{name}: this is set by the spec's own keys (model, max_tokens, prompt, response_model …); remove it."
                raise SpecError(message)
            if name in cls.repriced_params:
                message = f"params.{name}: it changes what is billed in a way that no usage tells, so costs would be wrong; remove it."
                raise SpecError(message)
            if limited and name not in cls.priced_params:
                allowed = ", ".join(sorted(cls.priced_params))
                message = f"params.{name}: its effect on the price has no bound, so a cost limit forbids it (allowed: {allowed})."
                raise SpecError(message)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a results file; they end at newline bytes alone, never at U+2028."""
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                yield line


def lines_with(path: Path, token: str) -> int:
    """Count the lines of a results file that name a custom_id of a chunk; a last one cut off does not count.

    A maintenance page that a proxy sent instead of results has none.
    """
    mark, count = f'"{token}-'.encode(), 0
    for line in lines_of(path):
        count += mark in line and (line.endswith(b"\n") or _is_json(line))
    return count


def is_results(path: Path) -> bool:
    """Whether a file can be a provider's results: it is empty, or some line of it is JSON."""
    lines = lines_of(path)
    return (first := next(lines, None)) is None or _is_json(first) or any(map(_is_json, lines))


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


def read_line(line: bytes, classify: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Classify one line; a broken one keeps its custom_id where that can be read."""
    try:
        answer = classify(orjson.loads(line))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        found = _CUSTOM_ID.search(line)
        text = f"a broken result line ({type(error).__name__}: {error})"
        broken = describe(ErrorCode.PROVIDER, text)
        answer = Answer(found[1].decode() if found else "", Outcome.ERRORED, error=broken, readable=False)
    # a provider may quote a key in its error, and errors go into the dataset
    return answer if answer.error is None else replace(answer, error=masked(answer.error))


def first_custom_id(lines: Iterable[bytes]) -> str | None:
    """Return the first custom_id that can be read, or None where no line has one."""
    for line in lines:
        try:
            found = orjson.loads(line)
            if isinstance(found["custom_id"], str):
                return found["custom_id"]
        except (ValueError, LookupError, TypeError):
            continue
    return None


def joined(parts: Iterable[str]) -> str | None:
    """Return texts as one, None where there are none."""
    found = list(parts)
    return "".join(found) if found else None
