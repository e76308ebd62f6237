"""Prices in real runs: an unknown one is reported everywhere and never zero.

The user's own prices count like any other.
"""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import PICO, usd
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.planning.row_requests import RequestBuilder
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.pricing.price_file import CustomPrices
from batchata_tasks.providers import provider_type
from batchata_tasks.reports.rows import rows_table
from batchata_tasks.reports.selected_rows import Selection, dataset_rows
from batchata_tasks.reports.status import runs_table
from batchata_tasks.types.answer import Usage
from tests.support.books import all_chunks, billed, money, opened, run_with, stopping_at
from tests.support.built import request_of
from tests.support.operations import cancel, preview, runs_overview
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef

pytestmark = pytest.mark.in_turn

UNKNOWN = {"anthropic": "claude-mythos-5-1", "openai": "gpt-6.2-sol"}
NO_PRICE = "unknown: no batch price is known for"
ROWS = 6


@pytest.fixture(params=MODELS)
def table(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Table:
    """Return a small table, for each provider, in a folder of its own to run in."""
    monkeypatch.chdir(tmp_path)
    return Table(tmp_path, emulator, request.param, rows=ROWS)


def state_prices(table: Table, model: str, rate: str = "2") -> None:
    text = (
        f'[{table.provider}."{model}"]\ninput = {rate}\noutput = '
        '8\nas_of = 2026-11-01\nsource = "a test"\n'
    )
    (table.folder / "prices.toml").write_text(text, encoding="utf-8")


def printed(thing: object) -> str:
    console = Console(file=(screen := StringIO()), width=200)
    console.print(thing)
    return screen.getvalue()


def line(lines: list[tuple[str, str]], what: str) -> str:
    return dict(lines)[what]


def test_an_unknown_price_is_said_and_never_zero(table: Table) -> None:
    """A model without a price has null or `unknown` wherever a cost is shown.

    That is plan, receipt, dataset, `show` and `status`.
    """
    model = UNKNOWN[table.provider]
    plan = preview(table.spec(model=model))
    assert (plan.to_json()["upper_bound_usd"], plan.to_json()["price_source"]) == (None, None)
    assert line(plan.lines(), "Cost").startswith(f"{NO_PRICE} {model}")

    receipt = table.run(model=model)
    assert receipt.outcomes == {"succeeded": ROWS}
    assert (receipt.cost_usd, receipt.upper_bound_usd, receipt.price_source) == (None, None, None)
    assert line(receipt.lines(), "Cost").startswith(f"{NO_PRICE} {model}")
    assert receipt.input_tokens > 0

    assert {row["_cost_usd"] for row in table.rows()} == {None}
    shown = dataset_rows(table.spec(), Selection(ROWS))
    assert {row["_cost_usd"] for row in shown} == {None}
    assert "_cost_usd" not in printed(rows_table(table.spec(), shown, 100))

    (run,) = runs_overview(table.spec())
    assert (run["settled_usd"], run["in_flight_usd"]) == (None, None)
    assert printed(runs_table([run])).count("unknown") == 2
    assert "$0" not in printed(runs_table([run]))
    assert [tally.cost for tally in tallies(run["run_id"]).values()] == [None]
    assert preview(table.spec(model=model)).summary.up_to_date == ROWS


def tallies(run_id: str) -> dict[str, Any]:
    with opened() as ledger:
        return ledger.outcomes(run_id)


def test_unknown_while_it_flies_and_when_it_is_cancelled(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost is unknown in `status` while a run works, and in the report of `cancel`."""
    table.emulator.control.progress("reads", 3)
    with monkeypatch.context(), pytest.raises(KeyboardInterrupt):
        run_with(
            table,
            stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True),
            model=UNKNOWN[table.provider],
        )
    (run,) = runs_overview(None)
    assert (run["state"], run["settled_usd"], run["in_flight_usd"]) == ("open", None, None)
    report = cancel(table.spec(model=UNKNOWN[table.provider]))
    assert report.settled_usd is None
    assert line(report.lines(), "Cost") == "unknown"


def test_known_costs_are_told(table: Table) -> None:
    """For a priced model, `status` and `cancel` report the settled money, digit by digit."""
    receipt = table.run()
    (run,) = runs_overview(table.spec())
    assert (run["settled_usd"], run["in_flight_usd"]) == (receipt.cost_usd, f"{usd(0):f}")
    assert receipt.cost_usd is not None
    assert Decimal(receipt.cost_usd) == usd(billed(table))
    assert "unknown" not in printed(runs_table([run]))


@pytest.mark.parametrize("fault", ["request_unknown_id", "request_missing", "request_unknown_type"])
def test_overhead_of_an_unknown_price_is_unknown(
    table: Table, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that nobody sent and lost answers do not turn an unknown sum into a number."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.2")
    table.emulator.control.faults(kind=fault, contains="row 4", times=1)
    receipt = table.run(model=UNKNOWN[table.provider], max_attempts=1)
    assert receipt.cost_usd is None
    assert {row["_cost_usd"] for row in table.rows()} == {None}
    (run,) = runs_overview(table.spec())
    assert run["settled_usd"] is None


def test_a_row_whose_earlier_attempt_had_no_price_has_none(table: Table) -> None:
    """The sum of an unknown and a known amount is unknown.

    Rows that only the priced run paid for have their price.
    """
    model = UNKNOWN[table.provider]
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    table.run(model=model, max_attempts=1)
    assert {row["_cost_usd"] for row in table.rows()} == {None}
    state_prices(table, model)
    table.values.append({"id": "k6", "text": "text of row 6", "note": "n6"})
    table.write()
    receipt = table.run(model=model, max_attempts=3, cost_limit_usd=1)
    costs = {row["id"]: row["_cost_usd"] for row in table.rows()}
    assert costs.pop("k6") > 0
    assert set(costs.values()) == {None}
    assert receipt.outcomes == {"succeeded": 2}
    assert receipt.cost_usd is not None
    assert Decimal(receipt.cost_usd) > 0


def test_the_users_prices_hold_a_limit(table: Table) -> None:
    """With rates from prices.toml a limit is accepted and the books are exact.

    Plan, receipt and ledger name the source.
    """
    model = UNKNOWN[table.provider]
    with pytest.raises(SpecError, match=r"state its batch rates in prices\.toml"):
        preview(table.spec(model=model, cost_limit_usd=1))
    state_prices(table, model)
    stamp = "prices.toml (as of 2026-11-01, source: a test)"
    assert preview(table.spec(model=model, cost_limit_usd=1)).price_source == stamp
    receipt = table.run(model=model, cost_limit_usd=1)
    assert receipt.price_source == stamp
    assert stamp in line(receipt.lines(), "Cost")
    with opened() as ledger:
        assert ledger.run(receipt.run_id).price_source == stamp
    book = table.ledger()
    due = (
        book["input_tokens_billed"] * 2 * PICO // 10**6
        + book["output_tokens_billed"] * 8 * PICO // 10**6
    )
    assert receipt.cost_usd == f"{usd(due):f}"
    assert sum(row["_cost_usd"] for row in table.rows()) == usd(due)


def test_a_wrong_price_file_stops_a_run_before_it_begins(table: Table) -> None:
    """Plan and run refuse it in the same words, even if the model's own price is known.

    Nothing is sent or written.
    """
    state_prices(table, "another-model", "-2")
    for attempt in (lambda: preview(table.spec()), table.run):
        with pytest.raises(
            SpecError,
            match=(
                r"^prices\.toml: \w+, model 'another-model': `input`: "
                "-2 is not an amount; write US dollars"
            ),
        ):
            attempt()
    assert table.ledger()["requests_accepted"] == 0
    assert not table.output.exists()


def test_a_run_keeps_the_prices_that_it_began_with(table: Table) -> None:
    """Prices that change while batches are at the provider do not change that run.

    Its books stay those of its bounds.
    """
    state_prices(table, MODELS[table.provider])

    def dearer(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        state_prices(table, MODELS[table.provider], "900")
        return Steps().poll(ref, chunk_id)

    receipt = run_with(table, Steps(poll=dearer), cost_limit_usd=1)
    book = table.ledger()
    due = (
        book["input_tokens_billed"] * 2 * PICO // 10**6
        + book["output_tokens_billed"] * 8 * PICO // 10**6
    )
    assert receipt.cost_usd == f"{usd(due):f}"
    assert receipt.warnings == []


def died_at_the_provider(table: Table, model: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", lambda _: True, KeyboardInterrupt()), model=model)


@pytest.mark.parametrize("now", ["900", None], ids=["dearer", "gone"])
def test_a_run_that_is_carried_on_keeps_its_prices(table: Table, now: str | None) -> None:
    """Whatever is in the price file by then, the run's books stay those of its bounds.

    No bounds grow for it.
    """
    model = UNKNOWN[table.provider]
    state_prices(table, model)
    died_at_the_provider(table, model)
    if now is None:
        (table.folder / "prices.toml").unlink()
    else:
        state_prices(table, model, now)
    receipt = table.run(model=model)
    book = table.ledger()
    due = (
        book["input_tokens_billed"] * 2 * PICO // 10**6
        + book["output_tokens_billed"] * 8 * PICO // 10**6
    )
    assert (receipt.continued, receipt.cost_usd, receipt.warnings) == (True, f"{usd(due):f}", [])
    assert receipt.price_source == "prices.toml (as of 2026-11-01, source: a test)"
    with opened() as ledger:
        assert ledger.bounds_factor(table.provider, model) == 10**6


def test_a_dead_run_of_another_spec_lands_at_its_own_prices(table: Table) -> None:
    """What the dead run sent costs at most its reservation.

    What is sent from then on is bounded by today's prices.
    """
    model = UNKNOWN[table.provider]
    state_prices(table, model)
    died_at_the_provider(table, model)
    (chunk,) = all_chunks()
    state_prices(table, model, "900")
    receipt = table.run(model=model, prompt="Again: {{ text }}", max_tokens=20)
    assert not receipt.continued
    books = money(table)
    with opened() as ledger:
        assert ledger.money(chunk.run_id)[0] <= (chunk.bound or 0)
    assert books.settled == books.dataset + books.superseded + books.overhead


def test_prices_that_come_later_make_no_unknown_cost_known(table: Table) -> None:
    """A run that was planned without a price has none, even if there is one when it lands."""
    model = UNKNOWN[table.provider]
    died_at_the_provider(table, model)
    state_prices(table, model)
    receipt = table.run(model=model)
    assert (receipt.continued, receipt.cost_usd, receipt.warnings) == (True, None, [])
    assert {row["_cost_usd"] for row in table.rows()} == {None}


def test_each_row_is_priced_alone(table: Table) -> None:
    """Tiers go by a row's own input: many small rows do not reach the tier of their sum."""
    rates = published_rates(table.provider, MODELS[table.provider])
    assert rates is not None
    start = rates.input.tiers[0][0]
    for value in table.values:
        value["text"] += " long" * (start // 4)
    table.write()
    table.run()
    rows = table.rows()
    assert sum(row["_input_tokens"] for row in rows) > start
    for row in rows:
        assert row["_input_tokens"] < start
        assert row["_cost_usd"] == usd(
            rates.cost(Usage(row["_input_tokens"], row["_output_tokens"]))
        )
    sums = money(table)
    assert sums.settled == sums.dataset < billed(table)  # which prices the sum


def test_a_bound_takes_what_the_provider_can_bill(table: Table) -> None:
    """Anthropic bills cache writes only on request, so its bound is the plain rate.

    OpenAI may write caches without one.
    """
    rates = published_rates(table.provider, MODELS[table.provider])
    bound = preview(table.spec(max_tokens=1)).summary.bound
    assert rates is not None
    assert bound is not None
    rate = {"anthropic": rates.input, "openai": rates.cache_write}[table.provider].base
    tokens, rest = divmod(bound - ROWS * rates.output.base, rate)
    table.run(max_tokens=1)
    assert rest == 0
    assert tokens >= table.ledger()["input_tokens_billed"]


def test_a_cache_mark_doubles_anthropics_bound(emulator: Emulator, tmp_path: Path) -> None:
    """A request for caching is bounded at the rate of hour-long writes.

    The same words in a row's text request nothing.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=1)
    rates = published_rates("anthropic", MODELS["anthropic"])
    assert rates is not None
    for text, params, rate in (
        ('say "cache_control": 1', {}, rates.input),
        ("text", {"cache_control": {"type": "ephemeral", "ttl": "1h"}}, rates.cache_write_1h),
    ):
        table.values[0]["text"] = text
        table.write()
        bound = preview(table.spec(params=params)).summary.bound
        assert bound is not None
        (body,) = request_sizes(table, params)
        assert bound == (body + 64 + 2 * 16 + 512) * rate.base + 200 * rates.output.base


def request_sizes(table: Table, params: dict[str, Any]) -> list[int]:
    """Return the sizes in bytes of the request bodies that a run would send."""
    columns = ["id", "text", "note"]
    provider = provider_type(table.provider)()
    spec = table.spec(params=params)
    builder = RequestBuilder(spec, spec.schema_of_answers([]), provider, columns, CustomPrices())
    return [len(request_of(builder, value).body) for value in table.values]
