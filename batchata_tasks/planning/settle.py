"""Settles, before a row is planned, which type each column of the dataset has from now on.

What the dataset declares meets what the source has tonight. A type is widened if one holds both
without loss; where only some values allow it they are looked at, first those of the source, then
those that landed or are on their way. Anything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.arrow_types import as_stored, is_list
from batchata_tasks.common.conversion import UnfitError, converted
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json_columns import JSON, is_json, type_name
from batchata_tasks.common.text import literal
from batchata_tasks.common.widening import fits_always, keeps_identity, widened
from batchata_tasks.dataset.answers import misfits
from batchata_tasks.dataset.columns import MISSING_SINCE, OWN_NAMES, dataset_schema
from batchata_tasks.dataset.declared import SOURCE_ROLES, Column, DeclaredSchema, Role
from batchata_tasks.dataset.stored_columns import StoredColumns
from batchata_tasks.planning.legacy import inferred_type

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.planning.summary import PlanSummary
    from batchata_tasks.planning.table import PreparedTable


@dataclass(frozen=True)
class Values:
    """The values of a column in one place: what people call it, their type, how to read them.

    `by_value`: each has to be looked at, since they are read in another type.
    """

    where: str
    type: pa.DataType
    read: Callable[[], Iterator[pa.Array]]
    by_value: bool = False

    def example(self) -> str | None:
        """Return the first value that is not null, in words; None if there is none."""
        return self._first_that_fails(pa.null())

    def misfit(self, into: pa.DataType) -> str | None:
        """Return the first value that a type cannot hold, in words; None if there is none."""
        always = not self.by_value and fits_always(self.type, into)
        return None if always else self._first_that_fails(into)

    def _first_that_fails(self, into: pa.DataType) -> str | None:
        first = 1
        for array in self.read():
            try:
                converted(array, into)
            except UnfitError as error:
                return self.named(first + error.place, error.value)
            first += len(array)
        return None

    def named(self, row: int, value: object) -> str:
        """Return a value in words; its row is counted from 1."""
        return f"row {row} of {self.where} has {literal(value)}"


@dataclass(frozen=True)
class Settled:
    """What a plan goes by, and what is to be told of it."""

    declared: DeclaredSchema
    misfits: dict[str, int] = field(default_factory=dict[str, int])
    retired: list[str] = field(default_factory=list[str])

    def note(self, summary: PlanSummary) -> None:
        """Write what is to be told into the summary of the plan."""
        summary.misfits, summary.retired = self.misfits, self.retired


def settle(table: PreparedTable, folder: DatasetFolder, unlanded: Iterable[str] = ()) -> Settled:
    """Give source and dataset of a table the types that hold from now on. Nothing is written.

    `unlanded` are the chunks whose rows are on their way into the dataset.

    Raises:
        SpecError: a column's values can be held by no type together, or Parquet cannot hold them;
            a name is used twice.
    """
    stored = StoredColumns(table.dataset, folder, unlanded)
    declared = DeclaredSchema.read(folder) or _of_files(stored, table)
    if not declared.notes_legacy:
        declared = _with_legacy(declared)
    before = {column.name: column for column in declared.columns}
    columns = list[Column]()
    for name, role in _wanted(table).items():
        tonight = _tonight(name, table)
        kind = _settled(name, role, before.get(name), stored, tonight)
        legacy = before[name].legacy if name in before else None
        if name not in before and not declared.notes_legacy:
            legacy = _legacy(tonight)
        columns.append(Column(name, role, kind, legacy))
    named = {column.name for column in columns if column.role is not Role.USED}
    retired = [
        replace(column, role=Role.RETIRED)
        for column in declared.columns
        if column.role in SOURCE_ROLES and column.name not in named
    ]
    # once it has marks, a dataset keeps them
    marks = declared.marks or stored.has_in_parts(MISSING_SINCE.name)
    missing = table.spec.missing
    if missing is not None and not missing.delete:
        marks = True
    return _applied(table, stored, columns, retired, marks=marks)


def _with_legacy(declared: DeclaredSchema) -> DeclaredSchema:
    """Note the types that an earlier version declared as the legacy types."""
    columns = (
        replace(column, legacy=column.type)
        if column.role is not Role.ANSWER and not is_json(column.type)
        else column
        for column in declared.columns
    )
    return replace(declared, columns=tuple(columns))


def _legacy(tonight: Values) -> pa.DataType | None:
    """Return the type that an earlier version gave to a column which it did not declare."""
    if not is_json(tonight.type):
        return tonight.type
    try:
        return inferred_type(tonight.read())
    except UnfitError:
        return None  # it refused the column


def _applied(
    table: PreparedTable,
    stored: StoredColumns,
    columns: list[Column],
    retired: list[Column],
    *,
    marks: bool,
) -> Settled:
    """Set the columns in source and dataset, having proven that Parquet holds them."""
    source = DeclaredSchema(tuple(columns))
    kept = DeclaredSchema(tuple(retired)).of((Role.RETIRED,))
    carried = source.of((Role.KEY, Role.CARRIED))
    schema = dataset_schema(carried, table.answers.common, kept, marks=marks)
    _require_storable(schema, table)
    dataset = table.dataset
    dataset.schema, dataset.retired = schema, kept.names
    shown = {column.name: _shown(column, table) for column in columns}
    table.source.declare(shown, {c.name: c.type for c in columns if c.type != shown[c.name]})
    answers = [Column(n, Role.ANSWER, schema.field(n).type) for n in dataset.answers]
    declared = DeclaredSchema((*columns, *retired, *answers), marks=marks)
    known = {*schema.names, *source.types()}
    return Settled(declared, _misfits(stored, answers, known), kept.names)


def _shown(column: Column, table: PreparedTable) -> pa.DataType:
    """Return the type in which templates see a column: of objects, each has its own items."""
    is_of_objects = is_json(table.source.tonight(column.name))
    return JSON if is_of_objects and _is_list_or_struct(column.type) else column.type


def _is_list_or_struct(kind: pa.DataType) -> bool:
    return is_list(kind) or pa.types.is_struct(kind)


def _wanted(table: PreparedTable) -> dict[str, Role]:
    """Return the columns of the source whose types are declared, with what they are."""
    roles = dict.fromkeys(table.spec.carried, Role.CARRIED)
    roles |= dict.fromkeys(table.spec.key, Role.KEY)
    builder = table.builder
    used = [*builder.columns_used(), *builder.columns_of_files()]
    return roles | dict.fromkeys((name for name in used if name not in roles), Role.USED)


def _of_files(stored: StoredColumns, table: PreparedTable) -> DeclaredSchema:
    """Return what the files of a dataset declare that has no record of its types."""
    columns = list[Column]()
    for name in stored.source_columns(table.spec.carried):
        role = Role.KEY if name in table.spec.key else Role.CARRIED
        kind = pa.null()
        places = [Values(*place) for place in stored.places(name)]
        for number, place in enumerate(places):
            kind = _holding(name, role, kind, places[:number], place)
        columns.append(Column(name, role, kind))
    return DeclaredSchema(tuple(columns), notes_legacy=not stored.has_files())


def _tonight(name: str, table: PreparedTable) -> Values:
    source = table.source
    return Values(source.url, source.tonight(name), lambda: source.values(name))


def _settled(
    name: str, role: Role, before: Column | None, stored: StoredColumns, tonight: Values
) -> pa.DataType:
    """Return the type that a column of the source has from now on."""
    if before is None:
        return tonight.type
    if before.role is Role.ANSWER and role is not Role.USED:
        message = (
            f"columns: {name!r} holds answers in the dataset; rename the source's column, or name "
            "another `output`."
        )
        raise SpecError(message)
    landed = [Values(*place) for place in stored.places(name)] if role is not Role.USED else []
    if not (is_json(tonight.type) and _is_list_or_struct(before.type)):
        return _holding(name, role, before.type, landed, tonight)
    if role is Role.USED:
        return JSON  # nothing of it is stored
    return _holding_objects(name, role, before.type, landed, tonight)


def _holding_objects(
    name: str, role: Role, declared: pa.DataType, landed: list[Values], tonight: Values
) -> pa.DataType:
    """Return a type that holds what landed, structs or lists, and tonight's JSON."""
    if declared == pa.list_(pa.null()):  # empty lists are JSON as well
        return _holding(name, role, declared, landed, tonight)
    if tonight.misfit(declared) is None:
        return declared
    try:
        kind = inferred_type(tonight.read())
    except UnfitError as error:
        problem = tonight.named(error.place + 1, error.value)
        raise _refused(name, role, declared, tonight, problem) from error
    return _holding(name, role, declared, landed, replace(tonight, type=kind, by_value=True))


