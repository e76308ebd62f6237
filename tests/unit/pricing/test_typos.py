"""A model's name that is likely a typo is told, with or without a limit, and is never refused."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from batchata_tasks import Batch
from batchata_tasks.common.errors import SpecError
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pricing.lookup import likely_typo
from batchata_tasks.pricing.price_file import CustomPrices, load_prices
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.providers import provider_name
from tests.support.operations import preview
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

TYPOS = {"anthropic": "claude-hiaku-5-5", "openai": "gpt-6-lunar"}


@pytest.fixture(params=TYPOS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, request.param, rows=3)


def test_a_typo_is_told_by_plan_and_run(table: Table) -> None:
    """Without a limit it is a note, in the plan and before anything is sent."""
    spec = table.spec(model=TYPOS[table.provider])
    meant = MODELS[table.provider]
    (note,) = preview(spec).notes
    assert note.startswith(f"model: no batch price is known for {spec.model!r} (did you mean")
    assert meant in note
    assert ("Note", note) in preview(spec).lines()
    lines = list[str]()
    receipt = enrich(spec, progress=LineProgress(lines.append))
    assert sum(receipt.outcomes.values()) == 3  # it was sent, whatever the provider says
    assert lines[0] == note


def test_a_limit_refuses_it_with_the_suggestion(table: Table) -> None:
    """Under a limit it is refused, as every model without a price."""
    with pytest.raises(SpecError, match=rf"did you mean .*{MODELS[table.provider]}"):
        preview(table.spec(model=TYPOS[table.provider], cost_limit_usd=1))


def test_a_name_of_no_provider_has_a_suggestion() -> None:
    """A typo in how the name begins leads to no provider, and to a suggestion all the same."""
    for wrong, meant in (("cluade-haiku-5-5", "claude-haiku-5-5"), ("gtp-6-luna", "gpt-6-luna")):
        with pytest.raises(SpecError, match=rf"known here \(did you mean {meant}"):
            provider_name(wrong)
    with pytest.raises(SpecError, match="known here; check its spelling"):
        provider_name("llama-9")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-haiku-5-5"),  # it has a price
        ("openai", "gpt-9-nebula"),  # like none
        ("openai", "ft:gpt-4o-mini:team::abc"),
        ("openai", "my-gpt-6-luna"),  # of a server of one's own, with `provider: openai`
        ("mistral", "mistral-large"),  # of a provider that others registered
    ],
)
def test_what_is_no_typo(provider: str, model: str) -> None:
    """Nothing is said of models with prices, new names, and names that are the user's own."""
    assert likely_typo(provider, model, CustomPrices()) is None


def test_models_of_the_price_file_are_no_typos(tmp_path: Path) -> None:
    """A model with a price of the user's own is known, and what is like its name is a typo."""
    (tmp_path / "prices.toml").write_text(
        '[openai."gpt-mine-70b"]\ninput=1\noutput=2\nas_of=2026-11-01\nsource="us"\n'
    )
    prices = load_prices(str(tmp_path / "prices.toml"))
    assert likely_typo("openai", "gpt-mine-70b", prices) is None
    assert "did you mean gpt-mine-70b?" in (likely_typo("openai", "gpt-mine-7b", prices) or "")


def test_add_job_warns_once(tmp_path: Path) -> None:
    """`Batch.add_job` warns of it at its caller, once for each model, and adds the job."""
    batch = Batch(tmp_path / "answers")
    with pytest.warns(UserWarning, match=r"'a': model: .* \(did you mean claude-haiku-5-5") as told:
        batch.add_job(id="a", model="claude-hiaku-5-5", prompt="x")
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch.add_job(id="b", model="claude-hiaku-5-5", prompt="x")
        batch.add_job(id="c", model="claude-haiku-5-5", prompt="x")
    assert [job.id for job in batch.jobs] == ["a", "b", "c"]
    batch.add_cost_limit(1)
    with pytest.raises(SpecError, match="did you mean claude-haiku-5-5"):
        batch.add_job(id="d", model="claude-hiaku-5-5", prompt="x")
