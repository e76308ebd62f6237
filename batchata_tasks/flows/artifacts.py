"""What runs leave in Prefect's user interface."""

from __future__ import annotations

import re

from batchata_tasks.common.commands import naming
from batchata_tasks.common.text import printable


def markdown(title: str, lines: list[tuple[str, str]], spec: str | None = None) -> str:
    """Return (what, value) pairs as a Markdown page with one table; `spec` is the spec's path."""
    rows = "\n".join(f"| {_cell(what)} | {_cell(naming(value, spec))} |" for what, value in lines)
    return f"# {title}\n\n| | |\n|---|---|\n{rows}\n"


def _cell(text: str) -> str:
    return printable(text).replace("|", r"\|")


def slug(text: str) -> str:
    """Return a text as an artifact's key: lowercase letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
