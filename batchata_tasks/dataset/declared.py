"""The types that a dataset declares: one for each column, kept in `_batchata/schema.json`.

A type changes only by widening (`common/widening.py`). The file is written before any part is
rewritten; since widening loses nothing, a death in between is harmless. Where it is missing, in
datasets of older versions say, it is made anew from the parts.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder

_FORMAT = 1


class Role(StrEnum):
    """What a column is in a dataset."""

    KEY = "key"
    CARRIED = "carried"
    USED = "used"  # read by templates, and not stored
    ANSWER = "answer"
    RETIRED = "retired"  # left the spec's `columns`; its values stay


SOURCE_ROLES = (Role.KEY, Role.CARRIED, Role.RETIRED)


@dataclass(frozen=True)
class Column:
    """A column with its declared type."""

    name: str
    role: Role
    type: pa.DataType


@dataclass(frozen=True)
class DeclaredSchema:
    """The columns of a dataset, in their order."""

    columns: tuple[Column, ...] = ()

    def of(self, roles: Container[Role]) -> pa.Schema:
        """Return the columns of some roles, as a schema."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns if c.role in roles])

    def types(self) -> dict[str, pa.DataType]:
        """Return the type of each column that comes from a source, by name."""
        return {c.name: c.type for c in self.columns if c.role is not Role.ANSWER}

    def write(self, folder: DatasetFolder) -> None:
        """Write the file, unless it says the same already."""
        record = self._to_json()
        if read_json(_path(folder)) != record:
            write_json(_path(folder), record)

    def _to_json(self) -> dict[str, Any]:
        kept = [_column_json(c) for c in self.columns if c.role is not Role.RETIRED]
        retired = [_column_json(c) for c in self.columns if c.role is Role.RETIRED]
        return {"format": _FORMAT, "columns": kept, "retired": retired}

    @classmethod
    def read(cls, folder: DatasetFolder) -> DeclaredSchema | None:
        """Return what a dataset declares; None if there is no file.

        Raises:
            StorageError: it is damaged, or of a later version.
        """
        path = _path(folder)
        if (record := read_json(path)) is None:
            return None
        if record.get("format") != _FORMAT:
            message = f"{path} is of format {record.get('format')}; use a newer version to read it."
            raise StorageError(message)
        try:
            stored = cast("list[dict[str, str]]", record["columns"] + record["retired"])
            return cls(tuple(_column_of(one) for one in stored))
        except (KeyError, TypeError, ValueError, binascii.Error, pa.ArrowException) as error:
            message = f"{path} is damaged ({error!r}); delete it: it is made anew from the parts."
            raise StorageError(message) from error


def _path(folder: DatasetFolder) -> Path:
    return folder.own / "schema.json"


def _column_json(column: Column) -> dict[str, str]:
    """Return a column; `type` is for people, `arrow` is read."""
    field = pa.schema([pa.field(column.name, column.type)])
    return {
        "name": column.name,
        "role": column.role.value,
        "type": str(column.type),
        "arrow": base64.b64encode(field.serialize()).decode(),
    }


def _column_of(stored: dict[str, str]) -> Column:
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored["arrow"])))
    return Column(stored["name"], Role(stored["role"]), schema.field(0).type)
