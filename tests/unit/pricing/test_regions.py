"""OpenAI bills newer models a tenth more at its regional hosts: bounds, limits and costs know."""

from __future__ import annotations

import os
import socket
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import PICO, usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.ledger import ChunkState
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.pricing.lookup import published_rates, rates_at
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.providers import provider_type
from batchata_tasks.types.answer import Usage
from tests.support.books import all_chunks, money, run_with, stopping_at
from tests.support.built import request_of
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

EU = "https://eu.api.openai.com/v1"
HOME = "https://api.openai.com/v1"
MODEL = "gpt-5.4-mini"
USAGE = Usage(300_001, 7_000, 1_000, 500, 0, 2)


def surcharge(monkeypatch: pytest.MonkeyPatch, url: str, model: str, endpoint: str = "chat") -> int:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    return provider_type("openai", endpoint)().surcharge(model)


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize(
    ("url", "model", "percent"),
    [
        (EU, MODEL, 10),
        ("https://us.api.openai.com/v1/", "gpt-5.4", 10),
        ("https://IN.API.OPENAI.COM/v1", "gpt-6.2-astra", 10),
        (EU, "gpt-5.4-mini-2026-03-17", 10),
        (EU, "gpt-5.10", 10),
        (EU, "gpt-6-luna", 10),
        (EU, "gpt-10", 10),
        (EU, "gpt-5.3-chat-latest", 0),
        (EU, "gpt-5-mini", 0),
        (EU, "gpt-5-2025-08-07", 0),
        (EU, "gpt-4.1", 0),
        (EU, "gpt-4o-mini", 0),
        (EU, "o4-mini", 0),
        (EU, "ft:gpt-4.1-mini:us::id", 0),
        (HOME, MODEL, 0),
        ("https://mine.openai.azure.com/openai/v1", MODEL, 0),
        ("https://eu.api.openai.com.example.com/v1", MODEL, 0),
        ("https://example.com/eu.api.openai.com/v1", MODEL, 0),
        ("http://127.0.0.1:9/v1", MODEL, 0),
    ],
)
def test_the_address_and_the_model_decide(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, url: str, model: str, percent: int
) -> None:
    """Models from gpt-5.4 on cost 10 % more at any regional host of OpenAI, and nowhere else."""
    assert surcharge(monkeypatch, url, model, endpoint) == percent


def test_anthropic_has_no_dearer_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its surcharge for a place is told by each answer's usage instead."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://eu.api.anthropic.com")
    assert provider_type("anthropic")().surcharge("claude-haiku-5-5") == 0


@pytest.mark.parametrize("model", [MODEL, "gpt-6-luna", "gpt-5.5"])
def test_all_rates_of_tokens_are_a_tenth_higher(model: str) -> None:
    """In each tier, for the bound, the cost and the list price; a search costs what it did."""
    plain, dear = published_rates("openai", model), published_rates("openai", model, surcharge=10)
    assert plain is not None
    assert dear is not None
    searches = 2 * plain.search
    assert (dear.cost(USAGE) - searches) * 10 == (plain.cost(USAGE) - searches) * 11
    assert (dear.list_cost(USAGE) - 2 * plain.listed.search) * 10 == (
        plain.list_cost(USAGE) - 2 * plain.listed.search
    ) * 11
    for size in (1_000, 300_000):
        assert dear.bound(size, 64, cache_writes=True) * 10 == (
            plain.bound(size, 64, cache_writes=True) * 11
        )
    assert dear.source == f"{plain.source} + 10 %, regional"


