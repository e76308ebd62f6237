"""Prompt caching, from the request to the receipt: what is marked, reserved, billed and counted."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from genai_prices import Usage as Listed
from genai_prices import calc_price

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import PICO, usd
from batchata_tasks.emulator.core.prompt_cache import MINIMUM
from batchata_tasks.ledger import OutcomeTotals
from tests.support.books import check_money, money, opened
from tests.support.operations import preview
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

MODEL = MODELS["anthropic"]
SYSTEM = "Label it by these rules. " + "A rule of the house, told at length. " * 500
assert len(SYSTEM) // 4 > MINIMUM["claude-haiku"]


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, "anthropic", rows=12)


def bill_of(table: Table) -> list[tuple[Decimal, Decimal]]:
    """Price each result line with genai-prices, as it was billed and as it would be uncached."""
    costs: list[tuple[Decimal, Decimal]] = []
    for path in (table.output / "_batchata/responses").glob("*.jsonl"):
        for line in map(orjson.loads, path.read_bytes().splitlines()):
            usage = line["result"]["message"]["usage"]
            read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
            whole = {
                "input_tokens": usage["input_tokens"] + read + written,
                "output_tokens": usage["output_tokens"],
            }
            assert usage["cache_creation"] == {
                "ephemeral_5m_input_tokens": 0,
                "ephemeral_1h_input_tokens": written,
            }
            cached = {
                "cache_read_tokens": read,
                "cache_write_tokens": written,
                "cache_write_1h_tokens": written,
            }
            costs.append((priced(**whole, **cached), priced(**whole)))
    return costs


def priced(**tokens: int) -> Decimal:
    return calc_price(
        Listed(**tokens), MODEL, provider_id="anthropic", price_context={"processing": "batch"}
    ).total_price


def told(lines: list[tuple[str, str]], what: str) -> str:
    (line,) = [value for name, value in lines if name == what]
    return line


def marked(table: Table) -> set[bool]:
    return {isinstance(body["system"], list) for body in table.bodies().values()}


def test_what_the_cache_did_is_told_to_the_last_digit(table: Table) -> None:
    """The receipt's cost, shares and saving are those of the bill, line by line.

    The dataset holds the tokens that were read.
    """
    receipt = table.run(cache=True, system=SYSTEM)
    bill, book = bill_of(table), table.ledger()
    assert len(bill) == 12
    cost, plain = (sum(line[i] for line in bill) for i in (0, 1))
    assert Decimal(receipt.cost_usd or "") == cost == usd(check_money(table).settled)
    assert Decimal(receipt.cache_saved_usd or "") == plain - cost > 0
    assert (
        receipt.cache_read_tokens
        == book["cache_read_tokens_billed"]
        == sum(row["_cache_read_tokens"] for row in table.rows())
        > 0
    )
    assert receipt.cache_write_tokens == book["cache_write_1h_tokens_billed"] > 0
    assert receipt.cached_share == round(
        book["cache_read_tokens_billed"] / book["input_tokens_billed"], 4
    )
    assert receipt.to_json()["cache_saved_usd"] == receipt.cache_saved_usd
    text = told(receipt.lines(), "Cache")
    assert text.startswith(f"{receipt.cached_share:.0%} of the input was read from the cache, ")
    assert "; saved $" in text
    block = next(iter(table.bodies().values()))["system"]
    assert block == [
        {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    table.check_answers()


def test_a_cache_that_is_never_hit_costs_more_and_says_so(table: Table) -> None:
    """If every request writes and none reads, the saving is negative, exactly.

    The receipt says what the cache cost.
    """
    table.emulator.control.cache(hit_share=0)
    receipt = table.run(cache=True, system=SYSTEM)
    cost, plain = (sum(line[i] for line in bill_of(table)) for i in (0, 1))
    assert Decimal(receipt.cache_saved_usd or "") == plain - cost < 0
    assert receipt.cached_share == 0
    assert "0% of the input was read from the cache, " in told(receipt.lines(), "Cache")
    assert told(receipt.lines(), "Cache").endswith(" more than no caching")
    check_money(table)


def test_outcomes_keep_what_was_written(table: Table) -> None:
    """The ledger's tallies hold cache reads and writes of all rounds."""
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 3", times=1)
    receipt = table.run(cache=True, system=SYSTEM)
    assert receipt.rounds == 2
    with opened() as ledger:
        whole = sum(ledger.outcomes(receipt.run_id).values(), OutcomeTotals())
    book = table.ledger()
    assert (whole.cache_read_tokens, whole.cache_write_tokens) == (
        book["cache_read_tokens_billed"],
        book["cache_write_1h_tokens_billed"],
    )
    assert Decimal(receipt.cache_saved_usd or "") == sum(
        plain - cost for cost, plain in bill_of(table)
    )
    assert marked(table) == {True}
    check_money(table)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_limit_holds_when_everything_is_written(table: Table, rows: int) -> None:
    """Input is reserved at the 1 h write price.

    So a limit holds even if each request writes and none reads.
    """
    table.emulator.control.cache(hit_share=0)
    plain = preview(table.spec(system=SYSTEM)).summary.bound or 0
    bound = preview(table.spec(cache=True, system=SYSTEM)).summary.bound or 0
    assert 1.9 * plain < bound < 2.1 * plain
    limit = usd(bound) * rows / 12
    receipt = table.run(cache=True, system=SYSTEM, cost_limit_usd=float(limit))
    assert receipt.exit_code == 4
    assert not any("above the upper bound" in text for text in receipt.warnings)
    settled = check_money(table).settled
    assert rows <= len(table.rows()) < 12
    assert settled <= int(limit * PICO)


