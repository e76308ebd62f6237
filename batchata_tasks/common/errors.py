"""The errors of the package: one tree, split by what a caller can do about them.

BatchataError
├── InputError            the spec, the source or the command is wrong; nothing was sent (exit 2)
│   ├── SpecError         a key of the spec: unknown, missing, contradictory, not built yet
│   ├── SourceError       the table cannot be read, or a row of it cannot be used
│   ├── CredentialsError  no API key for the provider that the model needs
│   │   └── OtherAccountError  a batch was sent under another key or scope than the present one
│   └── WrongLedgerError  the ledger is not the one that the command needs, or not a ledger
├── TransientError        may go through later: rate limit, overload, lost connection
├── TerminalError         will fail the same way again: the provider refused the request, the key …
├── UnclearError          a create was sent and nobody knows whether it was accepted
├── HeldError             whether a create was accepted, or where results are: a person decides
├── LeaseError            this run no longer holds the dataset: it did not respond for too long
│   └── AlreadyRunningError  another run holds the dataset
├── LedgerError           the ledger cannot be used
├── DeclinedError         somebody was asked whether money is to be spent, and said no
└── StorageError          the disk or object store refused a write

Every error carries one sentence that names the field and the remedy. All of them can be pickled,
since a workflow engine carries them between processes.
"""

from __future__ import annotations

from batchata_tasks.common.text import printable_lines


class BatchataError(Exception):
    """Base of everything that the package raises on purpose; `str()` is a sentence for people.

    Its text may quote a source, a spec or a provider: what would move the cursor of a terminal is
    left out.
    """

    def __str__(self) -> str:
        return printable_lines(str(self.args[0])) if self.args else ""


class InputError(BatchataError):
    """The spec, the source or the command is wrong. Raised before anything is sent."""


class SpecError(InputError):
    """A key of the spec is unknown, missing, contradictory or not built yet."""


class DeclinedError(BatchataError):
    """Somebody was asked whether money is to be spent, and said no; nothing was sent."""


class SourceError(InputError):
    """The source cannot be read, or one of its rows cannot be used."""


class CredentialsError(InputError):
    """The provider that the model needs has no API key in the environment."""


class OtherAccountError(CredentialsError):
    """A batch was sent under another key, or other settings, than the environment has now."""


class WrongLedgerError(InputError):
    """The ledger in use is not the one that the command needs, or is not a ledger at all."""


class TransientError(BatchataError):
    """The same call may go through later; it certainly had no effect.

    `retry_after` is the wait in seconds that the provider asked for, `status` the HTTP status of
    its answer; None if it named no wait, or did not answer.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message, retry_after, status)
        self.retry_after = retry_after
        self.status = status


class TerminalError(BatchataError):
    """The same call will fail the same way again until somebody changes something.

    `status` is the HTTP status of the provider's answer, None if there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class UnclearError(BatchataError):
    """A create went out and its answer never came: it may have been accepted, and be paid for.

    `trouble` is a sentence with the remedy if the answer told of trouble of the account: once it is
    proven that nothing was accepted, another create would be answered alike.
    """

    def __init__(self, message: str, trouble: str | None = None) -> None:
        super().__init__(message, trouble)
        self.trouble = trouble


class HeldError(BatchataError):
    """Nothing can tell any more whether a create was accepted, or why results do not come.

    Rows are held until a person decides.
    """


class LeaseError(BatchataError):
    """This run does not hold the dataset, or no longer holds it because its lease ended."""


class AlreadyRunningError(LeaseError):
    """Another run holds the dataset.

    `holder` names its process for people. `until` is when its lease ends unless the run renews it,
    in microseconds since 1970 by the ledger's clock: if it moves, the run is alive.
    """

    def __init__(self, message: str, holder: str = "another process", until: int = 0) -> None:
        super().__init__(message, holder, until)
        self.holder = holder
        self.until = until


class LedgerError(BatchataError):
    """The ledger cannot be used."""


class StorageError(BatchataError):
    """The disk or the object store refused a read or a write."""