def test_the_users_own_rates_are_what_they_pay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is added to a rate of prices.toml; list prices it leaves out are the region's."""
    (tmp_path / "prices.toml").write_text(
        f'[openai."{MODEL}"]\ninput = 1\noutput = 2\nas_of = 2026-11-01\nsource = "contract"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", EU)
    rates = rates_at(provider_type("openai")(), MODEL, load_prices(Settings().prices))
    dear = published_rates("openai", MODEL, surcharge=10)
    assert rates is not None
    assert dear is not None
    assert usd(rates.cost(Usage(1_000_000, 1_000_000))) == Decimal(3)
    assert rates.listed == dear.listed


@pytest.fixture
def regional(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Table, str]:
    """Return a table of four rows, and the address of a regional host: the emulator answers it."""
    table = Table(tmp_path, emulator, "openai", rows=4)
    home = provider_type("openai")().base_url
    find: Any = socket.getaddrinfo

    def found(host: Any, *place: Any, **more: Any) -> Any:
        return find("127.0.0.1" if host == "eu.api.openai.com" else host, *place, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return table, home.replace("127.0.0.1", "eu.api.openai.com")


def test_a_run_at_a_regional_host_reserves_and_costs_a_tenth_more(
    regional: tuple[Table, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, reservation, rows, ledger and receipt agree; the ledger keeps the rates for ever."""
    table, url = regional
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    receipt = table.run(model=MODEL, cost_limit_usd=1)
    assert receipt.exit_code == 0
    dear = published_rates("openai", MODEL, surcharge=10)
    assert dear is not None
    for row in table.rows():
        used = Usage(row["_input_tokens"], row["_output_tokens"])
        assert int(row["_cost_usd"] * PICO) == dear.cost(used)
    sums, book = money(table), table.ledger()
    assert sums.reserved == 0
    assert sums.settled == sums.dataset
    used = Usage(book["input_tokens_billed"], book["output_tokens_billed"])
    assert sums.settled == dear.cost(used, requests=4)
    record = prepare_run(table.spec(model=MODEL), Settings()).record["spec"]
    assert "+ 10 %, regional" in record


def test_a_limit_at_a_regional_host_is_of_the_dearer_bound(
    regional: tuple[Table, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What just fits elsewhere does not fit there."""
    table, url = regional
    changes: dict[str, Any] = {"model": MODEL, "max_attempts": 1}
    builder = prepare_run(table.spec(**changes), Settings()).table.builder
    built = request_of(builder, table.values[0])
    bound = builder.routes[0].bound(built.body, built.shape)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    dear = prepare_run(table.spec(**changes), Settings()).table.builder.routes[0]
    assert dear.bound(built.body, built.shape) * 10 == bound * 11
    limit = float(usd(bound * 105 // 100))
    assert table.run(cost_limit_usd=limit, limit=1, **changes).exit_code == 4
    assert table.ledger()["requests_accepted"] == 0


def test_a_model_without_a_price_is_refused_there_as_elsewhere(
    regional: tuple[Table, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A surcharge on nothing is no price."""
    table, url = regional
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(SpecError, match="no batch price is known"):
        table.run(model="gpt-6.2-sol", cost_limit_usd=1)


@pytest.mark.parametrize("back", [False, True])
def test_a_run_is_not_carried_on_where_its_prices_are_others(
    regional: tuple[Table, str], monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """What a dead run did not send is planned anew, with the bounds of the address it goes to.

    What it had landed is not sent again, and costs what it did. The other way round likewise.
    """
    table, url = regional
    home = os.environ["OPENAI_BASE_URL"]
    first, then = (url, home) if back else (home, url)
    changes: dict[str, Any] = {"model": MODEL, "items_per_batch": 1, "cost_limit_usd": 1}
    monkeypatch.setenv("OPENAI_BASE_URL", first)
    with pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("submit", lambda chunk: chunk.start == 2, KeyboardInterrupt()),
            **changes,
            max_parallel_batches=1,
        )
    landed = [chunk.bound for chunk in all_chunks() if chunk.state == ChunkState.LANDED]
    monkeypatch.setenv("OPENAI_BASE_URL", then)
    receipt = table.run(**changes, max_parallel_batches=1)
    assert (receipt.outcomes, receipt.plan["up_to_date"]) == ({"succeeded": 2}, 2)
    sent = [chunk.bound for chunk in all_chunks() if chunk.run_id == receipt.run_id]
    factor = Decimal(10) / 11 if back else Decimal(11) / 10
    assert len(landed) == len(sent) == 2
    for bound, before in zip(sent, landed, strict=True):
        assert bound == pytest.approx(float((before or 0) * factor), rel=1e-6)
    percent = 0 if back else 10
    rates = published_rates("openai", MODEL, surcharge=percent)
    assert rates is not None
    for row in table.rows():
        if row["_run_id"] == receipt.run_id:
            used = Usage(row["_input_tokens"], row["_output_tokens"])
            assert int(row["_cost_usd"] * PICO) == rates.cost(used)
    assert table.ledger()["requests_accepted"] == 4
    sums = money(table)
    assert (sums.reserved, sums.settled) == (0, sums.dataset)
