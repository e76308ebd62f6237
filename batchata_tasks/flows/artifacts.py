"""What runs leave in Prefect's user interface."""

from __future__ import annotations

import re

from batchata_tasks.common.commands import naming
from batchata_tasks.common.text import printable

_IN_A_CELL = 100  # characters: cells do not wrap, and what is longer is cut at the table's edge


def markdown(title: str, lines: list[tuple[str, str]], spec: str | None = None) -> str:
    """Return (what, value) pairs as a Markdown page; `spec` is the spec's path.

    Long values are paragraphs, the others one table below them.
    """
    told = [(what, naming(value, spec)) for what, value in lines]
    long = [
        f"**{printable(what)}**: {printable(value)}\n\n"
        for what, value in told
        if len(value) > _IN_A_CELL
    ]
    rows = [
        f"| {_cell(what)} | {_cell(value)} |\n" for what, value in told if len(value) <= _IN_A_CELL
    ]
    table = ["| | |\n|---|---|\n", *rows] if rows else []
    return "".join([f"# {title}\n\n", *long, *table])


def _cell(text: str) -> str:
    return printable(text).replace("|", r"\|")


def slug(text: str) -> str:
    """Return a text as an artifact's key: lowercase letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
