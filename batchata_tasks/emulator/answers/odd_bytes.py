"""Result lines whose bytes are odd: what servers and proxies wrote, and JSON readers refuse."""

from __future__ import annotations

MARK = "\ue000"
"""Stands in an answer's text where the odd bytes go."""

_BOM = b"\xef\xbb\xbf"
_AT_MARK = {"request_half_pair": b"\\ud83d", "request_cut_character": b"\xf0\x9f\x98"}
_NAN = b'{"score":NaN,'
MARKED = frozenset(_AT_MARK)
"""The faults that need a mark in the answer's text."""


def odd_bytes(encoded: bytes, kind: str | None) -> bytes:
    """Return an encoded result line under the fault that struck its request, if any."""
    if kind == "request_broken_line":
        return encoded[: len(encoded) // 2] + b"\n"
    if kind == "request_bom":
        return _BOM + encoded
    if kind == "request_nan":
        return _NAN + encoded.removeprefix(b"{")
    if kind in _AT_MARK:
        return encoded.replace(MARK.encode(), _AT_MARK[kind])
    return encoded
