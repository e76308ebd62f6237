"""Money: picodollars (10^-12 US dollars) as integers.

Every published rate per million tokens is a whole number of them per token, so sums are exact and
the order of adding is nothing.
"""

from __future__ import annotations

from decimal import Decimal

PICO = 10**12


def usd(pico: int) -> Decimal:
    """Return an amount as US dollars, exactly."""
    return Decimal(pico).scaleb(-12)


def pico_from_usd(amount: float | str | Decimal) -> int:
    """Return a limit in picodollars, as it is written: 0.1 is a tenth, not its binary neighbour."""
    return int(Decimal(str(amount)) * PICO)


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
