"""Trouble that results tell of and that more of them would not mend: nothing more is sent.

What is at the provider by then lands. How the run ends is judged once all of it has landed
(`pipeline/trouble.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from batchata_tasks.common.text import printable
from batchata_tasks.ledger import StopReason
from batchata_tasks.providers.keys import masked
from batchata_tasks.providers.result_lines import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchata_tasks.execution.collect import Report
    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk

MANY = 20
"""So many rows tell of a whole table: fewer may be an accident."""
_START_CHARS = 200
# an id of a request, a number of tokens, a time: words that hold a digit
_VARIES = re.compile(r"[\w-]*\d[\w-]*")
# one broken line alone is no dialect; the run's end tells whether any line could be read
_LINES_OF_FIRST_ROUND = 2


def is_unreadable(chunk: Chunk, report: Report) -> bool:
    """Whether no line of a batch can be read, so that another batch would end the same way.

    After the first round a batch consists of rows that failed before, maybe by lines like these:
    a few of them say nothing about the others.
    """
    lines = _LINES_OF_FIRST_ROUND if chunk.round == 1 else MANY
    return not report.read_lines and report.broken_lines >= lines


def stop_for_trouble(context: BatchContext, chunk: Chunk, report: Report) -> None:
    """Stop the run's sending if a batch that lands cannot be read, or if the account has trouble.

    It is written before the batch counts as landed, so a crash does not lose it.
    """
    if is_unreadable(chunk, report):
        reason, text = StopReason.UNREADABLE_BATCH, "no line of its results can be read"
    elif report.account:
        reason, text = StopReason.ACCOUNT_TROUBLE, said(report.account_error)
    else:
        return
    context.ledger.stop_for_trouble(context.lease, chunk.run_id, reason)
    context.log(f"batch {chunk.batch_id}: {text}. Nothing more is sent.")


def grouped(errors: Iterable[tuple[str, int]]) -> Counter[str]:
    """Add up errors that differ in numbers and ids alone, under the text of the first."""
    texts, counts = dict[str, str](), Counter[str]()
    for text, count in errors:
        counts[texts.setdefault(_VARIES.sub("#", text), text)] += count
    return counts


def said(error: str | None) -> str:
    """Return what a provider said of an account, as it stands in a row's `_error`."""
    words = printable((error or "").partition(": ")[2])[:_START_CHARS].strip().rstrip(".")
    return words or "the account lacks something that the provider does not name"


def start_of(paths: Iterable[Path]) -> str:
    """Return the start of the first line of results, for people."""
    first = next((line for path in paths for line in lines_of(path)), b"")
    text = first[: 2 * _START_CHARS].decode(errors="replace")
    return masked(printable(text))[:_START_CHARS].strip()
