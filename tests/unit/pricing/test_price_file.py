"""The user's own prices: exact, dated, sourced, and safe if they omit something.

An invalid one is refused in one sentence.
"""

from __future__ import annotations

import re
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import data_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.pricing.lookup import PICO, batch_rates
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.pricing.rates import PriceList, Rates
from batchata_tasks.types.answer import Usage
from tests.support.by_day import examples
from tests.support.paths import ROOT

NEW = ("openai", "gpt-6.2-sol")
KNOWN = ("anthropic", "claude-haiku-5-5")
STAMP = 'as_of = 2026-11-01\nsource = "price page"\n'
LEAST = f'[openai."gpt-6.2-sol"]\ninput = 1.5\noutput = "7.50"\n{STAMP}'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rates_of(provider: str, model: str) -> Rates | None:
    """Return a model's rates under the settings and the price file as they are now."""
    return batch_rates(provider, model, load_prices(Settings().prices))


def written(text: str, folder: Path, model: tuple[str, str] = NEW) -> Rates:
    (folder / "prices.toml").write_text(text, encoding="utf-8")
    prices = rates_of(*model)
    assert prices is not None
    return prices


def tariff_of(rates: Rates) -> PriceList:
    return PriceList(**{field.name: getattr(rates, field.name) for field in fields(PriceList)})


def test_a_model_that_nobody_knows_gets_its_price_from_the_file(folder: Path) -> None:
    """Without the file it has no price; with it, its answers cost what the file says."""
    assert rates_of(*NEW) is None
    rates = written(LEAST, folder)
    assert usd(rates.cost(Usage(1_000_000, 1_000_000))) == Decimal("9.00")
    assert rates.source == "prices.toml (as of 2026-11-01, source: price page)"


def test_every_rate_has_its_key(folder: Path) -> None:
    """Each kind of token, and searches, cost the rate of their key, to the last digit."""
    text = f"""[openai."gpt-6.2-sol"]
input = 3
output = "0.000001"
cache_read = 0.123456
cache_write = 0.1
cache_write_1h = 4.5
searches_per_thousand = 25
{STAMP}"""
    rates = written(text, folder)
    million = 10**6
    assert rates.cost(Usage(million)) == 3 * PICO
    assert rates.cost(Usage(0, million)) == million
    assert rates.cost(Usage(million, 0, million)) == 123_456 * million
    assert rates.cost(Usage(million, 0, 0, million)) == PICO // 10
    assert rates.cost(Usage(million, 0, 0, 0, million)) == 4_500_000 * million
    assert rates.cost(Usage(web_searches=1)) == PICO // 40


@given(st.decimals("0.000001", 1_000_000, places=6), st.integers(0, 10**7))
@settings(deadline=None, max_examples=examples(60), derandomize=True)
def test_a_rate_is_taken_as_written(rate: Decimal, tokens: int) -> None:
    """A rate is the decimal as written, as a number or in quotes, never its binary neighbour."""
    for text in (f"{rate:f}", f'"{rate:f}"'):
        prices = written(f'[openai."gpt-6.2-sol"]\ninput = {text}\noutput = 1\n{STAMP}', Path.cwd())
        assert usd(prices.cost(Usage(tokens))) == rate * tokens / 10**6


def test_what_the_file_leaves_out_is_never_priced_too_low(folder: Path) -> None:
    """From input and output rates alone, no kind of token is priced below genai-prices'.

    It is tried with every model that genai-prices knows.
    """
    snapshot = data_snapshot.get_snapshot()
    for provider in (p for p in snapshot.providers if p.id in ("anthropic", "openai")):
        for model in provider.models:
            (folder / "prices.toml").unlink(missing_ok=True)
            published = rates_of(provider.id, model.id)
            if published is None:
                continue
            dearest = Usage(10**7), Usage(0, 1)
            top_input = published.cost(dearest[0]) // 10**7
            top_output = published.output.most(10**7)
            text = (
                f'[{provider.id}."{model.id}"]\ninput = "{usd(top_input * 10**6):f}"\noutput = '
                f'"{usd(top_output * 10**6):f}"\n{STAMP}'
            )
            own = written(text, folder, (provider.id, model.id))
            for usage in (
                Usage(10**7, 1, 10**7),
                Usage(10**7, 1, 0, 10**7),
                Usage(10**7, 1, 0, 0, 10**7),
                Usage(1, 1, 0, 0, 0, 3),
            ):
                assert own.cost(usage) >= published.cost(usage), model.id


