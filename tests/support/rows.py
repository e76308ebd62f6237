"""Rows of a source in Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.json_columns import python_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.sources.source import Block


def python_rows(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return the rows of blocks; values of JSON are loaded."""
    rows = list[dict[str, Any]]()
    for block in blocks:
        names, columns = block.rows.schema.names, map(python_list, block.rows.columns)
        rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows
