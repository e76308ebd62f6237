"""Downloads the results of a batch that has ended."""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import CredentialsError, TerminalError, TransientError
from batchata_tasks.common.files import write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.dataset.packs import kept_json
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.forgotten import drop_forgotten
from batchata_tasks.execution.look import deleted, is_old, look_once, was_deleted
from batchata_tasks.execution.overdue import lands_in_part
from batchata_tasks.execution.priced import Priced
from batchata_tasks.ledger import ChunkState
from batchata_tasks.providers import breaks_off, lines_of, rows_named
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.providers import BatchLook

_AWAITED = (ChunkState.SUBMITTED, ChunkState.OVERDUE)
_FIRST_PAUSE = 0.5  # seconds before results that are not whole are downloaded again; then longer
_NO_LINES = 10  # times BATCHATA_PATIENCE, if results have no line at all, or lack many
_FEW = 2


class NoResultsError(TransientError):
    """A batch has ended, and its results cannot be had, although they are too new to be gone."""


def downloaded(
    context: BatchContext, chunk: Chunk, look: BatchLook
) -> tuple[BatchLook, list[Path]]:
    """Return the response files, downloading them unless an earlier attempt got them all.

    The status of the batch comes with them: while results are waited for it may change.

    Raises:
        NoResultsError: they cannot be had, and nobody can say that they are gone.
        TransientError: the provider does not answer, or says that the batch goes on.
    """
    folder = context.folder.responses
    record_path = folder / f"{chunk.id}.json"
    if (record := kept_json(record_path)) is not None:
        paths = [folder / name for name in record["files"]]
        context.run.held.packing.unpack(paths)
        if all(path.exists() for path in paths):
            return look, paths
    look, paths = _download_all(context, chunk, look)
    drop_forgotten(context.folder, context.ledger, chunk.id, paths)
    names = [path.name for path in paths]
    record = {"batch_id": look.batch_id, "status": look.status, "files": names}
    write_json(record_path, record)
    return look, paths