def test_switching_the_cache_sends_nothing_again(table: Table) -> None:
    """The mark is not part of the fingerprint: rows stay up to date when it comes or goes."""
    table.run(system=SYSTEM)
    assert marked(table) == {False}
    assert table.run(cache=True, system=SYSTEM).batches == 0
    table.values.append({"id": "new", "text": "another row", "note": ""})
    table.write()
    assert table.run(cache=True, system=SYSTEM).outcomes == {"succeeded": 1}
    assert marked(table) == {True, False}
    assert table.run(system=SYSTEM).batches == 0
    assert table.ledger()["requests_accepted"] == 13


def test_an_estimate_does_not_count_on_a_cache_that_is_off(table: Table) -> None:
    """After cached batches, the estimate for uncached ones is their cost without a cache."""
    table.run(cache=True, system=SYSTEM, limit=2)  # the first of an hour write
    table.run(cache=True, system=SYSTEM, limit=5)
    cached, off = (
        preview(table.spec(cache=cache, system=SYSTEM)).summary.expected for cache in (True, False)
    )
    before = money(table).settled
    assert table.run(system=SYSTEM).cache_read_tokens == 0
    assert cached is not None
    assert off == pytest.approx(money(table).settled - before, rel=0.05)
    assert cached != pytest.approx(off, rel=0.2)


def test_off_by_default(table: Table) -> None:
    """Without the key nothing is marked, no cache is billed and the receipt has no line of it."""
    receipt = table.run(system=SYSTEM)
    assert (receipt.cache_read_tokens, receipt.cache_write_tokens) == (0, 0)
    assert (receipt.cached_share, receipt.cache_saved_usd) == (0, None)
    assert not [value for name, value in receipt.lines() if name == "Cache"]
    assert money(table).settled == check_money(table).settled


def test_a_prompt_that_is_too_short_is_told_of(table: Table) -> None:
    """A prefix below the provider's minimum is not cached and not billed as such.

    Plan and receipt say why.
    """
    receipt = table.run(cache=True)
    assert receipt.cached_share == 0
    assert (
        "nothing was read from a cache or written to one: a system prompt under 1,024 tokens"
        in "".join(receipt.warnings)
    )
    assert "under 1,024 tokens" in told(preview(table.spec(cache=True)).lines(), "Cache")
    check_money(table)


def test_other_rows_of_the_hour_find_the_prefix(table: Table) -> None:
    """A second run within the hour reads what the first one wrote; a later one writes it again."""
    control = table.emulator.control
    control.cache(hit_share=1)
    table.run(cache=True, system=SYSTEM, limit=4)
    table.run(cache=True, system=SYSTEM, limit=4)
    prefix = len(SYSTEM) // 4
    assert table.ledger()["cache_write_1h_tokens_billed"] == prefix
    assert table.ledger()["cache_read_tokens_billed"] == 7 * prefix
    control.advance(3700)
    table.run(cache=True, system=SYSTEM)
    assert table.ledger()["cache_write_1h_tokens_billed"] == 2 * prefix
    check_money(table)


@pytest.mark.parametrize(
    ("provider", "changes", "sentence"),
    [
        (
            "openai",
            {},
            "cache: the openai API caches long prompts by itself, without marks; remove it.",
        ),
        ("anthropic", {"system": None}, "`cache` marks the system prompt, and there is none"),
        ("anthropic", {"system": ""}, "`cache` marks the system prompt, and there is none"),
        (
            "anthropic",
            {
                "system": None,
                "prompt": None,
                "messages": [{"role": "user", "content": "{{ text }}"}],
            },
            "there is none",
        ),
    ],
)
def test_where_there_is_nothing_to_mark(
    emulator: Emulator, tmp_path: Path, provider: str, changes: dict[str, Any], sentence: str
) -> None:
    """`cache` is refused if it would do nothing, before anything is sent."""
    table = Table(tmp_path, emulator, provider)
    with pytest.raises(SpecError) as refused:
        table.run(cache=True, **changes)
    assert sentence in str(refused.value)
    assert table.ledger()["requests_accepted"] == 0


def test_system_turns_are_marked_as_one(table: Table) -> None:
    """With `messages`, the turns of role system become the marked block.

    A prompt that renders to blanks is left as it is.
    """
    turns = [
        {"role": "system", "content": "{% if text != 'text of row 1' %}" + SYSTEM + "{% endif %}"},
        {"role": "user", "content": "{{ text }}"},
    ]
    receipt = table.run(cache=True, system=None, prompt=None, messages=turns, limit=3)
    assert receipt.outcomes == {"succeeded": 3}
    assert sorted(isinstance(body.get("system"), list) for body in table.bodies().values()) == [
        False,
        True,
        True,
    ]
