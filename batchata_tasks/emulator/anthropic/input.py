"""Reading the body of a create call, of up to 256 MB, without holding all of it parsed in memory.

A body is cut where one entry of `requests` ends and the next begins, and each piece is parsed on
its own. A body with another layout, or with any error, is parsed as a whole: slower, but with the
right error message.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.anthropic.rules import check_item
from batchata_tasks.emulator.core.batches import Requests
from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.core.spool import Sealed, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator.answers.schemas import JSON

_HEAD = re.compile(rb'\s*\{\s*"requests"\s*:\s*\[\s*(?=\{)')
_BETWEEN = re.compile(rb'\}\s*,\s*(?=\{\s*"custom_id"\s*:)')
_TAIL = re.compile(rb"\s*\]\s*\}\s*\Z")
_TAIL_LENGTH = 64
_STEP = 1_000  # entries that are read before other calls get their turn


async def read_requests(body: Sealed, most: int) -> Requests:
    """Return the requests of a create call; the first bad entry refuses all of it."""
    requests = await _read_pieces(body, most)
    return await _read_whole(body, most) if requests is None else requests


async def _read_pieces(body: Sealed, most: int) -> Requests | None:
    requests, seen = Requests(content=body), set[str]()
    for start, end in _pieces(body):
        try:
            entry: Any = orjson.loads(body[start:end])
        except orjson.JSONDecodeError:
            return None
        if len(seen) >= most or check_item(len(seen), entry, seen) is not None:
            return None
        _add(requests, cast("JSON", entry), start, end, seen)
        if len(seen) % _STEP == 0:
            await asyncio.sleep(0)
    return requests if seen else None


def _pieces(body: Sealed) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the entries, if the body has the usual layout."""
    head = _HEAD.match(body)
    reach = max(0, len(body) - _TAIL_LENGTH)
    tail = _TAIL.search(body[reach:])
    if head is None or tail is None:
        return
    start = head.end()
    for between in _BETWEEN.finditer(body):
        yield start, between.start() + 1
        start = between.end()
    yield start, reach + tail.start()


def _add(requests: Requests, entry: JSON, start: int, end: int, seen: set[str]) -> None:
    custom_id: str = entry["custom_id"]
    seen.add(custom_id)
    canonical = orjson.dumps(entry["params"], option=orjson.OPT_SORT_KEYS)
    requests.add(custom_id, start, end, blake2b(canonical, digest_size=16).digest())


async def _read_whole(body: Sealed, most: int) -> Requests:
    entries = _entries(parse(body[:]), most)
    requests, spool, seen = Requests(), Spool(), set[str]()
    for index, entry in enumerate(entries):
        problem = check_item(index, entry, seen)
        if problem is not None:
            raise ApiError(400, problem)
        start = spool.size
        spool.write(orjson.dumps(entry))
        _add(requests, entry, start, spool.size, seen)
        if index % _STEP == 0:
            await asyncio.sleep(0)
    requests.content = spool.seal()
    return requests


def _entries(given: Any, most: int) -> list[Any]:
    problem = _body_problem(given)
    if problem is not None:
        raise ApiError(400, problem)
    entries: list[Any] = given["requests"]
    size = len(entries)
    if 1 <= size <= most:
        return entries
    bound = f"at most {most} items" if size else "at least 1 item"
    raise ApiError(400, f"requests: List should have {bound} after validation, not {size}")


def _body_problem(given: Any) -> str | None:
    if not isinstance(given, dict):
        return "Input should be a valid dictionary"
    body = cast("JSON", given)
    extra = next((name for name in body if name != "requests"), None)
    if extra is not None:
        return f"{extra}: Extra inputs are not permitted"
    if "requests" not in body:
        return "requests: Field required"
    return None if isinstance(body["requests"], list) else "requests: Input should be a valid list"


def parse(body: bytes | bytearray) -> Any:
    """Parse a body, or refuse it."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from error
