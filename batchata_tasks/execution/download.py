"""Downloads the results of a batch that has ended."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import TransientError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.context import retry_transient
from batchata_tasks.execution.poll import look_once
from batchata_tasks.providers import is_results, lines_with

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.providers import BatchLook

_NO_LINES = 10  # times the set patience


def downloaded(context: BatchContext, chunk: Chunk, look: BatchLook) -> list[Path]:
    """Return the response files, fetching them unless an earlier try has them all."""
    record = context.folder.responses / f"{chunk.id}.json"
    known = read_json(record)
    paths = [context.folder.responses / name for name in known["files"]] if known else []
    if known is None or not all(path.exists() for path in paths):
        paths = _fetched(context, chunk, look)
        write_json(
            record,
            {"batch_id": look.batch_id, "status": look.status, "files": [p.name for p in paths]},
        )
    return paths


def _fetched(context: BatchContext, chunk: Chunk, look: BatchLook) -> list[Path]:
    """Download the results; again, for a while, where they hold fewer lines than the batch says.

    Raises:
        TransientError: what came is not the provider's, but a page of some proxy.
    """
    folder, patience, began, wait = (
        context.folder.responses,
        context.settings.patience,
        time.monotonic(),
        0.5,
    )
    while True:
        paths = _download(context, look, folder, chunk.id)
        if paths is None:
            context.log(f"batch {look.batch_id}: the provider does not keep its results any more.")
            return []
        lines, expected = (
            sum(lines_with(path, chunk.id) for path in paths),
            0 if look.error is not None else look.done or 0,
        )
        if lines >= expected:
            return paths
        text = f"batch {look.batch_id}: the results hold {pluralize(lines, 'line')} for {pluralize(expected, 'request')}."
        # a file that is named late has none; a page of a proxy has none either
        if time.monotonic() + wait > began + patience * (1 if lines else _NO_LINES):
            if not all(is_results(path) for path in paths):
                raise TransientError(text)
            return paths
        context.log(f"{text} Downloading them again.")
        context.sleep(wait)
        wait = min(wait * 2, context.provider.poll_seconds[1])
        look = look_once(context, look.batch_id)


def _download(context: BatchContext, look: BatchLook, folder: Path, stem: str) -> list[Path] | None:
    """Download what there is; None where the provider has nothing any more.

    Results that exist were seen to answer 404 for a while, so they are gone only when they are old,
    or answer it for as long as a batch would be looked for.
    """
    try:
        return retry_transient(
            context,
            lambda: context.provider.download(look, folder, stem),
            times=0 if look.gone else _NO_LINES,
        )
    except TransientError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None
