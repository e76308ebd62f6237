"""The price traps: our figures are those by hand, and the page is what the script writes."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = ROOT / "benchmarks" / "price_traps.py"


def _script() -> ModuleType:
    """Load the script, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("price_traps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["price_traps"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["price_traps"]
    return module


PRICE_TRAPS = _script()


@pytest.mark.parametrize("trap", PRICE_TRAPS.TRAPS, ids=lambda trap: trap.what.replace(" ", "-"))
def test_nobody_falls_into_the_trap(trap: Any) -> None:
    """The published rates by hand give what we charge, to the last digit.

    The trap is a real one: it gives something else.
    """
    assert trap.ours() == trap.by_hand()
    assert trap.trapped() != trap.by_hand()


def test_the_page_is_the_scripts() -> None:
    """The committed page is what the script writes today."""
    assert SCRIPT.with_suffix(".md").read_text(encoding="utf-8") == PRICE_TRAPS.page()


def test_both_providers_and_both_directions_are_there() -> None:
    """There are traps that are too cheap and too dear, with each provider.

    There are also some for which no price may be given.
    """
    directions = {
        (trap.provider, trap.by_hand() > trap.trapped())
        for trap in PRICE_TRAPS.TRAPS
        if trap.by_hand() is not None
    }
    assert directions == {
        (provider, cheaper) for provider in ("anthropic", "openai") for cheaper in (True, False)
    }
    assert sum(trap.by_hand() is None for trap in PRICE_TRAPS.TRAPS) >= 3
