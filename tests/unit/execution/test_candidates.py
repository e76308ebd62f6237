"""Whether a listed batch is the one that the ledger knows by its id."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.candidates import is_namesake, owned_of
from batchata_tasks.ledger import Intent, KnownBatch
from batchata_tasks.providers import Adapter, BatchLook, provider_type
from tests.support.answering import Answer, Asked, answering

NOW = 1_800_000_000.0
INTENT = Intent("ours", "account", 3, 1, int(NOW * 1e6), mark=int((NOW - 60) * 1e6))
KNOWN = KnownBatch("batch_1", "other", "account", int((NOW - 900) * 1e6), None, 3)


def listed(**facts: Any) -> BatchLook:
    return replace(BatchLook("batch_1", "in_progress", ended=False, created_at=None), **facts)


@pytest.mark.parametrize(
    "facts",
    [
        {"token": "ours"},
        {"token": "a stranger's"},
        {"created_at": NOW - 59},
        {"created_at": NOW + 5},
    ],
)
def test_what_contradicts_the_ledger_is_another_batch(facts: dict[str, Any]) -> None:
    """Another token, or a date after ours was about to be sent."""
    assert is_namesake(listed(**facts), KNOWN, INTENT)


def test_a_batch_of_the_size_of_ours_is_not_the_known_one() -> None:
    """Counts may be wrong; one that is ours, and not the known batch's, tells them apart."""
    known = replace(KNOWN, requests=4)
    assert is_namesake(listed(requests=3), known, INTENT)
    assert not is_namesake(listed(requests=2), known, INTENT)


def test_a_batch_that_had_ended_does_not_run() -> None:
    """Where no date is told, the end that was seen tells a batch from the one that runs."""
    known = replace(KNOWN, ended_at=KNOWN.submitted_at + 1)
    assert is_namesake(listed(), known, INTENT)
    assert not is_namesake(listed(ended=True), known, INTENT)


@given(
    lag=st.floats(0, 3000),
    life=st.floats(0.001, 200),
    skew=st.floats(-300, 0),
    mark=st.none() | st.floats(0, 1),
)
def test_a_known_batch_that_a_list_shows_late_is_that_batch(
    lag: float, life: float, skew: float, mark: float | None
) -> None:
    """The mark does not show one made right before it, since lists lag."""
    made = NOW - life
    known = replace(KNOWN, submitted_at=int(NOW * 1e6) - 1)
    intent = replace(INTENT, mark=None if mark is None else int(mark * (made - lag) * 1e6))
    assert not is_namesake(listed(created_at=made + skew, requests=3), known, intent)


@dataclass
class Looker:
    """The part of a run that looking for a batch needs."""

    provider: Adapter
    settings: Settings
    ledger: Any = None
    lease: Any = None
    slept: int = 0

    def sleep(self, seconds: float) -> None:
        del seconds
        self.slept += 1

    def log(self, text: str) -> None:
        del text

    def seconds_left(self) -> float:
        return math.inf


@pytest.mark.parametrize("api", ["anthropic", "openai"])
def test_strangers_whose_results_are_not_handed_out_share_one_patience(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is found behind forty of them, each asked once; they alone are not asked for hours."""
    token = "t" * 20
    line = f'{{"custom_id": "{token}-{"a" * 24}"}}'

    def answer(asked: Asked) -> Answer:
        if "ours" in asked.path:
            return 200, line
        return 404, {"error": {"message": "No such batch", "type": "not_found_error"}}

    with answering(answer) as server:
        monkeypatch.setenv(f"{api.upper()}_BASE_URL", server.url)
        monkeypatch.setenv(f"{api.upper()}_API_KEY", "test-key")
        context = Looker(provider_type(api)(), Settings(patience=1.0))
        looks = [
            BatchLook(name, "ended", ended=True, created_at=None, files=(f"file-{name}",))
            for name in (*(f"strange-{n}" for n in range(40)), "ours")
        ]
        intent = replace(INTENT, chunk_id=token)
        found, _ = owned_of(context, looks, intent)
        assert found is looks[-1]
        assert (len(server.asked), context.slept) == (41, 0)
        found, owned = owned_of(context, looks[:-1], intent)
        assert (found, set(owned.values())) == (None, {None})
