"""The seam to a provider: what an adapter must do, and the values that cross it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from batchata_tasks.providers.accounts import account_name
from batchata_tasks.providers.checks import Checks
from batchata_tasks.providers.credentials import ENVIRONMENT
from batchata_tasks.types.batch_life import LONGEST_LIFE
from batchata_tasks.types.ids import is_custom_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from batchata_tasks.providers.credentials import Credentials
    from batchata_tasks.providers.emulated import Answering
    from batchata_tasks.types.answer import Answer
    from batchata_tasks.types.document import Document
    from batchata_tasks.types.outcome import Outcome
    from batchata_tasks.types.request import Request


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one batch may hold: requests, and bytes of its file."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class QueueRule:
    """What a provider bounds of the batches of an account that have not ended.

    `counts` are the tokens of their input, or their requests; `per_model` says whether each model
    has a bound of its own.
    """

    counts: Literal["tokens", "requests"]
    per_model: bool


@dataclass(frozen=True, slots=True)
class Framing:
    """The form of a request file: a head, lines with joints between them, a tail."""

    before_id: bytes
    before_body: bytes
    after_body: bytes
    head: bytes = b""
    joint: bytes = b""
    tail: bytes = b""

    def line(self, custom_id: str, body: bytes) -> bytes:
        """Return one request; `body` is its JSON."""
        parts = (self.before_id, custom_id.encode(), self.before_body, body, self.after_body)
        return b"".join(parts)

    def size(self, id_chars: int, body: bytes) -> int:
        """Return how many bytes one request takes in the file."""
        fixed = len(self.before_id) + len(self.before_body) + len(self.after_body) + len(self.joint)
        return fixed + id_chars + len(body)

    def file_size(self, requests: int) -> int:
        """Return how many bytes a file has whose requests take so many by `size`."""
        return len(self.head) + requests - len(self.joint) + len(self.tail)


@dataclass(frozen=True, slots=True)
class BatchLook:
    """The state of a batch, as the provider reports it.

    - `status` is the provider's word for it, in lower case. If it is not `known` to the adapter,
      the batch counts as ended if it has results.
    - `created_at` and `expires_at` are in seconds since 1970; None if the provider does not say.
    - `requests` and `done` are None if the provider does not say (yet).
    - `token` is the one that the batch carries, if batches can carry one, and `input_file_id` the
      file that its requests came in.
    - `files` are those of its results; `answers` is the one that holds the answers, if errors have
      a file of their own.
    - `error` is why a batch failed as a whole. It was `refused` if nothing of it ran, for certain;
      `bad_lines` holds the reasons for single requests that a failed validation refused, by the
      number of the line from 1.
    - `no_room` means that it was refused since the account's queue was full: nothing ran, and the
      same requests may be sent again later. `queue_limit` is how much the queue holds, in tokens,
      if it was told.
    - `gone` means that the provider says that it no longer keeps its results.
    - `stopped` is the outcome of requests that had not run when the batch was stopped.
    """

    batch_id: str
    status: str
    ended: bool
    created_at: float | None
    requests: int | None = None
    done: int | None = None
    token: str | None = None
    files: tuple[str, ...] = ()
    error: str | None = None
    refused: bool = False
    bad_lines: Mapping[int, str] = field(default_factory=dict[int, str])
    no_room: bool = False
    gone: bool = False
    model: str | None = None
    stopped: Outcome | None = None
    known: bool = True
    expires_at: float | None = None
    input_file_id: str | None = None
    answers: str | None = None
    queue_limit: int | None = None


def texts_as_given(body: Callable[[Any, Request], dict[str, Any]]) -> Any:
    """Mark an adapter's `body`: it holds the text of each turn as it is, and depends on no text.

    Then the bodies of requests that differ in texts alone need not be built one by one. Texts of
    blanks are an exception: `body` may leave them out. An adapter that overrides `body` is not
    marked, unless it marks its own.
    """
    body.texts_as_given = True  # pyright: ignore[reportFunctionMemberAccess]
    return body


class Adapter(Checks, ABC):
    """One provider's batch API, call by call: what an adapter has to implement.

    Its constructor takes no arguments: the key is in the environment. If there are blocks of
    credentials for the provider, it takes what one holds, too. Reads are retried; creates go out
    once. Every error of the wire becomes one of TransientError, TerminalError, CredentialsError
    or, for creates alone, UnclearError.
    """

    # of these the first that is set holds the API key; all are masked in every text
    key_variables: ClassVar[tuple[str, ...]]
    limits: ClassVar[Limits]
    framing: ClassVar[Framing]
    # what an account may have waiting at once; None if that is not bounded, as far as is known
    queue: ClassVar[QueueRule | None] = None
    poll_seconds: ClassVar[tuple[float, float]]  # first and longest wait between status requests
    cap_param: str  # the name in bodies of the cap on an answer's tokens; a class has it, too
    mixes_models: ClassVar[bool] = False  # whether requests of several models may share a batch
    turns_param: ClassVar[str] = "messages"  # the name in bodies of the list of turns
    # the names in bodies that lead to the schema of answers; none if requests have none
    schema_path: ClassVar[tuple[str, ...]] = ()
    # whether input may be billed as written to a cache although no request asks for that
    caches_unasked: ClassVar[bool]
    # environment variables that select whose batches are meant, besides the key and the address
    scope_variables: ClassVar[tuple[str, ...]] = ()
    headers_variable: ClassVar[str | None] = None  # the one that adds headers to each request
    # whether lists at the address in use are known to show all batches of the account; only then a
    # batch that they leave out was not accepted
    lists_all: bool = False
    # whether the counts, names and times of batches are known to be right, as the official API's
    is_exact: bool = False
    lists_end: bool = True  # whether the last list was read to its end
    # whether lists are known to say of each batch which create it is of, by token or file
    names_batches: bool = False
    # whether batches can carry a token that lists show
    lists_tokens: ClassVar[bool] = False
    # who answers at the address: an emulator, say; without it, nobody asks
    answering: Answering | None = None
    credentials: Credentials = ENVIRONMENT  # where key, address and scope come from

    @property
    def secret(self) -> str:
        """The API key in use; only for deriving `account`."""
        return next(filter(None, map(self.credentials.get, self.key_variables)), "")

    @property
    @abstractmethod
    def base_url(self) -> str:
        """The address that requests go to."""

    def is_emulated(self) -> bool | None:
        """Whether an emulator answers at `base_url`, so that answers are made up; None if unknown.

        It may be asked for that, without the key.
        """
        return None

    def surcharge(self, model: str) -> int:
        """Return by how many per cent the model's tokens cost more at `base_url` than elsewhere."""
        del model
        return 0

    @abstractmethod
    def body(self, request: Request) -> dict[str, Any]:
        """Return the body of a request, built anew each time."""

    @classmethod
    def document_of(cls, part: Mapping[str, Any]) -> Document | None:
        """Return the document that a part of a turn is, in a body that `body` made.

        None if it is none, or if requests take none. A text may be taken for one.
        """
        del part
        return None

    def cap_in(self, body: Mapping[str, Any]) -> str:
        """Return the name of the cap in a body, which an earlier process may have built."""
        del body
        return self.cap_param

    @abstractmethod
    def upload(self, path: Path) -> str | None:
        """Upload the request file and return its id; None if requests travel in the create.

        This costs nothing.
        """

    @abstractmethod
    def create(
        self, path: Path, file_id: str | None, token: str, may_send: Callable[[], None]
    ) -> BatchLook:
        """Create one batch: one POST, never repeated.

        `may_send` is called at the last moment before bytes go out, and raises to stop them.

        Raises:
            TransientError, TerminalError: nothing was accepted, for certain.
            UnclearError: the batch may have been accepted or not.
        """

    @abstractmethod
    def look(self, batch_id: str) -> BatchLook:
        """Return the batch's current state."""

    @abstractmethod
    def recent(self, since: float) -> Iterator[BatchLook]:
        """Yield the account's batches created at or after `since` (seconds), newest first."""

    def around(self, since: float) -> Iterator[BatchLook]:
        """Yield what `recent` does and, if it costs no call, older batches: clocks may be wrong."""
        return self.recent(since)

    def newest(self) -> list[BatchLook]:
        """Return the newest of the account's batches, as many as one call tells; none if none are.

        One suffices where lists show no tokens.
        """
        return list(islice(self.recent(0.0), 1))

    def open_batches(self, model: str | None = None) -> set[str]:
        """Return the ids of the account's batches that have not ended, whoever sent them.

        Given a model, batches of other models are left out, if the provider names them.
        """
        models = None if model is None else (None, model)
        return {
            look.batch_id
            for look in self.recent(time.time() - LONGEST_LIFE)
            if not look.ended and (models is None or look.model in models)
        }

    @abstractmethod
    def owns(self, look: BatchLook, token: str) -> bool | None:
        """Whether a batch carries the token; None as long as that is unknown."""

    def names_chunk(self, custom_id: str | None, token: str) -> bool | None:
        """Whether a custom_id of a batch's results is of a chunk; None if nobody can tell.

        A server that is not known to be exact may change custom_ids: then one that is not of our
        form proves nothing.
        """
        if custom_id is None:
            return None
        if token in custom_id:
            return True
        return False if self.is_exact or is_custom_id(custom_id) else None

    def token_of(self, look: BatchLook) -> str | None:
        """Return the token that a batch carries, as far as that can be told."""
        return look.token

    def ours(self, look: BatchLook) -> bool | None:
        """Whether this program sent a batch, under any ledger; None as long as that is unknown."""
        return look.token is not None

    @abstractmethod
    def download(self, look: BatchLook, folder: Path, stem: str) -> list[Path]:
        """Stream the results of an ended batch into files of `folder`; return those, if any.

        What a server sends may have no end: more than the results of `look.requests` requests can
        be is a TerminalError, after which nothing of it is left.
        """

    @abstractmethod
    def answers(self, path: Path) -> Iterator[Answer]:
        """Yield every line of a results file, classified, in the file's order."""

    @abstractmethod
    def cancel(self, batch_id: str) -> None:
        """Ask the provider to cancel a batch; what has run by then is kept and billed.

        Raises:
            TerminalError: it has already ended.
        """

    @abstractmethod
    def uploads(self, since: float) -> Iterator[tuple[str, str]]:
        """Yield (file id, file name) of existing request files uploaded at or after `since`."""

    @abstractmethod
    def discard_upload(self, file_id: str) -> None:
        """Delete an uploaded request file; it is not an error if that is already gone."""

    @abstractmethod
    def discard_results(self, look: BatchLook) -> None:
        """Delete an ended batch's results; it is not an error if they are already gone."""

    def close(self) -> None:
        """Close the connections to the provider; nothing is called afterwards.

        An adapter that holds none need not implement this. It is not closed while a call may be
        under way, as a create that is cut off would be in doubt.
        """

    def account(self, ledger_id: str) -> str:
        """Return a name for the account in use that does not give away the key."""
        return account_name(self, ledger_id)
