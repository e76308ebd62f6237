"""How a model's answer ended, and its text: read from the words and shapes that are about.

Servers that speak a provider's API have words of their own for the end of an answer, and write its
text as a text, as a list of parts, or as an object.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.providers.result_json import object_of
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_LETTER = re.compile("[^a-z]")
_FINISHED = frozenset(
    {
        *("stop", "stopped", "stopsequence", "stopsequences", "stoptoken", "stopword", "endturn"),
        *("eos", "eostoken", "eot", "eottoken", "endoftext", "endofsequence", "endofturn", "end"),
        *("eotid", "imend", "word", "stopstring"),
        *("complete", "completed", "done", "finish", "finished", "success", "succeeded"),
    }
)
_USUAL = frozenset({"stop", "end_turn", "completed"})
_CUT = re.compile("length|max.*len|max.*token|token.*limit|^limit$|contextwindow|incomplete")
# what some servers write before the word itself, as their enums are named
_ENUM = re.compile("^(finish|stop)?reason")
_REFUSED = re.compile(
    "contentfilter|safety|refus|moderation|guardrail|recitation|blocklist|blocked|prohibited|^spii$"
)
_TEXT_TYPES = ("text", "output_text")
_HOLDERS = ("text", "content", "value", "parts")
_DEPTH = 4


def ending_of(reason: object, text: str | None, cap: str) -> tuple[Outcome, str | None]:
    """Return how an answer ended, and the error that its row gets, by a server's word for it.

    An answer with a text and without a word for its end is a finished one. `cap` says what a cut
    answer was stopped by.
    """
    if isinstance(reason, str) and reason in _USUAL:  # nearly always
        return Outcome.SUCCEEDED, None
    reason = _word_in(reason)
    word = _ENUM.sub("", _NO_LETTER.sub("", str(reason or "").rpartition(".")[2].lower()))
    if word in _FINISHED or (not reason and text is not None):
        return Outcome.SUCCEEDED, None
    if not reason:
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, "the answer is empty")
    if _CUT.search(word):
        return Outcome.TRUNCATED, describe(ErrorCode.TRUNCATED, cap)
    if _REFUSED.search(word):
        return Outcome.REFUSED, describe(ErrorCode.REFUSED, f"stopped by {reason!r:.100}")
    why = f"stopped by {reason!r:.100}, which is not a finished answer"
    return Outcome.INVALID, describe(ErrorCode.RESPONSE, why)


def _word_in(reason: object) -> object:
    """Return the word for an end, also if a server writes it into an object or a list of one."""
    words = cast("list[object]", reason) if isinstance(reason, list) else [reason]
    if len(words) != 1:
        return words
    named = object_of(words[0])
    return next((named[name] for name in ("type", "reason") if named.get(name)), words[0])


def content_text(content: object, depth: int = _DEPTH) -> str | None:
    """Return the text of an answer's content: a text, parts of it, or JSON that a server read."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [_part_text(part, depth) for part in cast("list[object]", content)]
        texts = [part for part in parts if part is not None]
        return "".join(texts) if texts else None
    if isinstance(content, dict):
        part = cast("dict[str, Any]", content)
        alone = "type" in part or len(part) == 1
        return _part_text(part, depth) if alone else _as_json(part)
    return _as_json(content)


def last_text(content: object) -> str | None:
    """Return the text of a content's last part that says something, if there are several parts."""
    parts = cast("list[object]", content) if isinstance(content, list) else []
    texts = [text for part in parts if ((text := content_text([part])) or "").strip()]
    return texts[-1] if len(texts) > 1 else None


def _part_text(part: object, depth: int) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not depth:
        return None
    fields = cast("dict[str, Any]", part)
    if not is_text(fields):
        return None
    for name in _HOLDERS:
        if name in fields:
            return content_text(fields[name], depth - 1)
    return _as_json(fields) if fields and "type" not in fields else None


def is_text(part: dict[str, Any]) -> bool:
    """Whether a part of a content is text; its type may be absent, in capitals, or anything."""
    kind = part.get("type")
    return kind is None or str(kind).lower() in _TEXT_TYPES


def _as_json(value: object) -> str | None:
    """Return an answer that a server parsed already as the JSON text that it was."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return None


def last_speech(items: Iterable[tuple[bool, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the items of the last speech that has a text; items come with whether they are text.

    Texts that follow each other are one speech: citations split it. What was said before a tool was
    called or searched with is another one, and not the answer.
    """
    items = list(items)
    if len(items) == 1:
        return [item for is_text, item in items if is_text]
    speeches = [
        [item for _, item in group] for is_text, group in groupby(items, lambda i: i[0]) if is_text
    ]
    told = (speech for speech in reversed(speeches) if (content_text(list(speech)) or "").strip())
    return next(told, speeches[-1] if speeches else [])


def blocks_of(content: object) -> list[dict[str, Any]]:
    """Return the blocks of a content; a text, alone or among them, is a block of text."""
    if content is None:
        return []
    items = cast("list[object]", content) if isinstance(content, list) else [content]
    return [
        {"type": "text", "text": item} if isinstance(item, str) else object_of(item)
        for item in items
        if item is not None
    ]
