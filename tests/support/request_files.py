"""The files of a dataset's runs: what was sent, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.dataset.packs import kept_bytes, kept_files, opened_packs

if TYPE_CHECKING:
    from pathlib import Path


def sent_bodies(output: Path) -> dict[str, dict[str, Any]]:
    """Return the request bodies that were sent, or may have been, by custom_id."""
    bodies: dict[str, dict[str, Any]] = {}
    for path in kept_files(output / "_batchata/requests", "*.jsonl"):
        content = kept_bytes(path)
        if content.startswith(b'{"requests"'):  # Anthropic's: one document for all
            items = orjson.loads(content)["requests"]
        else:
            items = map(orjson.loads, content.splitlines())
        bodies |= {item["custom_id"]: item.get("params") or item["body"] for item in items}
    return bodies


def lying_twice(output: Path) -> list[str]:
    """Return the files that lie in their folder and in a pack, where they may be outdated."""
    own = output / "_batchata"
    packed = [name for pack in opened_packs(own / "packs") for name in pack.files]
    again = {name for name in packed if packed.count(name) > 1}
    return sorted(again.union(name for name in packed if (own / name).exists()))
