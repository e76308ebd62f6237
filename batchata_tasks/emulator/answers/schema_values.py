"""Numbers and texts that satisfy the plain types of a JSON schema, drawn from a digest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

_MASK = (1 << 64) - 1
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_PRINTABLE = "abcdefghijklmnopqrstuvwxyz"


class Draw:
    """A stream of numbers and texts that is fully determined by a digest."""

    __slots__ = ("_filler", "_state", "echo")

    def __init__(self, digest: bytes, filler: str = "") -> None:
        self._state = int.from_bytes(digest[:8], "big")
        self._filler = filler
        self.echo = digest.hex()[:12]

    def filler(self) -> str:
        """Return the text that gives the answer its drawn length; empty after the first call."""
        filler, self._filler = self._filler, ""
        return filler

    def below(self, bound: int) -> int:
        """Return the next number in `[0, bound)`."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 20) % bound


Generator: TypeAlias = Callable[[Draw, int], Any]
"""Draws one value; the number is its depth in the answer."""


def number(schema: dict[str, Any], *, whole: bool) -> Generator:
    """Return a generator of numbers within the schema's bounds."""
    step: float = schema.get("multipleOf", 1 if whole else 0)
    unit = step or 0.001
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
        return lambda draw, _: (first + draw.below(count)) * unit
    width = high - low
    return lambda draw, _: min(high, max(low, round(low + width * draw.below(10_001) / 10_000, 4)))


def string(schema: dict[str, Any], name: str) -> Generator:
    """Return a generator of texts of the schema's format and length."""
    if schema.get("format") == "decimal":
        return _decimal(schema)
    form = _FORMATS.get(schema.get("format", ""))
    if form is not None:
        return form
    least: int = schema.get("minLength", 0)
    most: int | None = schema.get("maxLength")

    def draw_string(draw: Draw, _: int) -> str:
        # The echo of the digest comes first: it must survive a short maximum length.
        text = f"{draw.echo} {name} {draw.below(1000)}"
        if most is None:
            text += draw.filler()
        if len(text) < least:
            text += _PRINTABLE[draw.below(26)] * (least - len(text))
        return text if most is None else text[:most]

    return draw_string


def _decimal(schema: dict[str, Any]) -> Generator:
    """Return a generator of exact numbers, as texts, within the schema's bounds."""
    places: int = schema.get("decimalPlaces", 2)
    most: int = 10 ** schema.get("maxDigits", 38) - 1
    low = int(schema.get("minimum", 0) * 10**places)
    high = min(most, int(schema.get("maximum", 10**6) * 10**places))

    def draw_decimal(draw: Draw, _: int) -> str:
        return f"{Decimal(low + draw.below(max(1, high - low + 1))).scaleb(-places):f}"

    return draw_decimal


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
    "uuid": lambda draw, _: str(UUID(int=draw.below(1 << 40) << 64 | draw.below(1 << 40))),
    "email": lambda draw, _: f"{draw.echo}@example.com",
    "uri": lambda draw, _: f"https://example.com/{draw.echo}",
    "hostname": lambda draw, _: f"{draw.echo}.example.com",
    "ipv4": lambda draw, _: f"192.0.2.{draw.below(256)}",
    "ipv6": lambda draw, _: f"2001:db8::{draw.below(65536):x}",
    "duration": lambda draw, _: f"PT{draw.below(3600)}S",
}