def _download_all(
    context: BatchContext, chunk: Chunk, look: BatchLook
) -> tuple[BatchLook, list[Path]]:
    """Download the results; again, for a while, if they hold fewer lines than the batch says."""
    began, wait = time.monotonic(), _FIRST_PAUSE
    while True:
        _require_kept(context, chunk, look)
        try:
            paths, are_all = _download(context, chunk, look)
        except NoResultsError:
            # if nothing can be had of the provider, this raises: it is not about the results
            _require_end(look_once(context, look.batch_id, context.settings.patience))
            raise
        if paths is None:
            context.log(f"batch {look.batch_id}: the provider no longer keeps its results.")
            return look, []
        lines = rows_named(paths, chunk.id)
        expected = _expected(context, look, chunk)
        if lines >= expected:
            return look, paths
        text = (
            f"batch {look.batch_id}: the results hold {pluralize(lines, 'line')} "
            f"for {pluralize(expected, 'request')}."
        )
        # a file that is named late has none, and one that is cut a part; a request or two are lost
        few_are_lost = lines and expected - lines <= max(_FEW, expected // 100)
        few_are_lost = few_are_lost and not any(map(breaks_off, paths))
        patience = context.settings.patience * (1 if few_are_lost else _NO_LINES)
        if chunk.state == ChunkState.OVERDUE or not are_all:  # all patience was used up
            patience = 0.0
        if time.monotonic() + wait > began + patience:
            _require_end(look)
            if not lines or (are_all and not few_are_lost):
                _require_most(context, look, chunk, paths, lines, expected)
            return look, paths
        again = "Downloading them" if paths else "Looking for them"
        context.log(f"{text} {again} again.")
        context.sleep(wait)
        wait = min(wait * 2, context.provider.poll_seconds[1])
        look = look_once(context, look.batch_id)


def _require_kept(context: BatchContext, chunk: Chunk, look: BatchLook) -> None:
    """Refuse that results are gone sooner than the provider deletes them by itself.

    Somebody deleted them, or a server lost them. The batch may have been paid for: whether its rows
    are to be paid for again, a person decides.

    Raises:
        NoResultsError: the batch was awaited.
    """
    if chunk.state in _AWAITED and was_deleted(context, look):
        raise NoResultsError(deleted(look.batch_id))


def _require_most(
    context: BatchContext,
    look: BatchLook,
    chunk: Chunk,
    paths: list[Path],
    lines: int,
    expected: int,
) -> None:
    """Refuse results that lack many lines, unless a person gave the other rows up.

    These may have been paid for: a provider loses a request or two. Of a batch that was stopped,
    and does not say how many requests ran, nobody knows how many lines there should be.

    Raises:
        NoResultsError: the batch is awaited.
        TransientError: it landed before.
    """
    landed = chunk.state not in _AWAITED
    if lines and look.stopped is not None and look.done is None:
        return
    if (lines or landed) and lands_in_part(context.folder, chunk):
        return
    of = f"{pluralize(lines, 'line')} for {pluralize(expected, 'request')}"
    if landed:
        raise _landed_before(look, of)
    why = "" if look.error is None else f" ({look.error.rstrip('.')})"
    problem = f"its results hold {of} (giving it up lands these)" if lines else _none(paths)
    message = f"batch {look.batch_id} has ended{why}, and {problem}."
    raise NoResultsError(message)


def _none(paths: list[Path]) -> str:
    """Say why results have no line of their batch: a page, an error in JSON, others' lines."""
    if not paths:
        return "names no results"
    if any(any(lines_of(path)) for path in paths):
        return "its results name none of its requests"
    return "its results are empty"


def _landed_before(look: BatchLook, of: str) -> TransientError:
    """Return the error that says that results of lost rows are not whole any more."""
    return TransientError(
        f"batch {look.batch_id} landed before, and its results hold {of} now; nothing is sent for "
        "the others. Start the run again later, or restore the dataset's files from a copy "
        f"(`batchata reconcile --abandon {look.batch_id}` gives them up: they are paid for again)."
    )


def _require_end(look: BatchLook) -> None:
    """Raise TransientError unless a batch that had ended still has."""
    if not look.ended:  # one of several servers told of an end that was none
        message = f"batch {look.batch_id} had ended and has not: {look.status!r:.60}."
        raise TransientError(message)


def _expected(context: BatchContext, look: BatchLook, chunk: Chunk) -> int:
    """Return how many lines the results of a batch hold at least.

    Each request of a batch that was neither stopped nor refused has one, whatever the counts say
    (yet), and so has one of a batch that was seen to end and now has not. Those that a stopped
    batch did not run have none at some providers. A batch that landed before has the lines that it
    had then.
    """
    if look.gone or look.refused:
        return 0
    some_ran = look.ended and look.stopped is not None
    expected = look.done if some_ran and look.done is not None else chunk.rows
    if chunk.state in _AWAITED:
        return expected
    totals = context.ledger.outcomes(chunk.run_id, [chunk.id])
    without = (Outcome.MISSING, Outcome.EXPIRED, Outcome.CANCELED)
    had = sum(max(total.rows, 0) for name, total in totals.items() if Outcome(name) not in without)
    return min(expected, had)


def _download(
    context: BatchContext, chunk: Chunk, look: BatchLook
) -> tuple[list[Path] | None, bool]:
    """Download the result files; return None if the provider has them no more.

    The second value says whether these are all: the answers land, too, if only the file of errors
    cannot be had.

    Results that exist were seen to answer 404 for a while. If that lasts they are gone if they are
    old, or were downloaded and settled before.

    Raises:
        NoResultsError: they are neither.
        TransientError, TerminalError, CredentialsError: likewise, of a batch that landed before.
    """
    times, sent = _NO_LINES, replace(look, requests=chunk.rows)  # whatever the server counts
    is_gone = look.gone or is_old(context, look)
    if look.gone:
        times = 0
    elif is_gone or chunk.state == ChunkState.OVERDUE:  # earlier runs were patient
        times = 1
    try:
        paths = retry_transient(
            context,
            lambda: context.provider.download(sent, context.folder.responses, chunk.id),
            times=times,
        )
    except (TransientError, TerminalError, CredentialsError) as error:
        if is_gone or chunk.state not in _AWAITED:
            if isinstance(error, TransientError) and error.status == HTTPStatus.NOT_FOUND:
                return None, True
            raise
        if answers := _answers_alone(context, chunk, look, error):
            return answers, False
        message = f"{error} Batch {look.batch_id} has ended, and its results cannot be had."
        raise NoResultsError(message) from error
    return paths, True


def _answers_alone(
    context: BatchContext,
    chunk: Chunk,
    look: BatchLook,
    error: TransientError | TerminalError | CredentialsError,
) -> list[Path]:
    """Download the file of answers, if that of errors is not found, or refused in later runs too.

    Its answers are paid for; the rows without a line are handled like any that a file lacks.
    """
    is_not_found = isinstance(error, TransientError) and error.status == HTTPStatus.NOT_FOUND
    is_refused = not isinstance(error, TransientError) and chunk.state == ChunkState.OVERDUE
    if look.answers is None or not (is_not_found or is_refused):
        return []
    alone = replace(look, files=(look.answers,))
    try:
        paths = context.provider.download(alone, context.folder.responses, chunk.id)
    except (TransientError, TerminalError, CredentialsError):
        return []
    context.log(f"{error} Batch {look.batch_id} lands without its file of errors.")
    return paths


def cost_of_answers(
    context: BatchContext, chunk: Chunk, paths: list[Path], rates: Rates
) -> int | None:
    """Return what the answers in response files cost (picodollars); None if they do not tell."""
    answers = list(chain.from_iterable(context.provider.answers(path) for path in paths))
    if not paths or not all(answer.readable for answer in answers):
        return None
    costs = dict[str, int]()
    for answer in answers:  # a line may come twice
        priced = Priced.of(answer.usage, rates, chunk.bound or 0)
        if priced.cost is None or not priced.believed:
            return None
        costs[answer.custom_id] = max(priced.cost, costs.get(answer.custom_id, 0))
    return sum(costs.values())
