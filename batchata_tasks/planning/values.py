"""A row's values as templates and `where` see them: plain Python, whatever Arrow's type was."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import python_list
from batchata_tasks.planning.nulls import NULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# what is raised for a value that Python cannot hold; KeyError: for an unknown time zone
_BEYOND = (ValueError, OverflowError, KeyError)
# what is shown as it is, in most rows all there is
_PLAIN = frozenset({str, int, float, bool, bytes, date, time, datetime, timedelta, Decimal})


class Moment(datetime):
    """A point in time with nanoseconds, which a datetime cannot hold: they print and compare."""

    nanosecond = 0  # beyond the microseconds: 0 to 999

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Return ISO 8601 with nine digits of a second, unless another precision is asked for."""
        if timespec != "auto" or not self.nanosecond:
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        end = len("2026-11-22T09:30:00.123456")
        return f"{text[:end]}{self.nanosecond:03d}{text[end:]}"

    def __repr__(self) -> str:
        """Return it as a datetime within a list or an object prints, with its nanoseconds."""
        text = repr(datetime.combine(self.date(), self.timetz()))
        return f"{text.removesuffix(')')}, nanosecond={self.nanosecond})"

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other) is True
        return same and self.nanosecond == _nanosecond(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()

    def __lt__(self, other: datetime) -> bool:
        same = super().__eq__(other) is True
        return self.nanosecond < _nanosecond(other) if same else super().__lt__(other)

    def __gt__(self, other: datetime) -> bool:
        same = super().__eq__(other) is True
        return self.nanosecond > _nanosecond(other) if same else super().__gt__(other)

    def __le__(self, other: datetime) -> bool:
        return not self > other

    def __ge__(self, other: datetime) -> bool:
        return not self < other


def _nanosecond(value: object) -> int:
    return getattr(value, "nanosecond", 0)


def python_values(batch: pa.RecordBatch, name: str, numbers: Sequence[int]) -> list[Any]:
    """Return a column in Python values; `numbers` are those of the batch's rows in the source.

    Raises:
        SourceError: a value is beyond what Python can hold, such as the year 12000.
    """
    try:
        return python_list(batch.column(name))
    except _BEYOND:
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).column(name).to_pylist()
            except _BEYOND as error:
                where = f"source: the column {name!r} has in row {numbers[place]} a value"
                message = (
                    f"{where} that cannot be used: {_why(error, batch.column(name).type)}; fix it."
                )
                raise SourceError(message) from error
        raise


def _why(error: Exception, kind: pa.DataType) -> str:
    """Return why Python cannot hold a value; of dates and times it is told in terms of C."""
    if isinstance(error, KeyError):
        return f"there is no time zone {error}"
    if pa.types.is_duration(kind):
        return "it is a duration of more than 999,999,999 days"
    is_beyond = isinstance(error, OverflowError) or "out of range" in str(error)
    return "it is beyond the years 1 to 9999" if is_beyond else str(error)


def require_usable(batch: pa.RecordBatch, numbers: Sequence[int]) -> None:
    """Refuse values beyond what Python can hold, also in columns that are only carried along.

    Once they had landed, each later look at the dataset would break off at them.

    Raises:
        SourceError: see `python_values`.
    """
    for name in batch.schema.names:
        if _may_be_beyond(batch.column(name)):
            python_values(batch, name, numbers)


def _may_be_beyond(column: pa.Array) -> bool:
    """Whether Python may be unable to hold a value; that most columns have none is told quickly."""
    try:
        column.validate(full=True)  # texts may be no UTF-8
        for moments in _moments_in(column):
            bounds: list[pa.Scalar] = list(pc.min_max(moments).values())
            for bound in bounds:
                bound.as_py()
    except (*_BEYOND, pa.ArrowException):
        return True
    return False


def _moments_in(column: pa.Array) -> Iterator[pa.Array]:
    """Yield the dates, times and durations in a column, also those within lists and objects."""
    parts = list[pa.Array]()
    if pa.types.is_temporal(column.type):
        yield column
    elif isinstance(column, pa.MapArray):
        parts = [column.keys, column.items]
    elif isinstance(column, pa.StructArray):
        parts = column.flatten()
    elif is_list(column.type):
        parts = [column.flatten()]
    for part in parts:
        yield from _moments_in(part)


def shown(row: Mapping[str, Any], columns: Iterable[str], null: object = NULL) -> dict[str, Any]:
    """Return these columns of a row as a template sees them, nulls as `null`.

    Points in time of nanoseconds, which pyarrow gives as pandas' timestamps, become datetimes, also
    within lists and objects. (Durations of nanoseconds print as they always did: they stay.)
    """
    return {name: shown_value(row[name], null) for name in columns}


def shown_value(value: object, null: object = NULL) -> object:
    """Return a value of a column as a template sees it; see `shown`."""
    if type(value) in _PLAIN:
        return value
    match value:
        case None:
            return null
        case dict():
            pairs = cast("dict[str, Any]", value)
            return shown(pairs, pairs, null)
        case list() | tuple():
            items = [shown_value(item, null) for item in cast("list[Any]", value)]
            return items if isinstance(value, list) else tuple(items)
        case datetime():
            return _moment(value)
        case _:
            return value


def _moment(value: datetime) -> datetime:
    """Return pandas' timestamp as a datetime, with its nanoseconds if it has any."""
    plain = datetime.combine(value.date(), value.timetz())
    nanosecond = _nanosecond(value)
    if not nanosecond:
        return plain
    moment = Moment.combine(plain.date(), plain.timetz())
    moment.nanosecond = nanosecond
    return moment
