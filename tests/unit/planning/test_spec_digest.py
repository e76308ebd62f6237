"""A spec keeps its digest from version to version, so that a run goes on after an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchata_tasks.common.settings import Settings
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.spec.enrichment import EnrichmentSpec

SPEC: dict[str, Any] = {
    "name": "tickets",
    "source": "tickets.csv",
    "key": ["id"],
    "prompt": "{{ text }}",
    "model": "claude-haiku-5-5",
    "output": "out",
}


@pytest.mark.parametrize(
    ("keys", "digest"),
    [
        ({}, "af067515f504a85e56a6"),
        ({"csv": {"quote": "'"}}, "d10d6e67fbdebcc5ab7a"),
        ({"csv": {"delimiter": ","}}, "f2be82b450a086bac302"),
        ({"csv": {"delimiter": ";"}}, "e4e5ea8faf43cf0c6550"),
        ({"pilot": {"rows": 5}, "max_tokens": 50}, "ce956571b66d6ee760d3"),
        ({"cost_limit_usd": 2, "where": "id != 'b'"}, "1ce9a0c9aabbc36738ef"),
        ({"retention": "30d"}, "7902aad035a0c1c327cb"),
    ],
)
def test_digests_of_earlier_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: dict[str, Any], digest: str
) -> None:
    """A key that later versions added, or a default that they changed, makes no other spec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    head = "id;text" if keys.get("csv", {}).get("delimiter") == ";" else "id,text"
    Path("tickets.csv").write_text(f"{head}\n", encoding="utf-8")
    ready = prepare_run(EnrichmentSpec.model_validate(SPEC | keys), Settings())
    assert ready.record["spec_digest"].startswith(digest)
