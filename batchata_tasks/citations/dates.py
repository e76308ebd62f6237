"""The dates of a folded text, with every day that each can be read as."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from batchata_tasks.citations.folding import NARROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.citations.style import Order

_MONTH_NAMES = (
    "january jan januar jänner janvier enero ene janeiro gennaio januari stycznia",
    "february feb februar février févr fevrier febrero fevereiro febbraio februari",
    "march mar märz maerz mrz mars marzo março maart marca",
    "april apr avril avr abril aprile kwietnia",
    "may mai mayo maio maggio mei maja",
    "june jun juni juin junio junho giugno czerwca",
    "july jul juli juillet juil julio julho luglio lipca",
    "august aug août aout agosto augustus sierpnia",
    "september sep sept septembre septiembre setembro settembre września",
    "october oct oktober okt octobre octubre outubro ottobre października",
    "november nov novembre noviembre novembro listopada",
    "december dec dezember dez décembre déc diciembre dic dezembro dicembre grudnia",
)
MONTHS = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
_GAP = rf"[ \n\t{NARROW}]"
_FIGURES = re.compile(
    r"(?<![\w/.-])(?:(?P<y>\d{4})(?P<m1>[-/.])(?P<ym>\d{1,2})(?P=m1)(?P<yd>\d{1,2})(?=t\d|(?!\w))"
    rf"|(?P<a>\d{{1,2}})(?P<m2>[-/]|\.{_GAP}?)(?P<b>\d{{1,2}})(?P=m2)(?P<year>\d{{4}}|\d{{2}})"
    r"(?!\w))(?![-/.]\d)"
)
_YEAR = r"(?P<year>\d{4}|'?\d{2})(?![\w])(?![.,:]\d)"
_DAY_FIRST = re.compile(
    rf"(?<![\w/.-])(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|º|°|\.)?"
    rf"(?:{_GAP}|[-/])?(?:day )?(?:of |de )?"
    rf"(?P<month>[^\W\d_]{{3,12}})(?P<rest>\.?,?(?:{_GAP}|[-/])(?:of |de |del )?{_YEAR})?"
)
_MONTH_FIRST = re.compile(
    rf"(?<![^\W_])(?P<month>[^\W\d_]{{3,12}})\.?{_GAP}?(?:"
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?(?!\w)(?![.,:/-]\d)"
    rf"(?P<rest>,?{_GAP}(?P<year>\d{{4}}|'\d{{2}})(?!\w)(?![.,:]\d))?"
    r"|(?P<alone>\d{4})(?!\w))"
)
_MONTHS_OF_A_YEAR = 12
_CENTURIES = (1900, 2000)


@dataclass(frozen=True, slots=True)
class Day:
    """One reading of a date in a text; `needs` is the order that it takes for granted."""

    start: int
    end: int
    value: date
    needs: Order | None = None


def dates(text: str) -> tuple[list[Day], list[tuple[int, int]], list[Order]]:
    """Return a text's dates, the places whose digits belong to dates, and the orders they show.

    A month with a day or a year alone is no day, but its digits are no numbers either.
    """
    days: list[Day] = []
    taken: list[tuple[int, int]] = []
    orders: list[Order] = []
    for found in _FIGURES.finditer(text):
        read, order = _figures(found)
        days += read
        taken.append(found.span())
        if order is not None:
            orders.append(order)
    for pattern in (_DAY_FIRST, _MONTH_FIRST):
        for found in _named(pattern, text):
            year = found["year"] if found["rest"] else None
            taken.append(found.span())
            if found["day"] and year:
                days += _days(found, _years(year), MONTHS[found["month"]], int(found["day"]))
    return days, sorted(taken), orders


def _named(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield what a pattern finds where its word is the name of a month."""
    at = 0
    while found := pattern.search(text, at):
        if found["month"] in MONTHS:
            yield found
            at = found.end()
        else:
            at = found.end("month") if pattern is _MONTH_FIRST else found.end("day")


def _figures(found: re.Match[str]) -> tuple[list[Day], Order | None]:
    """Return the days that figures can be read as, and the order that they show."""
    if found["y"]:
        return _days(found, [int(found["y"])], int(found["ym"]), int(found["yd"])), None
    first, second, years = int(found["a"]), int(found["b"]), _years(found["year"])
    if found["m2"][0] == ".":
        return _days(found, years, second, first), None
    by_day, by_month = second <= _MONTHS_OF_A_YEAR, first <= _MONTHS_OF_A_YEAR
    unsure = by_day and by_month and first != second
    read: list[Day] = []
    if by_day:
        read += _days(found, years, second, first, "day" if unsure else None)
    if by_month and first != second:
        read += _days(found, years, first, second, "month" if unsure else None)
    if unsure or first == second or not read:
        return read, None
    return read, "day" if by_day else "month"


def _years(written: str) -> list[int]:
    """Return the years that are written, with two digits in two centuries."""
    year = int(written.lstrip("'"))
    return [year] if len(written) == len("2024") else [century + year for century in _CENTURIES]


def _days(
    found: re.Match[str], years: list[int], month: int, day: int, needs: Order | None = None
) -> list[Day]:
    days: list[Day] = []
    for year in years:
        try:
            days.append(Day(*found.span(), date(year, month, day), needs))
        except ValueError:  # no such day
            continue
    return days
