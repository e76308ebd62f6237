"""Reads the option `--fault`: what an emulator is to do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import InputError
from batchata_tasks.emulator.core.fault_text import parse_fault
from batchata_tasks.emulator.core.faults import FaultError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.core.faults import Rule


def fault_rules(texts: Iterable[str]) -> list[Rule]:
    """Read the faults of a command line.

    Raises:
        InputError: one is no fault, or has a setting that it does not read.
    """
    return [_rule(text) for text in texts]


def _rule(text: str) -> Rule:
    try:
        return parse_fault(text)
    except FaultError as error:
        message = f"--fault: {error}; `batchata emulator --list-faults` has all of them."
        raise InputError(message) from error
