"""What ends a run, as seen once all that was sent has landed: another try would be paid for naught.

Three things do: none of many rows has a usable answer, no line of a batch can be read, or the
account lacks something (credit, say). The run stays open in the ledger. After the first two it
sends nothing more, also when it is started again (each night, say), until somebody changes its spec
or asks for another try. After the last one the next start sends what is left, and again what met
the trouble, which costs nothing and is no attempt.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import BatchataError
from batchata_tasks.common.money import dollars
from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.execution.land import commit_of
from batchata_tasks.execution.trouble import MANY, grouped, said
from batchata_tasks.ledger import UNTIL_LOOKED_AT, ChunkKind, ChunkState, OutcomeTotals, StopReason
from batchata_tasks.pipeline.receipt import RunResult
from batchata_tasks.pipeline.ways import retried_by
from batchata_tasks.spec.jobs import JobsSpec
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.ledger import Chunk

    Landed = list[tuple[Chunk, dict[str, Any]]]

_ERRORS = 3
_PERMISSION = re.compile(
    r"permission|permitted|forbidden|not allowed|not authori[sz]ed|have access|HTTP 403",
    re.IGNORECASE,
)


class StoppedError(BatchataError):
    """Nothing more is sent, and the receipt says why; the run stays open, unless it `is_done`."""

    def __init__(self, message: str, result: RunResult, *, is_done: bool = False) -> None:
        super().__init__(message, result)
        self.result = result
        self.is_done = is_done

    def __str__(self) -> str:
        return str(self.args[0])


def judge(run: RunContext) -> None:
    """Raise StoppedError if what landed says that nothing more is to be paid.

    Asked when all that was sent has landed: before another round, and before the run ends.
    """
    noted = run.ledger.run(run.run_id).result
    totals = run.ledger.outcomes(run.run_id)
    usable = totals.get(Outcome.SUCCEEDED, OutcomeTotals()).rows
    if noted is None and usable:
        return
    landed = [
        (chunk, commit_of(run.folder, chunk.id))
        for chunk in run.ledger.chunks(run.run_id, (ChunkState.LANDED,))
        if chunk.kind == ChunkKind.BATCH
    ]
    settled = usable or noted in UNTIL_LOOKED_AT
    reason = noted if settled else _reason(run, landed) or noted
    if reason == StopReason.UNREADABLE_BATCH:
        message = _unreadable(run, landed)
    elif reason == StopReason.NO_USABLE_ANSWER:
        message = _no_usable_answer(run, landed)
    elif reason == StopReason.ACCOUNT_TROUBLE:
        message = _account_trouble(run, landed)
    else:
        return
    run.ledger.stop_for_trouble(run.lease, run.run_id, StopReason(reason))
    is_done = reason == StopReason.ACCOUNT_TROUBLE and _is_of_single_rows(run, landed)
    is_done = is_done and not run.ledger.chunks(run.run_id, (ChunkState.PLANNED,))
    raise StoppedError(message, RunResult(reason), is_done=is_done)


def frequent_errors(commits: Iterable[dict[str, Any]], number: int) -> dict[str, int]:
    """Return the most frequent errors of the rows as they ended, after all rounds."""
    ended, before = list[tuple[str, int]](), list[tuple[str, int]]()
    for commit in commits:
        ended += commit.get("errors", {}).items()
        before += commit.get("errors_before", {}).items()
    errors = grouped([*ended, *((text, -count) for text, count in before)])
    return {text: count for text, count in errors.most_common(number) if count > 0}


def _reason(run: RunContext, landed: Landed) -> StopReason | None:
    """Return why nothing more is to be paid for rows of which none has a usable answer.

    A single broken line is an accident if the dataset shows that others can be read.
    """
    broken = _most(landed, "broken_lines")
    lone = broken == 1 and run.plan().up_to_date
    if broken and not lone and not _most(landed, "read_lines"):
        return StopReason.UNREADABLE_BATCH
    return StopReason.NO_USABLE_ANSWER if _most(landed, "answered") >= MANY else None


def _most(landed: Landed, counted: str) -> int:
    """Return what commits count, of the round in which it is most.

    Mostly it is the first one. Rows that never ran, or met trouble of the account, come later.
    """
    rounds = defaultdict[int, int](int)
    for chunk, commit in landed:
        rounds[chunk.round] += commit.get(counted, 0)
    return max(rounds.values(), default=0)


def _unreadable(run: RunContext, landed: Landed) -> str:
    at_once = [pair for pair in landed if pair[1].get("unreadable_batch")]
    chunk, commit = next(iter([*at_once, *landed]), (None, dict[str, Any]()))
    batch = "a batch" if chunk is None else f"batch {chunk.batch_id}"
    return (
        f"no line of the results of {batch} can be read; they begin with "
        f"{commit.get('begins') or 'nothing'!r}{_most_frequent(landed)}; nothing more is sent, "
        f"new rows included, until {_remedy(run)}."
    )


def _no_usable_answer(run: RunContext, landed: Landed) -> str:
    answered = _most(landed, "answered")
    cost = f", which cost {dollars(run.ledger.money(run.run_id)[0])}" if run.priced else ""
    return (
        f"none of the {answered:,} rows that were answered has a usable answer{cost}"
        f"{_most_frequent(landed)}; nothing more is sent, new rows included, until {_remedy(run)}."
    )


def _most_frequent(landed: Landed) -> str:
    """Return the most frequent errors as a part of a sentence."""
    errors = frequent_errors((commit for _, commit in landed), _ERRORS)
    texts = [f"{count:,} x {printable(text).rstrip('.')}" for text, count in errors.items()]
    return f" (most frequent: {'; '.join(texts)})" if texts else ""


def _remedy(run: RunContext) -> str:
    if isinstance(run.spec, JobsSpec):
        return f"the jobs are changed or sent again with {retried_by(run.spec)}"
    return f"the spec is changed or {retried_by(run.spec)} is given"


def _account_trouble(run: RunContext, landed: Landed) -> str:
    newest = _newest_trouble(landed)
    rows = pluralize(newest.get("account", 0), "row of a batch", "rows of a batch")
    message = (
        f"the account: {said(newest.get('account_error'))} (so the provider answered {rows}); "
        "nothing more is sent. Mend the account (credit, billing, quota, permissions), or ask its "
        "administrator: the same command then sends these rows, whose attempts are not used up."
    )
    if not _is_of_single_rows(run, landed):
        return message
    what, remedy = "rows", "take them out of the source, or change them"
    if isinstance(run.spec, JobsSpec):
        what, remedy = "jobs", "leave them out, or change them"
    return (
        f"{message} Other {what} were answered well, so it may concern these {what} alone (their "
        f"error shows which): then {remedy}."
    )


def _is_of_single_rows(run: RunContext, landed: Landed) -> bool:
    """Whether trouble of the account may be about what single rows ask for.

    So it may be if something is not permitted, and other rows were answered well. Such a run is
    done once it has sent all that it planned: new rows go on in the next one.
    """
    if not _PERMISSION.search(said(_newest_trouble(landed).get("account_error"))):
        return False
    answered = any(commit.get("outcomes", {}).get(Outcome.SUCCEEDED) for _, commit in landed)
    return answered or bool(run.plan().up_to_date)


def _newest_trouble(landed: Landed) -> dict[str, Any]:
    """Return the commit of the batch that met trouble of the account last; empty if none did."""
    return max(
        (commit for _, commit in landed if commit.get("account")),
        key=lambda commit: commit["enriched_at_us"],
        default=dict[str, Any](),
    )
