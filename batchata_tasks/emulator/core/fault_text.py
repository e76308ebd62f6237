"""Fault rules as text: `KIND` or `KIND:setting=value,setting=value`, as a command line has them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from batchata_tasks.emulator.core.fault_kinds import KINDS, SCOPES
from batchata_tasks.emulator.core.faults import SETTINGS, FaultError, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = {"true": True, "false": False}


def parse_fault(text: str) -> Rule:
    """Read a rule, for example `http_error_after:status=408,nth=1`.

    A setting that is yes or no can stand alone: `html` is `html=true`. A comma belongs to a value
    if no setting follows it. Raises FaultError with a sentence that says what is wrong.
    """
    kind, colon, rest = text.partition(":")
    if kind not in KINDS:
        message = f"unknown fault {kind!r}{_nearest(kind, KINDS)}"
        raise FaultError(message)
    if colon and not rest:
        message = f"a setting is missing after {text!r}"
        raise FaultError(message)
    given = dict(_setting(kind, part) for part in _parts(rest))
    ignored = next((name for name in given if not _reads(kind, name)), None)
    if ignored is not None:
        message = f"{kind} does not read {ignored!r}; it reads {', '.join(reads(kind))}"
        raise FaultError(message)
    return Rule.parse({"kind": kind, **given})


def reads(kind: str) -> list[str]:
    """Return the settings of a rule that a kind reads."""
    of_scope, own = SCOPES[KINDS[kind].scope].settings, KINDS[kind].settings
    return [*filter(None, f"{own}, {of_scope}".split(", "))]


def _reads(kind: str, name: str) -> bool:
    # requests are struck by kinds of many sorts, whose settings are not all listed
    return KINDS[kind].scope in ("request", "line") or name in reads(kind)


def _parts(rest: str) -> list[str]:
    """Split settings at the commas between them."""
    parts: list[str] = []
    for part in rest.split(",") if rest else []:
        if parts and "=" not in part and part not in SETTINGS:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _setting(kind: str, part: str) -> tuple[str, object]:
    name, equals, value = part.partition("=")
    expected = SETTINGS.get(name)
    if expected is None or name == "kind":
        message = f"{kind} has no setting {name!r}{_nearest(name, reads(kind))}"
        raise FaultError(message)
    if expected == "bool":
        value = value if equals else "true"
        if value in _WORDS:
            return name, _WORDS[value]
        message = f"{name} of {kind} must be true or false, not {value!r}"
        raise FaultError(message)
    if not equals or not value:
        message = f"{name} of {kind} needs a value, as in {name}=…"
        raise FaultError(message)
    if expected == "str":
        return name, value
    try:
        return name, int(value) if expected == "int" else float(value)
    except ValueError:
        wanted = "a whole number" if expected == "int" else "a number"
        message = f"{name} of {kind} must be {wanted}, not {value!r}"
        raise FaultError(message) from None


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
