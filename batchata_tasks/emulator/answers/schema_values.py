"""Numbers and texts that satisfy the plain types of a JSON schema, drawn from a digest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from batchata_tasks.emulator.answers.patterns import matching
from batchata_tasks.emulator.answers.words import Words

_MASK = (1 << 64) - 1
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_PRINTABLE = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = 10**6  # of the numbers by which answers to different requests differ


def echo_of(digest: bytes) -> str:
    """Return the number by which an answer shows which request it is of."""
    return str(int.from_bytes(digest[-6:], "big") % _DIGITS)


class Draw:
    """A stream of numbers and texts that is fully determined by a digest and a prompt."""

    __slots__ = ("_filler", "_marked", "_state", "_words", "echo")

    def __init__(self, digest: bytes, filler: str = "", prompt: str = "") -> None:
        self._state = int.from_bytes(digest[:8], "big")
        self._filler = filler
        self._words = Words(prompt)
        self._marked = False
        self.echo = echo_of(digest)

    def phrase(self) -> str:
        """Return some words of the prompt."""
        return self._words.phrase(self.below)

    def name(self) -> str:
        """Return a name for a host or a person: a word and the number of the request."""
        return f"{self._words.name(self.below)}{self.echo}"

    def mark(self) -> str:
        """Return the request's number, behind a blank; nothing after the first call."""
        mark, self._marked = "" if self._marked else f" {self.echo}", True
        return mark

    def filler(self) -> str:
        """Return the text that gives the answer its drawn length; empty after the first call."""
        filler, self._filler = self._filler, ""
        return filler

    def below(self, bound: int) -> int:
        """Return the next number in `[0, bound)`."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 20) % bound


_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

Generator: TypeAlias = Callable[[Draw, int], Any]
"""Draws one value; the number is its depth in the answer."""


def number(schema: dict[str, Any], *, whole: bool) -> Generator:
    """Return a generator of numbers within the schema's bounds."""
    step: float = schema.get("multipleOf", 1 if whole else 0)
    unit = step or _unit(schema, whole=whole)
    low: float | None = schema.get("minimum")
    high: float | None = schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + unit
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - unit
    if low is None:
        low = 0 if high is None or high > 0 else high - 1000
    if high is None:
        high = low + 1000
    if whole or step:
        first, last = -int(-low // unit), int(high // unit)
        count = max(1, last - first + 1)
        if whole:
            return lambda draw, _: int((first + draw.below(count)) * unit)
        exact = Decimal(str(unit))  # in binary, three tenths are no multiple of a tenth
        return lambda draw, _: float((first + draw.below(count)) * exact)
    width = high - low
    return lambda draw, _: min(high, max(low, round(low + width * draw.below(10_001) / 10_000, 4)))


def _unit(schema: dict[str, Any], *, whole: bool) -> float:
    """Return the least distance from a bound that excludes itself."""
    if whole:
        return 1
    bounds = [schema.get(name) for name in (*_LOWER, *_UPPER)]
    least, most = (max(pair, default=None) for pair in (_known(bounds[:2]), _known(bounds[2:])))
    return 0.001 if least is None or most is None else min(0.001, (most - least) / 4)


def _known(bounds: list[float | None]) -> list[float]:
    return [bound for bound in bounds if bound is not None]


def string(schema: dict[str, Any]) -> Generator:
    """Return a generator of texts of the schema's format, or of its pattern and length."""
    if schema.get("format") == "decimal":
        return _decimal(schema)
    form = _FORMATS.get(schema.get("format", ""))
    if form is not None:
        return form
    least: int = schema.get("minLength", 0)
    most: int | None = schema.get("maxLength")
    if "pattern" in schema:
        drawn = matching(str(schema["pattern"]), least, most)
        if drawn is not None:
            return lambda draw, _: drawn(draw.below)
    return lambda draw, _: _words(draw, least, most)


def _words(draw: Draw, least: int, most: int | None) -> str:
    """Return words of the prompt; those of an answer's first text end with the request's number."""
    text, mark = draw.phrase(), draw.mark()
    if most is None:
        text += mark + draw.filler()
    else:
        text = f"{_cut(text, max(most - len(mark), 0))}{mark}".strip()[:most]
    while len(text) < least:
        missing = least - len(text)
        more = f" {draw.phrase()}"[:missing].rstrip()
        text += more or _PRINTABLE[draw.below(26)]
    return text


def _cut(text: str, most: int) -> str:
    """Return the words of a text that have `most` characters at most; of a longer word a part."""
    if len(text) <= most:
        return text
    whole = text[: most + 1].rpartition(" ")[0]
    return whole or text[:most]


def _decimal(schema: dict[str, Any]) -> Generator:
    """Return a generator of exact numbers, as texts, within the schema's bounds."""
    places: int = schema.get("decimalPlaces", 2)
    most: int = 10 ** schema.get("maxDigits", 38) - 1
    low = int(schema.get("minimum", 0) * 10**places)
    high = min(most, int(schema.get("maximum", 10**6) * 10**places))

    def draw_decimal(draw: Draw, _: int) -> str:
        return f"{Decimal(low + draw.below(max(1, high - low + 1))).scaleb(-places):f}"

    return draw_decimal


def _uuid(draw: Draw) -> UUID:
    digits = sum(draw.below(1 << 32) << shift for shift in (0, 32, 64, 96))
    return UUID(int=digits, version=4)


def _moment(draw: Draw) -> datetime:
    return _EPOCH + timedelta(seconds=draw.below(200_000_000))


SIMPLE: dict[str, Generator] = {
    "boolean": lambda draw, _: draw.below(2) == 1,
    "null": lambda _draw, _depth: None,
}
_FORMATS: dict[str, Generator] = {
    "date": lambda draw, _: _moment(draw).date().isoformat(),
    "date-time": lambda draw, _: _moment(draw).isoformat().replace("+00:00", "Z"),
    "time": lambda draw, _: _moment(draw).time().isoformat() + "Z",
    "uuid": lambda draw, _: str(_uuid(draw)),
    "email": lambda draw, _: f"{draw.name()}@example.com",
    "uri": lambda draw, _: f"https://example.com/{draw.name()}",
    "hostname": lambda draw, _: f"{draw.name()}.example.com",
    "ipv4": lambda draw, _: f"192.0.2.{draw.below(256)}",
    "ipv6": lambda draw, _: f"2001:db8::{draw.below(65536):x}",
    "duration": lambda draw, _: f"PT{draw.below(3600)}S",
}
