"""Lines of results: read one by one, and classified, however broken they are."""

from __future__ import annotations

import os
import re
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.providers.keys import masked
from batchata_tasks.providers.result_json import count_of, excerpt_of, parsed
from batchata_tasks.types.answer import Answer
from batchata_tasks.types.ids import ROW_ID_CHARS, is_custom_id
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from batchata_tasks.providers.base import BatchLook

__all__ = [
    "breaks_off",
    "count_of",
    "custom_id_of",
    "first_custom_id",
    "is_results",
    "lines_of",
    "never_ran",
    "plain_custom_id",
    "read_line",
    "read_lines",
    "rows_named",
    "unread",
    "without_line",
]
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
_NAMED = rb'"%%b-([a-z0-9]{%d})"' % ROW_ID_CHARS
_EXCERPT = 200  # characters of what came instead of an answer
# what reading a line as a plain one raises if it is none, or no JSON
_OTHER_SHAPE = (LookupError, TypeError, ValueError, AttributeError)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a results file; they end at newline bytes alone, never at U+2028."""
    with path.open("rb") as stream:
        for line in stream:
            if not line.isspace():
                yield line


def breaks_off(path: Path) -> bool:
    """Whether a results file ends in the middle of a line, so that more was to come."""
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(end - 1, 0))
        if stream.read(1) in (b"", b"\n"):
            return False
    (last,) = deque(lines_of(path), maxlen=1) or [b"{}"]
    try:
        return not isinstance(parsed(last), dict)
    except ValueError:
        return True


def lines_of_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a download while it comes in."""
    begun = list[bytes]()  # put together once: a line may be long, or have no end
    for block in blocks:
        first, *others = block.split(b"\n")
        begun.append(first)
        for line in others:
            yield b"".join(begun)
            begun = [line]
    yield b"".join(begun)


def rows_named(paths: Iterable[Path], token: str) -> int:
    """Count the rows of a chunk whose whole custom_id stands in a line of its results files.

    A last line that was cut off does not count. A maintenance page that a proxy sent instead of
    results has no such line.
    """
    name, rows = re.compile(_NAMED % token.encode(), re.IGNORECASE), set[bytes]()
    for line in chain.from_iterable(map(lines_of, paths)):
        found = name.search(line)
        if found is not None and (line.endswith(b"\n") or _is_json(line)):
            rows.add(found[1].lower())
    return len(rows)


def is_results(path: Path) -> bool:
    """Whether a file can be a provider's results: it is empty, or some line of it is JSON."""
    lines = lines_of(path)
    return (first := next(lines, None)) is None or _is_json(first) or any(map(_is_json, lines))


def _is_json(line: bytes) -> bool:
    try:
        parsed(line)
    except ValueError:
        return False
    return True


def read_line(line: bytes, classify: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Classify one line; a broken one keeps its custom_id if that can be read."""
    try:
        answer = classify(parsed(line))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        name = _CUSTOM_ID.search(line)
        start = masked(line[: 2 * _EXCERPT].decode(errors="replace"))[:_EXCERPT]
        text = f"a broken result line ({type(error).__name__}: {error}): {start}"
        answer = Answer(
            name[1].decode() if name else "",
            Outcome.ERRORED,
            error=describe(ErrorCode.PROVIDER, text),
            readable=False,
        )
    # a provider may quote a key in its error, and errors go into the dataset
    return answer if answer.error is None else answer._replace(error=masked(answer.error))


def read_lines(
    lines: Iterable[bytes],
    plain: Callable[[Any, dict[str, str | None]], Answer | None],
    classify: Callable[[dict[str, Any]], Answer],
) -> Iterator[Answer]:
    """Classify the lines of one file as `read_line` does, whose plain ones `plain` reads at once.

    It is given the names of models that it has read; of all other lines it returns None, or raises
    an error of _OTHER_SHAPE.
    """
    models: dict[str, str | None] = {}
    for line in lines:
        try:
            answer = plain(orjson.loads(line), models)
        except _OTHER_SHAPE:
            answer = None
        yield answer or read_line(line, classify)


def custom_id_of(line: dict[str, Any]) -> str:
    """Return the custom_id of a line; one of ours in lower case, since some servers change that.

    Raises:
        TypeError: it has none.
    """
    name = line["custom_id"]
    if not isinstance(name, str | int) or isinstance(name, bool):
        message = f"{name!r:.50} is not a custom_id"
        raise TypeError(message)
    ours = str(name).lower()
    return ours if is_custom_id(ours) else str(name)


def plain_custom_id(line: dict[str, Any]) -> str:
    """Return what `custom_id_of` does, sooner if the name is in lower case already."""
    name = line["custom_id"]
    return name if type(name) is str and name == name.lower() else custom_id_of(line)


def unread(custom_id: str, what: str, came: object) -> Answer:
    """Return the answer of a line that tells neither an answer nor an error: its cost is unknown.

    `came` is what stands where they should.
    """
    start = masked(excerpt_of(came, 2 * _EXCERPT))[:_EXCERPT]
    text = f"the result line has no answer and no error ({what}): {start}"
    error = describe(ErrorCode.PROVIDER, text)
    return Answer(custom_id, Outcome.ERRORED, error=error, readable=False)


def never_ran(custom_id: str, outcome: Outcome, why: str) -> Answer:
    """Return the answer of a request that the provider never ran."""
    return Answer(custom_id, outcome, error=describe(ErrorCode.NEVER_RAN, why))


def without_line(look: BatchLook, lines: int) -> tuple[dict[int, Answer], Answer]:
    """Return how requests without a result line ended, by what their ended batch says of itself.

    The first value holds those that the batch names, by their position from 0 in the request file;
    the second is for all others, without a custom_id. `lines` counts the result lines that there
    are: if a batch was stopped and each request that ran has a line, the others never ran.
    """
    # without counts nobody knows how many ran, and were paid for
    if look.stopped is not None and look.done is not None and lines >= look.done and not look.gone:
        return {}, never_ran("", look.stopped, f"the batch was {look.status} first")
    if not look.refused:
        text = f"the provider returned no line for it (batch {look.status})"
        error = describe(ErrorCode.PROVIDER, text)
        return {}, Answer("", Outcome.MISSING, error=error, readable=False)
    refused = {
        number - 1: Answer("", Outcome.ERRORED, error=describe(ErrorCode.REQUEST, masked(why)))
        for number, why in look.bad_lines.items()
    }
    text = masked(f"the batch failed as a whole: {look.error}")
    return refused, never_ran("", Outcome.CANCELED, text)


def first_custom_id(lines: Iterable[bytes]) -> str | None:
    """Return the first custom_id that can be read, or None if no line has one."""
    for line in lines:
        try:
            name = parsed(line)["custom_id"]
        except (ValueError, LookupError, TypeError):
            continue
        if isinstance(name, str):
            return name.lower()  # as ours are
    return None
