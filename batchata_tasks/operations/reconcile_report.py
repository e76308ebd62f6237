"""The request to reconcile, and the report on it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import capitalized, pluralize, sentence
from batchata_tasks.execution.held import answered, decide
from batchata_tasks.ledger import ChunkState

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class ReconcileRequest:
    """What a person asks for, beyond the report.

    `adopt` gives chunks in doubt with the batches that they are; `resend` held chunks that were
    never accepted; `hold` chunks whose API key is gone, so that no run waits for them; `cancel`
    batches to cancel; `abandon` batches of ours that do not end, to be given up.
    """

    adopt: dict[str, str] = field(default_factory=dict[str, str])
    resend: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    abandon: tuple[str, ...] = ()


def pairs_of(texts: Iterable[str]) -> dict[str, str]:
    """Read `CHUNK=BATCH` texts; raises SpecError if one is not of that form."""
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
    """A batch at a provider that no chunk of the ledger owns.

    `age` is in whole seconds; None if the provider does not say when it was created.

    `ours` says whether this program sent it, under another ledger; None if the provider does not
    tell. `may_be` is a chunk in doubt whose batch this may be, or one that was `freed` since it was
    taken for never accepted, and not sent again yet; `twice` is one of this ledger that has another
    batch, or was `freed` and sent again, so that its requests were accepted twice; it is `counted`
    if the most that it may have cost counts as spent.
    """

    provider: str
    batch_id: str
    status: str
    requests: int | None
    age: int | None
    ours: bool | None
    may_be: str | None = None
    ended: bool = False
    twice: str | None = None
    freed: bool = False
    counted: bool = False


@dataclass(frozen=True)
class UnclearChunk:
    """A chunk in doubt: the ledger does not know whether it was accepted."""

    chunk: str
    state: str
    dataset: str
    provider: str
    requests: int
    age: int  # whole seconds since it was sent
    note: str = ""
    error: str | None = None  # what its create was answered; None if its process ended first


@dataclass(frozen=True)
class OverdueBatch:
    """A batch of ours that brought no results in time; `why` is a sentence that says how.

    `age` is in whole seconds since it was sent; if it has `ended` since, the next run lands it.
    """

    batch_id: str
    chunk: str
    dataset: str
    provider: str
    requests: int
    age: int
    why: str = ""
    ended: bool = False


@dataclass(frozen=True)
class ElsewhereBatch:
    """An open batch of ours that was sent under another account; `change` is what to set again."""

    batch_id: str
    chunk: str
    dataset: str
    provider: str
    requests: int
    age: int  # whole seconds since it was sent
    change: str


@dataclass
class ReconcileReport:
    """What reconciling found and did. The names are those in the JSON output."""

    # how many batches the ledger knows, by provider
    known: dict[str, int] = field(default_factory=dict[str, int])
    adopted: dict[str, str] = field(default_factory=dict[str, str])  # chunk: batch
    freed: list[str] = field(default_factory=list[str])  # chunks
    held: list[str] = field(default_factory=list[str])  # chunks
    cancelled: list[str] = field(default_factory=list[str])  # batches
    had_ended: list[str] = field(default_factory=list[str])  # batches too late to cancel
    abandoned: list[str] = field(default_factory=list[str])  # batches
    overdue: list[OverdueBatch] = field(default_factory=list[OverdueBatch])
    elsewhere: list[ElsewhereBatch] = field(default_factory=list[ElsewhereBatch])
    late: dict[str, str] = field(default_factory=dict[str, str])  # abandoned, and ended since
    strays: list[UnknownBatch] = field(default_factory=list[UnknownBatch])
    doubts: list[UnclearChunk] = field(default_factory=list[UnclearChunk])
    notes: list[str] = field(default_factory=list[str])
    unasked: list[str] = field(default_factory=list[str])  # providers that did not answer

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 1 if a provider could not be asked, else 0."""
        return 1 if self.unasked else 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return the report for people, as (label, value)."""
        known = [f"{pluralize(count, 'batch')} of {name}" for name, count in self.known.items()]
        rows = [("Known", ", ".join(known) or "no batches")]
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
        rows += [("Abandoned", f"batch {batch}: {_GIVEN_UP}") for batch in self.abandoned]
        rows += [("Overdue", _describe_overdue(batch)) for batch in self.overdue]
        rows += [("Elsewhere", _describe_elsewhere(batch)) for batch in self.elsewhere]
        rows += [("Ended late", _describe_late(*pair)) for pair in self.late.items()]
        rows += [("In doubt", _describe_chunk(chunk)) for chunk in self.doubts]
        rows += _stray_lines(self.strays)
        rows += [("Note", note) for note in self.notes]
        unknown = [b for b in self.strays if b.ours is not False and b.may_be is None]
        if any(batch.twice is None for batch in unknown):
            rows.append(
                (
                    "Note",
                    "if a ledger was lost, or is from a backup: `batchata status SPEC --rebuild`.",
                )
            )
        return rows


def _describe_chunk(chunk: UnclearChunk) -> str:
    text = (
        f"chunk {chunk.chunk} ({_sent(chunk)}): nobody can tell whether it was accepted. "
        f"{answered(chunk.error)} "
    )
    if chunk.note:
        text += sentence(capitalized(chunk.note)) + " "
    if chunk.state != ChunkState.HELD:
        return (
            f"{text}The next run looks for it; `batchata reconcile --hold {chunk.chunk}` lets you "
            "decide instead"
        )
    return (
        f"{text}Its rows are held: {decide(chunk.chunk)} (which pays twice if it was accepted "
        "after all)"
    )


def _sent(one: UnclearChunk | OverdueBatch | ElsewhereBatch) -> str:
    requests = pluralize(one.requests, "request")
    return f"{requests} to {one.provider}, sent {_ago(one.age)}, {one.dataset}"


def _describe_elsewhere(batch: ElsewhereBatch) -> str:
    return (
        f"batch {batch.batch_id} ({_sent(batch)}) is open, but not to be seen now: {batch.change}; "
        "the next run then lands it"
    )


_GIVEN_UP = (
    "its rows are planned again, and paid for twice if they ran; the most that it can have cost "
    "counts as spent"
)


def _describe_late(chunk: str, batch: str) -> str:
    return (
        f"batch {batch}, which was abandoned, has ended: `batchata reconcile --adopt "
        f"{chunk}={batch}` lands its results"
    )


def _describe_overdue(batch: OverdueBatch) -> str:
    text = f"batch {batch.batch_id} ({_sent(batch)})"
    if batch.why:
        text += f": {batch.why.rstrip('.')}"  # it begins with a name, in small letters
    if batch.ended:
        return f"{text}. The next run lands it"
    return (
        f"{text}. The next run lands it if its results come after all; `batchata reconcile "
        f"--abandon {batch.batch_id}` gives it up, and its rows are paid for again"
    )


_ORIGIN = {
    True: "sent by this program under another ledger",
    False: "of another program",
    None: "of another program, or of another ledger of this one (the provider does not tell)",
}


_LABELS = {True: "Another ledger's", False: "Nobody's", None: "Unknown"}
_HOUR = 3600
_UNDECIDED = ("Sent twice", "Ours after all", "Perhaps ours")
_MOST_LINES = 20  # of a kind of batches that need nobody's decision


def _stray_lines(batches: list[UnknownBatch]) -> list[tuple[str, str]]:
    """Return lines for all batches that somebody has to decide on, and the newest others."""
    kinds = dict[str, list[UnknownBatch]]()
    for batch in sorted(batches, key=lambda one: math.inf if one.age is None else one.age):
        kinds.setdefault(_label(batch), []).append(batch)
    lines = list[tuple[str, str]]()
    for label in (*_UNDECIDED, *_LABELS.values()):
        of_kind = kinds.get(label, [])
        shown = of_kind if label in _UNDECIDED else of_kind[:_MOST_LINES]
        lines += [(label, _describe_batch(batch)) for batch in shown]
        if older := len(of_kind) - len(shown):
            lines.append((label, f"{older:,} older ones, which `--json` lists"))
    return lines


def _label(batch: UnknownBatch) -> str:
    if batch.twice is not None:
        return _UNDECIDED[0]
    if batch.may_be is None:
        return _LABELS[batch.ours]
    return _UNDECIDED[1] if batch.freed else _UNDECIDED[2]


def _describe_batch(batch: UnknownBatch) -> str:
    size = "of unknown size" if batch.requests is None else pluralize(batch.requests, "request")
    facts = f"{batch.provider}, {batch.status}, {size}, {_ago(batch.age)}"
    origin = _ORIGIN[batch.ours]
    if batch.twice is not None:
        why = "was taken for never accepted" if batch.freed else "has another batch"
        origin = f"of chunk {batch.twice}, which {why}: its requests were sent twice"
        if batch.counted:
            origin += "; the most that it can have cost is counted as spent"
    if batch.may_be is not None:
        origin = f"may be chunk {batch.may_be}, which is in doubt"
    if batch.may_be is not None and batch.freed:
        origin = (
            f"of chunk {batch.may_be}, which was freed, and not sent again yet: `batchata "
            f"reconcile --adopt {batch.may_be}={batch.batch_id}` keeps it from being paid for twice"
        )
    return f"batch {batch.batch_id} ({facts}), {origin}"


def _ago(seconds: int | None) -> str:
    if seconds is None:
        return "of unknown age"
    return f"{seconds / _HOUR:.1f} h ago" if seconds > _HOUR else f"{seconds / 60:.0f} min ago"
