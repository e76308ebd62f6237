"""What is sought in a text for a value of an answer."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation
from enum import Enum
from pathlib import PurePath
from uuid import UUID

from pydantic import AnyUrl

from batchata_tasks.citations.dates import dates
from batchata_tasks.citations.folding import even, folded, without_hyphens
from batchata_tasks.citations.lexicon import NO, YES
from batchata_tasks.citations.numerals import figures, numbers

_WRITTEN_OUT = UUID | AnyUrl | PurePath | ipaddress.IPv4Address | ipaddress.IPv6Address
_MOST_BITS = 128  # of an integer: longer ones are no amounts
_LONGEST = 20_000  # characters of a text that is sought
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}.*)?", re.DOTALL)
_AMOUNT = re.compile(r"[^\w\s]*\d[\d.,' ]*[.,]\d+[^\w\s]*|[$€£¥]\s?\d+|\d+\s?[$€£¥]")
_EDGES = " \t\n'\".,;:"
_SHORT = 2  # letters of texts that are words of their own: "a", "us"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number that is sought.

    `decimals` are those that it is rounded to, None if it is exact. `percent`: it is sought as a
    percentage alone.
    """

    value: Decimal
    decimals: int | None = None
    percent: bool = False

    @property
    def figures(self) -> str:
        """Its figures, by which numbers of a text are sifted."""
        return figures("".join(map(str, self.value.as_tuple().digits)))


@dataclass(frozen=True, slots=True)
class Sought:
    """What stands for a value: amounts, days and texts, each of which will do.

    `truth` is that of a boolean, which has no text of its own. `whole`: the value is an integer,
    so that 1 is not "100 %". `by_label`: it needs a label, since what stands for it says little.
    """

    amounts: tuple[Amount, ...] = ()
    days: tuple[date, ...] = ()
    texts: tuple[str, ...] = ()
    truth: bool | None = None
    whole: bool = False
    by_label: bool = False


def sought(value: object) -> Sought | None:
    """Return what stands for a value; None for what is empty or cannot stand in a text."""
    if isinstance(value, Enum):
        value = value.value
    found: Sought | None = None
    if isinstance(value, bool):
        found = Sought(texts=YES if value else NO, truth=value, by_label=True)
    elif isinstance(value, int | float | Decimal):
        found = _number(value)
    elif isinstance(value, date):
        found = Sought(days=(value.date() if isinstance(value, datetime) else value,))
    elif isinstance(value, time):
        found = Sought(texts=tuple(dict.fromkeys((f"{value:%H:%M:%S}", f"{value:%H:%M}"))))
    elif isinstance(value, str):
        found = _text(value)
    elif isinstance(value, _WRITTEN_OUT):
        found = _text(str(value).rstrip("/"))
    return found


def _number(value: float | Decimal) -> Sought | None:
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            return None
        return Sought((Amount(Decimal(value)),), whole=True)
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not exact.is_finite() or abs(exact.adjusted()) > _MOST_BITS:
        return None
    exact = exact + 0 if exact else Decimal(0)
    return Sought((Amount(exact), *_rounded(exact)))


def _rounded(exact: Decimal) -> list[Amount]:
    """Return a fraction with two or three decimals, or percent with as many, as people write it.

    At least two digits are left of it, so that 0.0125 is not found as 0.01.
    """
    written = exact.normalize().as_tuple()
    decimals = -written.exponent if isinstance(written.exponent, int) else 0
    amounts: list[Amount] = []
    for places in (2, 3, 4, 5):
        if decimals <= places:
            break
        for rule in (ROUND_HALF_UP, ROUND_HALF_DOWN):
            try:
                rounded = exact.quantize(Decimal(1).scaleb(-places), rule)
            except InvalidOperation:
                continue
            if len(str(abs(rounded.scaleb(places).to_integral_value()))) > 1:
                in_percent = places > 3  # noqa: PLR2004 - as said
                amounts.append(Amount(rounded, places, percent=in_percent))
    return list(dict.fromkeys(amounts))


def _text(value: str) -> Sought | None:
    if len(value) > _LONGEST:
        value = value[:_LONGEST]
    text = even(folded(value)).strip(_EDGES) or even(folded(value)).strip()
    if not text or not any(char.isalnum() for char in text):
        return None
    texts = dict.fromkeys((text, text.replace("_", " "), without_hyphens(text)))
    days = _days(value, text)
    amounts = _amounts(text) if _AMOUNT.fullmatch(text) else ()
    return Sought(amounts, days, tuple(texts), by_label=len(text) <= _SHORT and text.isalpha())


def _days(value: str, text: str) -> tuple[date, ...]:
    """Return the day that a text is, and nothing besides."""
    if iso := _ISO.fullmatch(value.strip()):
        try:
            return (date.fromisoformat(iso[1]),)
        except ValueError:
            return ()
    found, _, _ = dates(text)
    whole = {day.value for day in found if (day.start, day.end) == (0, len(text))}
    return (whole.pop(),) if len(whole) == 1 else ()


def _amounts(text: str) -> tuple[Amount, ...]:
    """Return the number that a text is, if it can only be read as one."""
    found, _ = numbers(text, [])
    plain = {number.value for number in found if number.likely and not number.percent}
    return (Amount(plain.pop()),) if len(plain) == 1 else ()
