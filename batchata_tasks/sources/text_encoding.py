"""In which encoding a text is written. The same bytes always give the same text.

It is a rule, and no guess: a byte order mark, else UTF-8, else what can only be UTF-16, else
Windows-1252, of which Latin-1 is a part. Texts that would come out as another text are refused.
"""

from __future__ import annotations

import codecs
import re

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")  # DOS ends texts with 1A
_CONTROL_CHARS = re.compile("[\x00-\x08\x0e-\x19\x1b-\x1f\x7f-\x84\x86-\x9f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_SEEN = re.compile(rb"[^\s]")
# what are letters in DOS, and in the east of Europe, and here quotes and marks, inside of a word
_OTHER_LETTERS = rb"\x82\x84\x88\x93\x94\xa1\xa3\xa5\xa6\xb3\xb6\xb9\xbc\xbe\xbf"
_ELSEWHERE = re.compile(rb"[A-Za-z\xc0-\xff][%b][A-Za-z\x80-\xff]" % _OTHER_LETTERS)
_MOST_HIGH = 0.5
_LEAST_SEEN = 20  # characters, of which more than half are no ASCII only in other alphabets
_LEAST_NULS = 0.5  # of the characters, in texts of two bytes each
_LEAST_WIDE = 4  # characters: fewer of two bytes may be anything


def decoded(data: bytes) -> str | None:
    """Return the text that a file holds, without a mark of its encoding; None if it is no text."""
    text = _marked(data)
    if text is None and not any(map(data.startswith, _MARKS)):
        text = _utf8(data) or _two_bytes(data) or _western(data)
    return text if text and not text.isspace() and "\0" not in text else None


def may_be_text(data: bytes) -> bool:
    """Whether content has nothing in it that no text has, whatever its encoding may be."""
    return bool(data.strip()) and _CONTROLS.search(data) is None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _marked(data: bytes) -> str | None:
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding)
    return None


def _utf8(data: bytes) -> str | None:
    return None if b"\0" in data else _decoded(data, "utf-8")


def _two_bytes(data: bytes) -> str | None:
    """Return a text in UTF-16 without a mark: the zeros of its ASCII are all on one side."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    chars, zeros = len(data) // 2, max(even, odd)
    if len(data) % 2 or (even and odd) or chars < _LEAST_WIDE or zeros <= chars * _LEAST_NULS:
        return None
    text = _decoded(data, "utf-16-le" if odd else "utf-16-be")
    return None if text is None or _CONTROL_CHARS.search(text) else text


def _western(data: bytes) -> str | None:
    """Return a text in Windows-1252; None if it is likely to be one of another alphabet."""
    seen, high = _SEEN.findall(data), _HIGH.findall(data)
    is_other = len(seen) >= _LEAST_SEEN and len(high) > len(seen) * _MOST_HIGH
    if is_other or _CONTROLS.search(data) or _ELSEWHERE.search(data):
        return None
    return _decoded(data, "cp1252")