def test_a_given_short_write_rate_lifts_the_long_one(folder: Path) -> None:
    """A cache write for an hour never costs less than one for five minutes."""
    rates = written(LEAST + "cache_write = 9\n", folder)
    assert rates.cache_write_1h == rates.cache_write
    assert rates.cache_write.base == 9 * 10**6


def test_a_model_may_be_free_where_that_is_said(folder: Path) -> None:
    """With `free = true` rates of 0 are accepted: answers cost nothing, and so do bounds."""
    rates = written(f'[openai."gpt-6.2-sol"]\nfree = true\ninput = 0\noutput = 0\n{STAMP}', folder)
    assert rates.cost(Usage(10**6, 10**6)) == rates.bound(10**6, 10**6, cache_writes=True) == 0


def test_the_users_entry_wins(folder: Path) -> None:
    """A negotiated rate replaces the published one, tiers and all.

    Savings still count from the published list price.
    """
    published = rates_of(*KNOWN)
    assert published is not None
    rates = written(
        f'[anthropic."claude-haiku-5-5"]\ninput = 0.04\noutput = 0.2\n{STAMP}', folder, KNOWN
    )
    assert rates.cost(Usage(1_000_000)) == 4 * PICO // 100
    assert rates.listed == published.listed
    assert rates.source.startswith("prices.toml")


def test_models_that_the_file_does_not_name_keep_their_published_price(folder: Path) -> None:
    """An entry is for its own model and provider alone."""
    published = rates_of(*KNOWN)
    written(LEAST, folder)
    assert rates_of(*KNOWN) == published
    assert rates_of("anthropic", NEW[1]) is None


def test_no_saving_is_claimed_without_a_list_price(folder: Path) -> None:
    """The list price of an unknown model is the file's, or else the batch price."""
    usage = Usage(1000, 100, 200)
    rates = written(LEAST, folder)
    assert rates.listed == tariff_of(rates)
    assert rates.list_cost(usage) == rates.cost(usage)
    rates = written(LEAST + "cache_read = 0.1\nlist_input = 3\nlist_output = 15\n", folder)
    assert rates.list_cost(Usage(1000, 100)) == 2 * rates.cost(Usage(1000, 100))
    assert rates.list_cost(Usage(1000, 0, 1000)) == rates.cost(Usage(1000, 0, 1000))


def test_the_bound_covers_the_files_rates(folder: Path) -> None:
    """A reservation counts the dearest kind of input, with the rates that the file omits."""
    rates = written(LEAST, folder)
    assert rates.bound(1000, 0, cache_writes=False) == rates.cost(Usage(1000))
    assert (
        rates.bound(1000, 0, cache_writes=True)
        == rates.cost(Usage(1000, 0, 0, 0, 1000))
        == 2 * rates.cost(Usage(1000))
    )


def test_the_file_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BATCHATA_PRICES names it in any folder; then the working folder's own is not read."""
    (folder / "prices.toml").write_text("nonsense")
    elsewhere = folder / "deep" / "contract.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(LEAST)
    monkeypatch.setenv("BATCHATA_PRICES", str(elsewhere))
    prices = rates_of(*NEW)
    assert prices is not None
    assert prices.source.startswith("contract.toml (as of")


def test_a_changed_file_is_seen(folder: Path) -> None:
    """The next run of a long-lived process uses the prices that are then in the file."""
    before = written(LEAST, folder)
    after = written(LEAST.replace("1.5", "1.6"), folder)
    (folder / "prices.toml").unlink()
    assert (before.input.base, after.input.base) == (1_500_000, 1_600_000)
    assert rates_of(*NEW) is None


