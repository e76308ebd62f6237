"""What the last start of a dataset's run ended with, for people who ask later.

It is a small file beside the dataset, which nothing depends on: the next start deletes it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchata_tasks.common.clock import now_us
from batchata_tasks.common.errors import BatchataError, DeclinedError, LeaseError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.text import minute, printable
from batchata_tasks.execution.held_dataset import InterruptedRunError, SuspendedRunError
from batchata_tasks.providers import masked

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset

_CHARS = 2000


@dataclass(frozen=True)
class LastError:
    """The sentence with which a start ended, and when, in microseconds since 1970."""

    text: str
    at: int

    def told(self) -> str:
        """Return it as a sentence."""
        when = minute(self.at / 1e6)
        return f"the last start ({when}) ended so: {self.text}"


@contextmanager
def kept_errors(held: HeldDataset) -> Generator[None, None, None]:
    """Keep the error that ends a start, if one does; forget that of the start before.

    A run that was stopped by a person, or that lost the dataset, says nothing of what is wrong.
    """
    with suppress(OSError):
        held.folder.last_error.unlink(missing_ok=True)
    try:
        yield
    except (InterruptedRunError, SuspendedRunError, LeaseError, DeclinedError):
        raise
    except BatchataError as error:
        keep(held, str(error))
        raise


def keep(held: HeldDataset, text: str) -> None:
    """Keep the sentence with which a start ends; without the lease, or on a full disk, do not."""
    with suppress(BatchataError, OSError):
        held.require_lease()
        facts = {"format": 1, "at_us": now_us(), "error": masked(text)[:_CHARS]}
        write_json(held.folder.last_error, facts)


def last_error(folder: DatasetFolder) -> LastError | None:
    """Return what the last start ended with; None if it ended well, or goes on."""
    facts = read_json(folder.last_error) or {}
    text, at = facts.get("error"), facts.get("at_us")
    if not isinstance(text, str) or not isinstance(at, int):
        return None
    return LastError(printable(text)[:_CHARS], at)
