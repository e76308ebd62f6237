"""The summary of a plan, and the options of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.text import pluralize, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchata_tasks.types.document import Document


CHANGES = {
    "prompt": "the prompt",
    "input": "the input",
    "model": "the model or a parameter",
    "schema": "the response model",
}
"""Reasons for which rows are sent again whatever their answers were, in words."""
_PAGES_NAMED = 10
_MONEY = frozenset({"bound", "further", "expected", "expected_list", "factors", "least"})


@dataclass
class PlanSummary:
    """The counts and costs of a plan; money in picodollars."""

    source_rows: int = 0
    filtered: int = 0  # left out by `where`
    null_skipped: int = 0  # left out by `on_null: skip`
    up_to_date: int = 0
    in_flight: int = 0  # sent before and not landed yet, held ones included
    held: int = 0  # of those in flight: no run waits for them, a person may have to decide
    exhausted: int = 0  # failed for good, or attempts used up
    not_asked: int = 0  # changed, but for a reason that `rerun_on` leaves out
    over_limit: int = 0  # need work, but `limit` was reached
    too_large: int = 0  # cannot be sent at all; land as errors
    bad_documents: int = 0  # have a document that cannot be sent; land as errors
    gone_documents: int = 0  # landed, and up to date as far as is known: a document is gone
    textless_rows: int = 0  # ask to cite documents of which some pages have no text
    textless_pages: int = 0  # those pages
    textless_example: str | None = None  # those of one document
    recovered: int = 0  # answered by batches whose rows the dataset had lost
    carried: int = 0  # only carried columns changed: rewritten, nothing sent
    marked: int = 0  # the source lacks them since now: marked so
    deleted: int = 0  # the source lacks them: taken out of the dataset
    kept_missing: int = 0  # the source lacks them: they stay as they are; 0 if that is unknown
    returned: int = 0  # the source has them again: marked no more
    # answers that landed and the response model cannot hold: they stay in `_response` alone
    misfits: dict[str, int] = field(default_factory=dict[str, int])
    retired: list[str] = field(default_factory=list[str])  # columns that left `columns`, kept
    # columns that seem to have another name in source and spec by now: the new one by the old one
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    # of those to send: they ask something else by now than in their batches, which are in flight
    # (in a plan that is only shown), or landed in this very start
    asked_anew: int = 0
    requests: int = 0
    batches: int = 0
    # the most that one attempt at each row can cost; None without a known price
    bound: int | None = 0
    further: int | None = 0  # the same for all further attempts that the run may make
    expected: int | None = None  # its likely cost, further rounds included
    expected_list: int | None = None  # the same outside of a batch
    input_tokens: int = 0  # likely
    output_tokens: int = 0  # likely
    calibrated_by: int = 0  # finished batches that the likely figures rest on; 0: they are a guess
    # by which the bounds of each model were multiplied, in millionths
    factors: dict[str, int] = field(default_factory=dict[str, int])
    least: int = 0  # the bound of the cheapest request
    pilot: int = 0  # rows that are sent first, and decide on the others; 0 if there are no others

    @property
    def most(self) -> int | None:
        """The most that the run can cost with all its attempts; None without a known price."""
        return None if self.bound is None else self.bound + (self.further or 0)

    @property
    def unsendable(self) -> int:
        """The number of rows that land as errors, since they cannot be sent at all."""
        return self.too_large + self.bad_documents

    def textless_text(self) -> str | None:
        """Return, for people, of how many pages nothing can be cited; None if there are none."""
        if not self.textless_pages:
            return None
        pages = pluralize(self.textless_pages, "page has", "pages have")
        rows = pluralize(self.textless_rows, "row")
        example = "" if self.textless_example is None else f", such as {self.textless_example}"
        return f"{pages} no text that could be cited, in documents of {rows}{example}"

    def note_textless(self, documents: Sequence[Document]) -> None:
        """Count the documents of a row of which some pages have no text that could be cited."""
        self.textless_rows += bool(documents)
        self.textless_pages += sum(document.textless for document in documents)
        if documents and self.textless_example is None:
            first = documents[0]
            pages = ", ".join(map(str, first.without_text[:_PAGES_NAMED]))
            more = ", …" if first.textless > _PAGES_NAMED else ""
            kind = "page" if first.textless == 1 else "pages"
            self.textless_example = f"{kind} {pages}{more} of {printable(first.title)}"

    def misfit_texts(self) -> list[str]:
        """Return, for people, which answers the response model cannot hold any more."""
        texts = list[str]()
        for column, count in self.misfits.items():
            if ": " in column:  # with the type that it has now
                answers = pluralize(count, "answer does", "answers do")
                texts.append(f"{answers} not fit `{column}` and stay in `_response` alone")
            else:
                answers = pluralize(count, "answer")
                texts.append(
                    f"the response model has no field `{column}` any more: its {answers} stay in "
                    "`_response` alone"
                )
        return texts

    @property
    def changed(self) -> dict[str, int]:
        """How many rows are to be sent again since what they ask changed, by reason."""
        return {reason: self.reasons[reason] for reason in CHANGES if reason in self.reasons}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> PlanSummary:
        """Return a summary from what `to_json` gave; fields of other versions are left out."""
        names = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in names})

    def facts(self) -> dict[str, Any]:
        """Return all that is no money, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in _MONEY}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one run that are no part of its spec."""

    refresh_before: int | None = None
    retry_failed: bool = False
    # what landed since this moment (microseconds since 1970) was tried for that already
    tried_since: int | None = None
    take_over: bool = False  # the dataset may be filled by another spec

    def retries(self, landed_at: int) -> bool:
        """Whether a row that failed for good is sent again; it landed at `landed_at`."""
        return self.retry_failed and (self.tried_since is None or landed_at < self.tried_since)


@dataclass(frozen=True, slots=True)
class SentBefore:
    """What a run that is planned anew has sent already: so many rows, and the parts of its chunks.

    These rows count to the spec's `limit`; another attempt at one of them does not.
    """

    rows: int = 0
    parts: frozenset[str] = frozenset()


NOTHING_SENT = SentBefore()
