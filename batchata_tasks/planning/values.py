"""A row's values as templates and `where` see them: plain Python, whatever Arrow's type was."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.json_columns import python_list
from batchata_tasks.planning.nulls import NULL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

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
    except (ValueError, OverflowError):
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).column(name).to_pylist()
            except (ValueError, OverflowError) as error:
                # of dates and times it is told in terms of C
                is_beyond = isinstance(error, OverflowError) or "out of range" in str(error)
                why = "it is beyond the years 1 to 9999" if is_beyond else str(error)
                where = f"source: the column {name!r} has in row {numbers[place]} a value"
                message = f"{where} that cannot be used: {why}; fix it."
                raise SourceError(message) from error
        raise


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
