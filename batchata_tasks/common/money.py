"""Money: picodollars (10^-12 US dollars) as integers.

Every published rate per million tokens is a whole number of them per token, so sums are exact, in
any order.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

PICO = 10**12
MOST_USD = 1_000_000  # the largest limit or single entry


def usd(pico: int) -> Decimal:
    """Return an amount as US dollars, exactly."""
    return Decimal(pico).scaleb(-12)


def pico_from_usd(amount: float | str | Decimal) -> int:
    """Return dollars in picodollars, as written: 0.1 is a tenth, not its binary neighbour."""
    return int(Decimal(str(amount)) * PICO)


def stated(amount: float | str | Decimal, what: str, *, up: bool = False) -> int:
    """Return the picodollars of an amount that a user wrote; finer parts are rounded down, or `up`.

    Raises:
        SpecError: it is not an amount from 0 to a million dollars; the message begins with `what`.
    """
    try:
        value = Decimal(str(amount).strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not (value.is_finite() and 0 <= value <= MOST_USD):
        message = f"{what}: {amount} is not an amount; write US dollars, from 0 to {MOST_USD:,}."
        raise SpecError(message)
    return int((value * PICO).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def total(amounts: Iterable[int | None]) -> int | None:
    """Return the sum of amounts; None if one of them is unknown."""
    pico = 0
    for amount in amounts:
        if amount is None:
            return None
        pico += amount
    return pico


def exact(pico: int | None) -> str | None:
    """Return an amount for JSON: all digits of it in US dollars, or None if it is unknown."""
    return None if pico is None else f"{usd(pico):f}"


def per_row(pico: int, rows: int) -> int | None:
    """Return the average of an amount, to the nearest picodollar; None if there are no rows."""
    return (2 * pico + rows) // (2 * rows) if rows else None


def dollars(pico: int | None) -> str:
    """Return an amount for people: cents, or as many digits as a small amount needs."""
    if pico is None:
        return "unknown"
    amount = usd(pico)
    if amount == 0 or abs(amount) >= Decimal("0.9999"):
        return f"${amount:,.2f}"
    if abs(amount) < Decimal("0.000001"):
        return f"${amount.normalize():f}"
    return f"${amount:.4f}" if abs(amount) >= Decimal("0.01") else f"${amount:.6f}"
