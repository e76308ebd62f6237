"""Reading the input of OpenAI clients: multipart uploads, and the input files of batches."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.core.batches import Requests
from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.core.spool import lines
from batchata_tasks.emulator.openai.rules import NOT_JSON, LineError, check_line

if TYPE_CHECKING:
    from batchata_tasks.emulator.core.faults import Faults
    from batchata_tasks.emulator.core.spool import Sealed

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILENAME = re.compile(rb'filename="([^"]*)"')
_STEP = 1_000  # lines that are checked before other calls get their turn
_MOST_ERRORS = 1_000


@dataclass(frozen=True)
class Part:
    """One part of a multipart body."""

    filename: str | None
    start: int
    end: int


def multipart(body: Sealed, content_type: str) -> dict[str, Part]:
    """Find the parts of a multipart body, by name, without copying them."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise ApiError(400, "Missing multipart boundary.")
    mark = b"--" + boundary[1].encode()
    parts: dict[str, Part] = {}
    position = body.find(mark)
    while position >= 0:
        head = position + len(mark) + 2
        split = body.find(b"\r\n\r\n", head)
        following = body.find(b"\r\n" + mark, split)
        if split < 0 or following < 0:
            break
        headers = body[head:split]
        name, filename = _NAME.search(headers), _FILENAME.search(headers)
        if name is not None:
            shown = None if filename is None else filename[1].decode(errors="replace")
            parts[name[1].decode(errors="replace")] = Part(shown, split + 4, following)
        position = following + 2
    return parts


@dataclass
class Validated:
    """A batch's input after validation."""

    requests: Requests
    errors: list[tuple[LineError, int | None]]
    model: str | None = None


async def validate(content: Sealed, endpoint: str, most: int, faults: Faults) -> Validated:
    """Check an input file line by line, as OpenAI does after a batch was created."""
    read = Validated(Requests(content=content), [])
    seen: set[str] = set()
    for number, (start, end) in enumerate(lines(content, 0, len(content)), start=1):
        problem = _read_line(content[start:end], (start, end), endpoint, seen, read, faults)
        if problem is not None and len(read.errors) < _MOST_ERRORS:
            read.errors.append((problem, number))
        if number % _STEP == 0:
            await asyncio.sleep(0)
    size = len(seen)
    if not read.errors and size == 0:
        read.errors.append((LineError("empty_file", "The input file is empty.", None), None))
    if size > most:
        message = f"The batch has {size} requests; the maximum is {most}."
        read.errors.append((LineError("too_many_tasks", message, None), None))
    return read


def _read_line(
    raw: bytes,
    bounds: tuple[int, int],
    endpoint: str,
    seen: set[str],
    read: Validated,
    faults: Faults,
) -> LineError | None:
    """Read one line into `read`, or return why it fails the batch."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return NOT_JSON
    problem = check_line(line, endpoint, seen, read.model)
    if problem is not None:
        return problem
    rule = faults.for_line("openai", line["body"])
    if rule is not None:
        message = rule.message or "The request of this line is not acceptable."
        return LineError(rule.error_code or "invalid_request", message, "body.messages")
    custom_id: str = line["custom_id"]
    seen.add(custom_id)
    read.model = line["body"]["model"]
    canonical = orjson.dumps(line["body"], option=orjson.OPT_SORT_KEYS)
    read.requests.add(custom_id, *bounds, blake2b(canonical, digest_size=16).digest())
    return None
