"""What a person asks of reconciling, and what it found and did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Request:
    """What a person asks for beside the report.

    `adopt` names chunks with the batches that they are; `resend` chunks that were never accepted;
    `hold` chunks whose key is gone, so that no run waits for them; `cancel` batches.
    """

    adopt: dict[str, str] = field(default_factory=dict[str, str])
    resend: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()


def pairs_of(texts: Iterable[str]) -> dict[str, str]:
    """Read `CHUNK=BATCH` texts; raises SpecError where one is not of that form."""
    pairs = dict[str, str]()
    for text in texts:
        chunk, sign, batch = text.partition("=")
        if not (chunk and sign and batch):
            message = f"--adopt {text}: write it as CHUNK=BATCH."
            raise SpecError(message)
        pairs[chunk] = batch
    return pairs


@dataclass(frozen=True)
class UnknownBatch:
    """A batch at a provider that no chunk of the ledger owns. `age` is in whole seconds.

    `ours` tells whether this program sent it, under another ledger; None where the provider does not
    tell. `may_be` is a chunk in doubt that it may be.
    """

    provider: str
    batch_id: str
    status: str
    requests: int | None
    age: int
    ours: bool | None
    may_be: str | None = None
    ended: bool = False


@dataclass(frozen=True)
class UnclearChunk:
    """A chunk of which the ledger does not know whether it was accepted; `age` since it was sent, in whole seconds."""

    chunk: str
    state: str
    dataset: str
    provider: str
    requests: int
    age: int
    note: str = ""


@dataclass
class Report:
    """What reconciling found and did."""

    known: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # batches of the ledger, by provider
    adopted: dict[str, str] = field(default_factory=dict[str, str])  # chunk: batch
    freed: list[str] = field(default_factory=list[str])
    held: list[str] = field(default_factory=list[str])
    cancelled: list[str] = field(default_factory=list[str])
    had_ended: list[str] = field(default_factory=list[str])  # batches that were to be cancelled
    strays: list[UnknownBatch] = field(default_factory=list[UnknownBatch])
    doubts: list[UnclearChunk] = field(default_factory=list[UnclearChunk])
    notes: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return the report for people, as (what, value)."""
        rows = [
            (
                "Known",
                ", ".join(f"{pluralize(n, 'batch')} of {name}" for name, n in self.known.items())
                or "no batches",
            )
        ]
        rows += [
            ("Adopted", f"batch {batch} is chunk {chunk}: the next run lands it")
            for chunk, batch in self.adopted.items()
        ]
        rows += [("Freed", f"chunk {chunk}: its rows are planned again") for chunk in self.freed]
        rows += [("Held", f"chunk {chunk}") for chunk in self.held]
        rows += [("Cancelled", f"batch {batch}") for batch in self.cancelled]
        rows += [
            ("Not cancelled", f"batch {batch} had already ended; nothing to cancel")
            for batch in self.had_ended
        ]
        rows += [("In doubt", f"{_doubt(doubt)}") for doubt in self.doubts]
        rows += [(_label(stray), _stray(stray)) for stray in self.strays]
        rows += [("Note", note) for note in self.notes]
        lost = any(stray.ours is not False and stray.may_be is None for stray in self.strays)
        return (
            [*rows, ("Note", "if a ledger was lost: `batchata status SPEC --rebuild`.")]
            if lost
            else rows
        )


def _doubt(doubt: UnclearChunk) -> str:
    sent = f"{pluralize(doubt.requests, 'request')} to {doubt.provider}, sent {_ago(doubt.age)}, {doubt.dataset}"
    text = f"chunk {doubt.chunk} ({sent}): {doubt.state}"
    return f"{text}; {doubt.note}" if doubt.note else text


_WHOSE = {
    True: "sent by this program under another ledger",
    False: "of another program",
    None: "of another program, or of another ledger of this one (the provider does not tell)",
}


def _label(stray: UnknownBatch) -> str:
    if stray.may_be is not None:
        return "Perhaps ours"
    return "Unknown" if stray.ours is None else "Another ledger's" if stray.ours else "Nobody's"


def _stray(stray: UnknownBatch) -> str:
    size = "of unknown size" if stray.requests is None else pluralize(stray.requests, "request")
    whose = _WHOSE[stray.ours]
    if stray.may_be is not None:
        whose = f"may be chunk {stray.may_be}, which is in doubt"
    return f"batch {stray.batch_id} ({stray.provider}, {stray.status}, {size}, {_ago(stray.age)}), {whose}"


def _ago(seconds: int) -> str:
    return f"{seconds / 3600:.1f} h ago" if seconds > 3600 else f"{seconds / 60:.0f} min ago"  # noqa: PLR2004 - an hour
