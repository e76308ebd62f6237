"""Names of flows, and of flow runs: a given one is kept, one that Prefect drew is replaced."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

ENRICH = "enrich"
"""The name of the flow that fills a dataset."""

WATCH = "watch"
"""The name of the flow that resumes suspended flow runs."""

BATCHES_CANCELLED = "BatchesCancelled"
"""The name of the state of a flow run that ended a run which a person cancelled."""


def is_drawn(name: str) -> bool:
    """Whether Prefect drew a name, such as `olive-quoll`: nothing else tells that it was given."""
    words = name.split("-")
    return len(words) == 2 and _words().issuperset(words)  # noqa: PLR2004 - an adjective, a noun


@cache
def _words() -> frozenset[str]:
    """Return the words that Prefect draws names from."""
    lists: dict[str, dict[str, Any]] = import_module("coolname.data").config  # it has no types
    return frozenset(word for one in lists.values() for word in one.get("words", ()))
