"""The types that a dataset declares: one for each column, kept in `_batchata/schema.json`.

A type changes only by widening (`common/widening.py`). The file is written before any part is
rewritten; since widening loses nothing, a death in between is harmless. Where it is missing, in
datasets of older versions say, it is made anew from the parts.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from batchata_tasks.common.errors import SpecError, StorageError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.json_columns import is_json, type_name

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder

# 2 since fingerprints are of version 2: code that reads 1 alone would send such rows again
_FORMAT = 2
_LATER_FORMAT = 3  # if rows may be marked, or columns were renamed: code that reads 2 knows neither
_FORMATS = (1, _FORMAT, _LATER_FORMAT)


class Role(StrEnum):
    """What a column is in a dataset."""

    KEY = "key"
    CARRIED = "carried"
    USED = "used"  # read by templates, and not stored
    ANSWER = "answer"
    RETIRED = "retired"  # left the spec's `columns`; its values stay


# for people, if only the folder of a dataset is known
FILLED_BY = "what fills the dataset (its spec, Batch, or call of `enrich`)"
SOURCE_ROLES = (Role.KEY, Role.CARRIED, Role.RETIRED)


@dataclass(frozen=True)
class Column:
    """A column with its declared type.

    `legacy` is the type in which an earlier version read its values: an object had the fields of
    all rows' objects. The fingerprints of rows that were sent then are of such values.
    """

    name: str
    role: Role
    type: pa.DataType
    legacy: pa.DataType | None = None


@dataclass(frozen=True)
class DeclaredSchema:
    """The columns of a dataset, in their order.

    `marks`: it has a column that tells since when the source lacks a row.
    `notes_legacy`: their legacy types are noted, if they have any. A record by an earlier version
    does not have them yet.
    """

    columns: tuple[Column, ...] = ()
    notes_legacy: bool = True
    marks: bool = False

    def of(self, roles: Container[Role]) -> pa.Schema:
        """Return the columns of some roles, as a schema."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns if c.role in roles])

    def types(self) -> dict[str, pa.DataType]:
        """Return the type of each column that comes from a source, by name."""
        return {c.name: c.type for c in self.columns if c.role is not Role.ANSWER}

    def legacy(self) -> dict[str, pa.DataType]:
        """Return the legacy types of the columns that have one, by name."""
        return {c.name: c.legacy for c in self.columns if c.legacy is not None}

    def write(self, folder: DatasetFolder) -> None:
        """Write the file, unless it says the same already."""
        record = self._to_json()
        if self.marks or folder.renames.exists():
            record["format"] = _LATER_FORMAT
        if read_json(_path(folder)) != record:
            write_json(_path(folder), record)

    def _to_json(self) -> dict[str, Any]:
        kept = [_column_json(c) for c in self.columns if c.role is not Role.RETIRED]
        retired = [_column_json(c) for c in self.columns if c.role is Role.RETIRED]
        record: dict[str, Any] = {"format": _FORMAT, "columns": kept, "retired": retired}
        return {**record, "marks": True} if self.marks else record

    @classmethod
    def read(cls, folder: DatasetFolder) -> DeclaredSchema | None:
        """Return what a dataset declares; None if there is no file.

        Raises:
            StorageError: it is damaged, or of a later version.
        """
        path = _path(folder)
        if (record := read_json(path)) is None:
            return None
        if record.get("format") not in _FORMATS:
            message = f"{path} is of format {record.get('format')}; use a newer version to read it."
            raise StorageError(message)
        try:
            stored = cast("list[dict[str, str]]", record["columns"] + record["retired"])
            noted, marks = record["format"] >= _FORMAT, bool(record.get("marks"))
            return cls(tuple(_column_of(one, noted=noted) for one in stored), noted, marks)
        except (KeyError, TypeError, ValueError, binascii.Error, pa.ArrowException) as error:
            message = f"{path} is damaged ({error!r}); delete it: it is made anew from the parts."
            raise StorageError(message) from error


def require_declared(folder: DatasetFolder) -> DeclaredSchema:
    """Return what a dataset declares, for a command that knows no more of it than its folder.

    Raises:
        SpecError: it declares nothing yet.
        StorageError: see `DeclaredSchema.read`.
    """
    if (declared := DeclaredSchema.read(folder)) is None:
        message = (
            f"output: {folder.own} does not say which columns the dataset has; run {FILLED_BY} "
            "once more, which writes that down."
        )
        raise SpecError(message)
    return declared


def rename_declared(folder: DatasetFolder, names: Mapping[str, str]) -> None:
    """Give columns that come from a source other names (old: new) in what a dataset declares.

    A column that has a new name already, beside the old one, is dropped.
    """
    if (declared := DeclaredSchema.read(folder)) is not None:
        own = [c for c in declared.columns if c.role is not Role.ANSWER]
        dropped = {names.get(c.name) for c in own}
        columns = (
            c if c.role is Role.ANSWER else replace(c, name=names.get(c.name, c.name))
            for c in declared.columns
            if c.role is Role.ANSWER or c.name not in dropped
        )
        replace(declared, columns=tuple(columns)).write(folder)


def _path(folder: DatasetFolder) -> Path:
    return folder.own / "schema.json"


def _column_json(column: Column) -> dict[str, str]:
    """Return a column; `type` is for people, `arrow` and `legacy` are read."""
    stored = {
        "name": column.name,
        "role": column.role.value,
        "type": type_name(column.type),
        "arrow": _serialized(column.type),
    }
    return stored if column.legacy is None else {**stored, "legacy": _serialized(column.legacy)}


def _serialized(kind: pa.DataType) -> str:
    return base64.b64encode(pa.schema([pa.field("", kind)]).serialize()).decode()


def _type_of(text: str) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type


def _column_of(stored: dict[str, str], *, noted: bool) -> Column:
    kind = _type_of(stored["arrow"])
    if is_json(kind) and not noted:
        kind = pa.string()  # to earlier versions, Parquet's columns of JSON were texts
    legacy = _type_of(stored["legacy"]) if "legacy" in stored else None
    return Column(stored["name"], Role(stored["role"]), kind, legacy)
