"""Token counts of the emulated models: derived from bytes, and never more than the bytes sent.

Four bytes of text are one token, and so is a character of three bytes, as in Japanese and Chinese;
each message adds four tokens. A PDF page and an image have a flat count, since their bytes do not
bound their tokens.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson

from batchata_tasks.emulator.answers.pdf import page_count
from batchata_tasks.emulator.answers.schemas import as_object, asked_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.emulator.answers.schemas import JSON

PER_MESSAGE = 4
PER_PDF_PAGE = 1_800
PER_IMAGE = 1_200
PER_REMOTE_FILE = 1_800
_PER_TOKEN = 4
_THREE_BYTES = bytes(range(0xE0, 0xF0))
"""The first bytes of characters that have three of them in UTF-8."""


def text_tokens(text: str) -> int:
    """Count the tokens of a text."""
    return -(-_quarters(text) // _PER_TOKEN)


def cut(text: str, tokens: int) -> str:
    """Return the longest beginning of a text with at most `tokens` tokens."""
    most = _PER_TOKEN * tokens
    if _quarters(text) <= most:
        return text
    if text.isascii():
        return text[:most]
    return text[: sum(weight <= most for weight in accumulate(map(_quarters, text)))]


def _quarters(text: str) -> int:
    """Return the quarters of tokens of a text: one per byte, four per three-byte character."""
    encoded = text.encode()
    if len(encoded) == len(text):
        return len(encoded)
    return 2 * len(encoded) - len(encoded.translate(None, delete=_THREE_BYTES))


def input_tokens(body: JSON) -> int:
    """Count the input tokens of a request body of either provider."""
    messages = body.get("messages", body.get("input"))
    count = len(cast("list[Any]", messages)) if isinstance(messages, list) else 1
    texts, flat = _weight(messages)
    for field in ("system", "instructions"):
        if field in body:
            more, extra = _weight(body[field])
            texts, flat = texts + more, flat + extra
    for part in (asked_for(body), body.get("tools"), body.get("functions")):
        if part:
            texts += len(orjson.dumps(part))
    return PER_MESSAGE * count + -(-texts // _PER_TOKEN) + flat


def blocks_of(messages: Any) -> Iterator[JSON]:
    """Yield the content blocks of all messages; plain text counts as a text block."""
    if isinstance(messages, str):
        yield {"type": "text", "text": messages}
    elif isinstance(messages, list):
        for item in cast("list[Any]", messages):
            yield from blocks_of(item)
    elif isinstance(messages, dict):
        message = cast("JSON", messages)
        if "role" in message or message.get("type") == "tool_result":
            yield from blocks_of(message.get("content"))
        else:
            yield message


def _weight(content: Any) -> tuple[int, int]:
    """Return (quarters of tokens of texts, flat tokens) of a message list or content."""
    if isinstance(content, str):
        return _quarters(content), 0
    texts = flat = 0
    for item in cast("list[Any]", content) if isinstance(content, list) else [content]:
        # Fast path: nearly all messages are plain text, and there may be 100,000 of them.
        text: Any = cast("JSON", item).get("content") if isinstance(item, dict) else item
        if isinstance(text, str):
            texts += _quarters(text)
            continue
        for block in blocks_of(item):
            more, extra = _block_weight(block)
            texts, flat = texts + more, flat + extra
    return texts, flat


def _block_weight(block: JSON) -> tuple[int, int]:
    text = block.get("text")
    if isinstance(text, str):
        return _quarters(text), 0
    kind = block.get("type")
    if kind == "document":
        return _document_weight(block)
    if kind in ("image", "image_url", "input_image"):
        return 0, PER_IMAGE
    if kind in ("file", "input_file"):
        encoded = as_object(block.get("file", block)).get("file_data")
        if isinstance(encoded, str):
            return 0, PER_PDF_PAGE * page_count(encoded.rpartition(",")[2])
        return 0, PER_REMOTE_FILE
    return len(orjson.dumps(block)), 0


def _document_weight(block: JSON) -> tuple[int, int]:
    titles = sum(_quarters(str(block.get(field) or "")) for field in ("title", "context"))
    source = as_object(block.get("source"))
    if source.get("type") == "text":
        return titles + _quarters(str(source.get("data", ""))), 0
    if source.get("type") == "base64":
        return titles, PER_PDF_PAGE * page_count(str(source.get("data", "")))
    if source.get("type") == "content":
        texts, flat = _weight(source.get("content"))
        return titles + texts, flat
    return titles, PER_REMOTE_FILE


class Cached(NamedTuple):
    """Input tokens of one answer that went through a cache; none of them counts as plain input."""

    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
