"""What runs leave in Prefect's user interface."""

from __future__ import annotations

import re


def markdown(title: str, lines: list[tuple[str, str]]) -> str:
    """Return (what, value) pairs as a Markdown page with one table."""
    rows = "\n".join(f"| {what} | {value.replace('|', chr(92) + '|')} |" for what, value in lines)
    return f"# {title}\n\n| | |\n|---|---|\n{rows}\n"


def slug(text: str) -> str:
    """Return a text as an artifact's key: lowercase letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
