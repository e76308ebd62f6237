"""Cost limits hold: a small, seeded set of scenarios, each checked against the provider's bill.

By hand, as many as you like:

`python -m tests.support.money.scenarios --number 2000 --seed 1 --workers 2`

`--unclear` lets creates be of unknown fate in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.emulator import Lengths
from tests.support.money.draw import Kill, Scenario, Table, draw
from tests.support.money.place import Station
from tests.support.money.scenarios import play

if TYPE_CHECKING:
    from collections.abc import Iterator

# bounds are computed here; nothing is sent
KEYS = {
    "ANTHROPIC_API_KEY": "nobody",
    "OPENAI_API_KEY": "nobody",
}

NUMBERS = (
    1,
    3,
    5,
    6,
    8,
    9,
    10,
    11,
    20,
)  # of the seed below: each kind of scenario, none with many batches


UNCLEAR = (1, 2, 3, 4, 5, 6)  # likewise, with creates of unknown fate


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with Station(tmp_path_factory.mktemp("money")) as station:
        yield station


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_run_spends_more_than_its_limit(station: Station, number: int) -> None:
    """With any answers, faults and kills, spend stays within the limit, and the limit is used.

    The books agree to the last digit.
    """
    outcome = play(station, draw(2026, number, budgets=0.25, small=True))
    assert not outcome.found.problems
    assert outcome.codes


@pytest.mark.parametrize("number", UNCLEAR)
def test_what_may_have_been_accepted_counts(station: Station, number: int) -> None:
    """Creates whose answers were lost or say nothing keep their money set aside.

    The bill of all that the provider accepted is within the limit, also of what the program does
    not know of. Once a person has decided what was held, the books agree to the last digit.
    """
    outcome = play(station, draw(2026, number, budgets=0.25, small=True, unclear=True))
    assert not outcome.found.problems
    assert outcome.codes


@pytest.mark.slow
@pytest.mark.nights
def test_what_may_have_been_accepted_counts_in_many(station: Station) -> None:
    """The same for scenarios of any size; by hand `--unclear --number 500`, or more."""
    outcomes = (play(station, draw(7, number, 0.2, unclear=True)) for number in range(60))
    assert [
        (outcome.scenario.name, outcome.found.problems)
        for outcome in outcomes
        if outcome.found.problems
    ] == []


def table(texts: list[str], limit_share: float, per_batch: int, parallel: int = 2) -> Table:
    return Table(
        texts,
        per_batch,
        parallel,
        60,
        schema=False,
        limit_share=limit_share,
        again_share=limit_share,
    )


def test_money_that_a_killed_run_had_set_aside_is_used(station: Station) -> None:
    """Rows too dear for the limit come first, and the run dies before it sends what it reserved.

    The next start sends it.
    """
    dear, cheap = ["x" * 5000], [f"row {number}" for number in range(10)]
    scenario = Scenario(
        "set-aside",
        "killed",
        "anthropic",
        [table([*dear, *cheap], 0.3, 11)],
        Lengths(),
        0.05,
        [Kill(boundary="money is reserved:1")],
    )
    outcome = play(station, scenario)
    assert not outcome.found.problems
    assert (outcome.kills, outcome.codes, outcome.found.unsent) == (1, [4], 1)


def test_one_dear_row_does_not_keep_the_others_from_being_sent(station: Station) -> None:
    """A piece of 1 % that is too dear is passed over: a cheaper one after it is sent."""
    texts = ["row", "x" * 5000, *("row" for _ in range(300))]
    scenario = Scenario(
        "one-dear",
        "alone",
        "openai",
        [table(texts, 0.05, 200)],
        Lengths("lognormal", mean=30),
        0.02,
        [],
    )
    outcome = play(station, scenario)
    assert not outcome.found.problems
    assert outcome.found.utilisation is not None
    assert outcome.found.utilisation > 0.5
