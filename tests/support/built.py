"""One row at a time of what turns rows into requests: for tests that look at single ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.planning.fingerprint import fingerprint
from batchata_tasks.planning.row_block import RowBlock

if TYPE_CHECKING:
    from batchata_tasks.planning.builder import Builder, BuiltRequest


def block_of(row: dict[str, Any], number: int = 1) -> RowBlock:
    """Return a block of one row."""
    kinds = {name: pa.uint64() for name, value in row.items() if _is_large(value)}
    columns = {name: pa.array([value], kinds.get(name)) for name, value in row.items()}
    return RowBlock(pa.RecordBatch.from_pydict(columns), [number], [])


def _is_large(value: object) -> bool:
    return isinstance(value, int) and value >= 2**63


def request_of(builder: Builder, row: dict[str, Any], number: int = 1) -> BuiltRequest:
    """Return the request of a row."""
    return next(builder.requests(block_of(row, number), [0]))


def fingerprint_of(builder: Builder, row: dict[str, Any]) -> str:
    """Return the fingerprint of a row's base request."""
    prints = builder.fingerprints(block_of(row))
    return fingerprint(prints.inputs[0].hex(), prints.others[0])
