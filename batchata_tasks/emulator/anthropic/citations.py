"""Citations in Anthropic answers: each document that allows it is cited once, correctly."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator.answers.pdf import page_count, page_text
from batchata_tasks.emulator.answers.schema_values import Draw
from batchata_tasks.emulator.answers.schemas import as_object
from batchata_tasks.emulator.answers.tokens import blocks_of

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*\s*")


def content_blocks(params: JSON, text: str) -> list[JSON]:
    """Return the answer as content blocks; their texts joined are `text`."""
    if not text:
        return []
    citations = _citations(params)
    if not citations:
        return [{"type": "text", "text": text}]
    lead, mark, claim = text.partition(": ")
    if not claim:
        return [{"citations": citations, "type": "text", "text": text}]
    return [
        {"type": "text", "text": lead + mark},
        {"citations": citations, "type": "text", "text": claim},
    ]


def _citations(params: JSON) -> list[JSON]:
    documents = [
        block for block in blocks_of(params.get("messages")) if block.get("type") == "document"
    ]
    citations: list[JSON] = []
    for index, document in enumerate(documents):
        if as_object(document.get("citations")).get("enabled") is True:
            cited = _location(as_object(document.get("source")))
            title = {"document_index": index, "document_title": document.get("title")}
            citations.append({**cited, **title, "file_id": None})
    return citations


def _location(source: JSON) -> JSON:
    data = str(source.get("data") or source.get("content") or "")
    draw = Draw(blake2b(data.encode(), digest_size=16).digest())
    if source.get("type") == "base64":
        return _page(data, draw)
    if source.get("type") == "content" and isinstance(source.get("content"), list):
        return _block(source["content"], draw)
    start, end = _sentence(data, draw)
    return {
        "type": "char_location",
        "cited_text": data[start:end],
        "start_char_index": start,
        "end_char_index": end,
    }


def _page(encoded: str, draw: Draw) -> JSON:
    page = 1 + draw.below(page_count(encoded))
    text = page_text(encoded, page)
    start, end = _sentence(text, draw)
    return {
        "type": "page_location",
        "cited_text": text[start:end],
        "start_page_number": page,
        "end_page_number": page + 1,
    }


def _block(blocks: list[Any], draw: Draw) -> JSON:
    position = draw.below(max(1, len(blocks)))
    block = as_object(blocks[position]) if blocks else {}
    return {
        "type": "content_block_location",
        "cited_text": str(block.get("text", "")),
        "start_block_index": position,
        "end_block_index": position + 1,
    }


def _sentence(text: str, draw: Draw) -> tuple[int, int]:
    sentences = [match.span() for match in _SENTENCE.finditer(text) if match[0].strip()]
    return sentences[draw.below(len(sentences))] if sentences else (0, 0)
