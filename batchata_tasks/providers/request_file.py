"""Request files: byte for byte what goes over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.files import durable
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from batchata_tasks.providers.base import Framing

_BYTES_A_WRITE = 1 << 20


def write_request_file(
    path: Path,
    framing: Framing,
    token: str,
    bodies: Iterable[tuple[str, bytes]],
    gate: Callable[[], None] | None = None,
) -> None:
    """Write the requests of a chunk's rows: (row id, body) each.

    `gate` is called right before the file appears, and may raise.
    """
    requests = ((custom_id(token, row_id), body) for row_id, body in bodies)
    write_requests(path, framing, requests, gate)


def write_requests(
    path: Path,
    framing: Framing,
    requests: Iterable[tuple[str, bytes]],
    gate: Callable[[], None] | None = None,
) -> None:
    """Write requests, (custom_id, body) each, byte for byte as they go over the wire."""
    with durable(path, gate=gate) as stream:
        stream.write(framing.head)
        block, size = list[bytes](), 0
        joint = b""
        for name, body in requests:
            line = framing.line(name, body)
            block.append(joint + line)
            joint = framing.joint
            size += len(line)
            if size > _BYTES_A_WRITE:
                stream.write(b"".join(block))
                block.clear()
                size = 0
        stream.write(b"".join(block) + framing.tail)