def _holding(
    name: str, role: Role, declared: pa.DataType, landed: list[Values], tonight: Values
) -> pa.DataType:
    """Return a type that holds what landed and what comes tonight."""
    problem = None
    for kind in widened(declared, tonight.type):
        if role is Role.KEY and not keeps_identity(declared, tonight.type, kind):
            problem = tonight.example()
        else:
            problem = tonight.misfit(kind)
        if problem is None and not kind.equals(declared):
            problem = next(filter(None, (place.misfit(kind) for place in landed)), None)
        if problem is None:
            return kind
    raise _refused(name, role, declared, tonight, problem)


def _refused(
    name: str, role: Role, declared: pa.DataType, tonight: Values, problem: str | None
) -> SpecError:
    spec_key = {Role.KEY: "key", Role.CARRIED: "columns"}.get(role, "source")
    kind = "JSON" if tonight.by_value else type_name(tonight.type)
    types = f"{name!r} is {kind} in {tonight.where} and {type_name(declared)} in the dataset"
    example = "" if problem is None else f" ({problem})"
    remedy = "a dataset keeps what landed: fix the source, or name another `output`"
    return SpecError(f"{spec_key}: {types}{example}; {remedy}.")


def _require_storable(schema: pa.Schema, table: PreparedTable) -> None:
    """Refuse a column that Parquet cannot hold, before its rows are paid for."""
    try:
        as_stored(schema)
    except pa.ArrowException as error:
        for one in schema:
            try:
                as_stored(pa.schema([one]))
            except pa.ArrowException:
                where = "key" if one.name in table.spec.key else "columns"
                what = f"{one.name!r} is {type_name(one.type)} in {table.source.url}"
                message = (
                    f"{where}: {what}, which Parquet cannot hold (an object without fields or of "
                    "100 levels, say); leave the column out, or write its values as text."
                )
                raise SpecError(message) from error
        raise


def _misfits(stored: StoredColumns, answers: list[Column], known: Container[str]) -> dict[str, int]:
    """Count the answers of earlier response models that the present one cannot hold.

    All of those in a column that is not `known` any more.
    """
    counts = {
        name: sum(len(array) - array.null_count for place in places for array in place.read())
        for name, places in stored.others(known).items()
    }
    counts |= {
        f"{column.name}: {column.type}": sum(
            misfits(array, column.type)
            for _, kind, read in stored.in_parts(column.name)
            if not kind.equals(column.type)
            for array in read()
        )
        for column in answers
        if column.name not in OWN_NAMES
    }
    return {name: number for name, number in counts.items() if number}
