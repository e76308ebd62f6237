"""Lines of results: read one by one, and classified, however broken they are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.providers.keys import masked
from batchata_tasks.types.answer import Answer
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a results file; they end at newline bytes alone, never at U+2028."""
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                yield line


def lines_with(path: Path, token: str) -> int:
    """Count the lines of a results file that name a custom_id of a chunk; a last one cut off does not count.

    A maintenance page that a proxy sent instead of results has none.
    """
    mark, count = f'"{token}-'.encode(), 0
    for line in lines_of(path):
        count += mark in line and (line.endswith(b"\n") or _is_json(line))
    return count


def is_results(path: Path) -> bool:
    """Whether a file can be a provider's results: it is empty, or some line of it is JSON."""
    lines = lines_of(path)
    return (first := next(lines, None)) is None or _is_json(first) or any(map(_is_json, lines))


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


def read_line(line: bytes, classify: Callable[[dict[str, Any]], Answer]) -> Answer:
    """Classify one line; a broken one keeps its custom_id where that can be read."""
    try:
        answer = classify(orjson.loads(line))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        found = _CUSTOM_ID.search(line)
        text = f"a broken result line ({type(error).__name__}: {error})"
        broken = describe(ErrorCode.PROVIDER, text)
        answer = Answer(
            found[1].decode() if found else "", Outcome.ERRORED, error=broken, readable=False
        )
    # a provider may quote a key in its error, and errors go into the dataset
    return answer if answer.error is None else replace(answer, error=masked(answer.error))


def first_custom_id(lines: Iterable[bytes]) -> str | None:
    """Return the first custom_id that can be read, or None where no line has one."""
    for line in lines:
        try:
            found = orjson.loads(line)
            if isinstance(found["custom_id"], str):
                return found["custom_id"]
        except (ValueError, LookupError, TypeError):
            continue
    return None


def joined(parts: Iterable[str]) -> str | None:
    """Return texts as one, None where there are none."""
    found = list(parts)
    return "".join(found) if found else None


_MOST_TOKENS = 2**40


def count_of(value: object) -> int:
    """Return a number of tokens or calls as a provider states it; absent means none.

    Raises:
        ValueError: it is no count.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_TOKENS:
        message = f"{value!r:.50} is no number of tokens"
        raise ValueError(message)
    return value


def text_of(value: object) -> str | None:
    """Return a text of a provider's answer, or None where there is none.

    Raises:
        TypeError, ValueError: it is no text, or one that is no Unicode.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"{value!r:.50} is no text"
        raise TypeError(message)
    value.encode()
    return value
