"""A budget that many specs share is written once, and each spec names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.loading import parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.spec.enrichment import EnrichmentSpec

GIVEN = {
    "name": "one",
    "source": "a.csv",
    "key": "id",
    "model": "claude-haiku-5-5",
    "prompt": "{{ text }}",
    "output": "out",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(tmp_path: Path, text: str | None, budget: object) -> EnrichmentSpec:
    """Return a spec beside a budgets.yaml of this text."""
    if text is not None:
        (tmp_path / "budgets.yaml").write_text(text)
    return parse_spec({**GIVEN, "budget": budget})


def test_a_name_stands_for_the_terms(tmp_path: Path) -> None:
    """A spec that names a budget is the spec that writes its terms out."""
    text = "nightly: {limit_usd: 20, period: day, timezone: Europe/Berlin}\nother: {limit_usd: 1}\n"
    terms = {"name": "nightly", "limit_usd": 20, "period": "day", "timezone": "Europe/Berlin"}
    assert spec(tmp_path, text, "nightly") == spec(tmp_path, None, terms)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file .*budgets.yaml to look up 'nightly' in; make it, with a line"),
        ("nihgtly: {limit_usd: 1}\n", "there is no budget 'nightly' in .*did you mean 'nihgtly'"),
        ("x: {limit_usd: 1}\n", "there is no budget 'nightly' in .*; it has: x"),
        ("nightly: {limit_usd: -1}\n", "`budget.limit_usd`"),
        ("nightly: {limit: 1}\n", "`budget.limit`"),
        ("nightly: 5\n", "has to map names of budgets to their terms"),
        ("- nightly\n", "has to map names of budgets to their terms"),
        ("nightly: {limit_usd: 1}\nnightly: {limit_usd: 2}\n", "is given twice"),
        ("nightly: [\n", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """An ignored limit is no limit: the spec is refused, with file, name and remedy."""
    with pytest.raises(SpecError, match=words) as caught:
        spec(tmp_path, text, "nightly")
    assert "\n" not in str(caught.value)
