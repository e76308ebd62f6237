"""What is told if `watch` looks no more: suspended runs wait for it, and nobody sees that."""

from __future__ import annotations

from datetime import timedelta

from batchata_tasks.common.text import duration

SILENT = timedelta(minutes=5).total_seconds()
"""Seconds after the last pass from which on something is wrong: one is due every minute."""


def unwatched(ago: float | None) -> str:
    """Return that `watch` looked last so many seconds ago, or never, and what comes of that."""
    if ago is None:
        return (
            "no scheduled pass of `watch` has looked at this ledger; suspended runs are not "
            "resumed: is it deployed?"
        )
    return (
        f"`watch` last looked {duration(ago)} ago; suspended runs are not resumed: is its "
        "deployment paused?"
    )
