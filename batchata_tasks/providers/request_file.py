"""Request files: byte for byte what goes over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.files import durable
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchata_tasks.providers import Framing

_BYTES_A_WRITE = 1 << 20


def write_request_file(
    path: Path, framing: Framing, token: str, bodies: Iterable[tuple[str, bytes]]
) -> None:
    """Write what will go over the wire for rows, byte for byte."""
    write_requests(path, framing, ((custom_id(token, row_id), body) for row_id, body in bodies))


def write_requests(path: Path, framing: Framing, requests: Iterable[tuple[str, bytes]]) -> None:
    """Write requests as they go over the wire: (custom_id, body) each."""
    with durable(path) as stream:
        stream.write(framing.head)
        block: list[bytes] = []
        size, first = 0, True
        for name, body in requests:
            line = framing.line(name, body)
            block.append(line if first else framing.joint + line)
            size, first = size + len(line), False
            if size > _BYTES_A_WRITE:
                stream.write(b"".join(block))
                block.clear()
                size = 0
        stream.write(b"".join(block) + framing.tail)
