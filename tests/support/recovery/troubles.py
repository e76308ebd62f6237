"""The faults that strike while runs are killed, drawn for each scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator.core.fault_kinds import STYLES
from tests.support.recovery.place import GRACE, UNPAID

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from tests.support.recovery.place import Place

_CREATES: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("http_500_after", 0.04, {}),
    ("drop_after", 0.05, {}),
    ("drop_before", 0.04, {}),
    ("http_500_before", 0.04, {}),
    ("accept_delay", 0.05, {"seconds": GRACE / 3}),
    ("drop_mid_answer", 0.05, {}),
    ("garbled_answer", 0.04, {}),
    ("garbled_answer", 0.02, {"html": True}),
    ("http_error_after", 0.05, {"status": 408}),
    ("http_error_after", 0.03, {"status": 409}),
    ("http_error_after", 0.03, {"status": 425}),
    ("http_error_after", 0.03, {"status": 499}),
    ("http_error_after", 0.03, {"status": 500}),
    ("http_error_after", 0.03, {"status": 502, "html": True}),
    ("http_error_after", 0.03, {"status": 404, "html": True}),
    ("file_not_ready", 0.08, {}),
    ("list_lag", 0.15, {"seconds": GRACE / 3}),
    ("http_429", 0.10, {"route": "create", "retry_after": 0.2}),
    ("slow", 0.15, {"route": "create", "seconds": 0.3}),
)
"""Faults of creates, with their probabilities; of those that strike a call, the first wins."""
_CUT = ("cut_download", 0.2, {"after_bytes": 1500})


def add_troubles(place: Place, rng: random.Random, *, rounds: bool = False) -> bool:
    """Let each fault of a provider strike now and then, at a server of a drawn sort.

    The server writes its objects and lists in a way of its own. `rounds`: some requests end in an
    error, or never run, the first time that they are sent. Returns whether cancels are refused, so
    that they can be tried without an effect.
    """
    for kind, probability, knobs in (*_CREATES, _CUT):
        _add(place, rng, kind, {"probability": probability, **knobs})
    for kind in UNPAID if rounds else ():
        _add(place, rng, kind, {"share": 0.06, "times": 1})
    if rng.random() < 0.8:
        _add(place, rng, "odd_objects", {"style": rng.choice(list(STYLES))})
    if rng.random() < 0.3:
        _add(place, rng, "odd_objects", {"style": "no_metadata"})
    if rng.random() < 0.3:
        _add(place, rng, "list_flat", {})
    if rng.random() < 0.5:
        _add(place, rng, "lists_unproven", {})
    if rng.random() < 0.5:
        _add(place, rng, "bare_create", {"probability": 0.4})
    conflict = rng.random() < 0.4
    if conflict:
        _add(place, rng, "cancel_conflict", {})
    return conflict


def _add(place: Place, rng: random.Random, kind: str, knobs: Mapping[str, Any]) -> None:
    place.emulator.control.faults(kind=kind, seed=rng.randrange(1 << 30), **knobs)


def named(rule: Mapping[str, Any]) -> str:
    """Return a rule's kind, and what distinguishes it from other rules of the kind."""
    page = "page" if rule["html"] else ""
    status = rule["status"] and str(rule["status"])
    return " ".join(filter(None, (rule["kind"], status, rule["style"], page)))
