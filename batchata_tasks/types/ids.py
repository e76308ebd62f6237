"""Names that derive from content: rows, chunks, requests at the provider."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

from batchata_tasks.common.canonical import base32, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN_CHARS = 20  # 100 bits
ROW_ID_CHARS = 24  # 120 bits
_ROW_ID_BYTES = 15
_DIGITS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)
CUSTOM_ID_CHARS = TOKEN_CHARS + 1 + ROW_ID_CHARS  # both providers take up to 64
_FORM = f"[a-z2-7]{{{TOKEN_CHARS}}}-[a-z2-7]{{{ROW_ID_CHARS}}}"
_CUSTOM_ID = re.compile(_FORM)
_IN_BYTES = re.compile(_FORM.encode(), re.IGNORECASE)


def chunk_token(run_id: str, round_number: int, start: int, kind: str) -> str:
    """Return the token of a chunk, which is its id: a resumed run gives it the same one."""
    parts = (run_id, str(round_number), str(start), kind)
    return base32(digest("chunk", *(part.encode() for part in parts))[:13])[:TOKEN_CHARS]


def custom_id(token: str, row_id: str) -> str:
    """Return the provider-side name of a row's request: `<chunk token>-<row id>`."""
    return f"{token}-{row_id}"


def is_custom_id(name: str) -> bool:
    """Whether a request's name has this program's form, under whatever ledger."""
    return _CUSTOM_ID.fullmatch(name) is not None


def custom_ids_in(line: bytes) -> list[str]:
    """Return the names of requests in a line, in lower case, however the line spells them."""
    return [name.decode().lower() for name in _IN_BYTES.findall(line)]


def row_ids(dataset_id: str, keys: Sequence[bytes], fingerprints: Sequence[str]) -> list[str]:
    """Return `row_id` of each row."""
    start = b"row" + _sized(dataset_id.encode())
    raw = b"".join(
        hashlib.sha256(start + _sized(key) + _sized(text.encode())).digest()[:_ROW_ID_BYTES]
        for key, text in zip(keys, fingerprints, strict=True)
    )
    # as 24 digits of five bits each
    bits = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(-1, 5)
    chars = _DIGITS[np.packbits(bits, axis=1)[:, 0] >> 3].tobytes().decode()
    return [chars[at : at + ROW_ID_CHARS] for at in range(0, len(chars), ROW_ID_CHARS)]


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def row_id(dataset_id: str, key: bytes, row_fingerprint: str) -> str:
    """Return the id of one row's request: 120 bits, the same on any machine at any time."""
    return base32(digest("row", dataset_id.encode(), key, row_fingerprint.encode())[:_ROW_ID_BYTES])
