"""Models for jobs, and the requests of a batch of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"


def sent(emulator: Emulator) -> int:
    """Return how many requests the providers accepted."""
    books = emulator.control.ledger()
    return sum(
        batch["requests"]
        for provider in ("anthropic", "openai")
        for batch in books[provider]["batches"]
        if batch["accepted"]
    )


def bodies(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was sent, by custom_id, from the raw files."""
    requests: dict[str, dict[str, Any]] = {}
    for path in (folder / "raw_files/requests").iterdir():
        if path.name.startswith("anthropic"):
            requests |= {
                one["custom_id"]: one["params"] for one in json.loads(path.read_text())["requests"]
            }
        else:
            requests |= {
                one["custom_id"]: one["body"]
                for one in map(json.loads, path.read_text().splitlines())
            }
    return requests