@pytest.mark.parametrize("day", ["2026-11-01", '"2026-11-01"'])
def test_a_day_may_stand_in_quotes(folder: Path, day: str) -> None:
    """TOML's own dates and ISO text both date a price."""
    assert "as of 2026-11-01" in written(LEAST.replace("2026-11-01", day), folder).source


def test_a_source_is_one_short_line(folder: Path) -> None:
    """The source is shown in receipts and in the ledger."""
    rates = written(LEAST.replace('"price page"', f'"""\nmail of\n  {"x" * 500}"""'), folder)
    assert rates.source.startswith("prices.toml (as of 2026-11-01, source: mail of xxx")
    assert len(rates.source) < 300


HEAD = '[openai."gpt-6.2-sol"]\n'
WRONG = {
    "not-toml": ("input = ", "not valid TOML"),
    "nested-without-end": ("a = " + "[" * 100_000, "not valid TOML"),
    "doubled-key": (LEAST + "input = 2\n", "not valid TOML"),
    "no-such-day": (LEAST.replace("2026-11-01", "2026-11-31"), "not valid TOML"),
    "unknown-provider": (
        f'[google."gemini"]\ninput = 1\noutput = 1\n{STAMP}',
        "`google` is not a table of a provider",
    ),
    "rates-at-the-top": ("input = 1\n", "`input` is not a table of a provider"),
    "rate-for-a-model": ("[openai]\ngpt-6 = 1\n", "model 'gpt-6': this is not a table of rates"),
    "name-without-quotes": (
        LEAST.replace('"gpt-6.2-sol"', "gpt-6.2-sol"),
        "put a model's name with dots in quotes",
    ),
    "unknown-key": (
        LEAST + "cached = 1\n",
        "unknown key `cached`; the keys are input, output, cache_read",
    ),
    "misspelt-key": (LEAST.replace("output", "ouput"), "unknown key `ouput`"),
    "no-input": (
        LEAST.replace("input = 1.5\n", ""),
        "the key `input` is missing; add its batch rate",
    ),
    "no-output": (
        LEAST.replace('output = "7.50"\n', ""),
        "the key `output` is missing; add its batch rate",
    ),
    "no-date": (
        LEAST.replace("as_of = 2026-11-01\n", ""),
        "the key `as_of` is missing; add the day",
    ),
    "no-source": (
        LEAST.replace('source = "price page"\n', ""),
        "the key `source` is missing; add where",
    ),
    "empty-source": (LEAST.replace("price page", "  "), "`source`: '  ' says nothing"),
    "source-no-text": (LEAST.replace('"price page"', "7"), "`source`: 7 says nothing"),
    "negative": (
        LEAST.replace("1.5", "-1.5"),
        "`input`: Decimal('-1.5') is not an amount; write US dollars",
    ),
    "endless": (LEAST.replace("1.5", "inf"), "`input`: Decimal('Infinity') is not an amount"),
    "not-a-number": (LEAST.replace("1.5", "nan"), "`input`: Decimal('NaN') is not an amount"),
    "quoted-nan": (LEAST.replace("1.5", '"nan"'), "`input`: 'nan' is not an amount"),
    "words": (LEAST.replace("1.5", '"cheap"'), "`input`: 'cheap' is not an amount"),
    "dollar-sign": (LEAST.replace("1.5", '"$1.5"'), "`input`: '$1.5' is not an amount"),
    "true": (LEAST.replace("1.5", "true"), "`input`: True is not an amount"),
    "list": (LEAST.replace("1.5", "[1.5]"), "is not an amount"),
    "huge": (LEAST.replace("1.5", '"1e999999999"'), "is not an amount"),
    "huge-number": (LEAST.replace("1.5", "1e999999999"), "is not an amount"),
    "endless-digits": (LEAST.replace("1.5", "9" * 5000), "prices.toml: "),
    "too-fine": (
        LEAST.replace("1.5", "0.0000001"),
        "`input`: 1E-7 has more than six decimal places; round it up",
    ),
    "zero-input": (
        LEAST.replace("1.5", "0"),
        "`input` is 0, so that no limit would bind; write its rate, or add `free = true`",
    ),
    "zero-output": (LEAST.replace("7.50", "0.00"), "`output` is 0, so that no limit would bind"),
    "paid-and-free": (
        LEAST + "free = true\n",
        "`input` is 1.5, and `free = true` says that the model costs nothing",
    ),
    "half-free": (
        LEAST.replace("1.5", "0") + "free = true\n",
        "`output` is 7.50, and `free = true` says",
    ),
    "free-in-words": (LEAST + 'free = "yes"\n', "`free`: 'yes' is not true or false"),
    "time-for-a-day": (
        LEAST.replace("2026-11-01", "2026-11-01T10:00:00"),
        "`as_of`: 2026-11-01 10:00:00 is not a day",
    ),
    "number-for-a-day": (LEAST.replace("2026-11-01", "20261101"), "`as_of`: 20261101 is not a day"),
    "words-for-a-day": (LEAST.replace("2026-11-01", '"today"'), "`as_of`: today is not a day"),
    "half-a-list-price": (
        LEAST + "list_input = 3\n",
        "`list_input` and `list_output` belong together",
    ),
    "null-key": (LEAST + '"" = 1\n', "unknown key ``"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_in_one_sentence(folder: Path, text: str, said: str) -> None:
    """An invalid price stops a run before it begins.

    The sentence names file, model, key and remedy.
    """
    (folder / "prices.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        rates_of(*NEW)
    message = str(caught.value)
    assert said in message
    assert message.startswith("prices.toml: ")
    assert message.endswith(".")
    assert "\n" not in message
    if "TOML" not in message and "table of a provider" not in message:
        assert "openai, model 'gpt-6" in message


def test_an_entry_that_is_wrong_stops_other_models_too(folder: Path) -> None:
    """An invalid entry makes the whole file invalid: it is not read in part."""
    (folder / "prices.toml").write_text(LEAST.replace("1.5", "-1"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"gpt-6\.2-sol"):
        rates_of(*KNOWN)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    """A file in another encoding is no TOML."""
    (folder / "prices.toml").write_bytes(LEAST.encode("utf-16"))
    with pytest.raises(SpecError, match=r"prices\.toml: not valid TOML"):
        rates_of(*NEW)


def test_a_named_file_must_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named and missing is an error."""
    monkeypatch.setenv("BATCHATA_PRICES", "none.toml")
    with pytest.raises(
        SpecError, match=r"BATCHATA_PRICES: there is no file none\.toml; fix or unset"
    ):
        rates_of(*NEW)
    monkeypatch.setenv("BATCHATA_PRICES", str(folder))
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        rates_of(*NEW)
    monkeypatch.setenv("BATCHATA_PRICES", "")
    assert rates_of(*NEW) is None


def test_the_readmes_example_is_a_price_file(folder: Path) -> None:
    """The README's example is valid, and its defaults are those it names."""
    text = (ROOT / "docs/money.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rates = written(example, folder)
    assert f"`{rates.source}`" in text
    said = dict(re.findall(r"^(\w+) = .*# default: (.*)$", example, re.MULTILINE))
    bare = written(re.sub(r"^(cache_|searches_).*\n", "", example, flags=re.MULTILINE), folder)
    base = bare.input.base
    assert said == {
        "cache_read": "as input",
        "cache_write": "1.25 times input",
        "cache_write_1h": "2 times input",
        "searches_per_thousand": "10",
    }
    assert (bare.cache_read.base, bare.cache_write.base * 4, bare.cache_write_1h.base) == (
        base,
        base * 5,
        base * 2,
    )
    assert bare.search == PICO // 100


def test_a_link_that_leads_nowhere_is_not_passed_over(folder: Path) -> None:
    """Whoever made it counts on its rates, which may be dearer than the published ones."""
    (folder / "prices.toml").symlink_to(folder / "elsewhere.toml")
    with pytest.raises(SpecError, match=r"prices\.toml: the link leads nowhere; fix or remove it"):
        load_prices(None)
