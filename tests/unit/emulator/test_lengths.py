"""Answer lengths: drawn, and still a function of the request and the setting."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.emulator import ControlClient, ControlError, Lengths, answer_text
from batchata_tasks.emulator.answers.text import answer
from batchata_tasks.emulator.answers.tokens import cut, input_tokens, text_tokens
from tests.support.emulator_requests import SCHEMA, body, entries, params, satisfies

if TYPE_CHECKING:
    import anthropic

LOGNORMAL = Lengths("lognormal", mean=150, sigma=1.0)
PARETO = Lengths("pareto", mean=150, alpha=1.8)
JAPANESE = Lengths("lognormal", mean=150, sigma=1.0, language="ja")


def lengths_of(setting: Lengths, number: int = 4_000) -> list[int]:
    """Return the tokens of this number of answers, none of them cut by a cap."""
    asked = (params(f"row {n}", max_tokens=1_000_000) for n in range(number))
    return [answer("anthropic", given, lengths=setting).output_tokens for given in asked]


@pytest.mark.parametrize("setting", [LOGNORMAL, JAPANESE])
def test_lengths_follow_a_lognormal(setting: Lengths) -> None:
    """The mean is the one that was set, and the median is as far below it as in a lognormal."""
    found = lengths_of(setting)
    assert 140 < fmean(found) < 160
    assert 0.55 < median(found) / 150 < 0.67  # exp(-1/2) is 0.61


def test_lengths_follow_a_pareto() -> None:
    """No answer is shorter than the smallest, the mean is near, and the longest is far out."""
    found = lengths_of(PARETO)
    smallest = 150 * 0.8 / 1.8
    assert min(found) >= smallest
    assert 0.9 < median(found) / (smallest * 2 ** (1 / 1.8)) < 1.1
    assert max(found) > 20 * median(found)


def test_the_setting_is_part_of_the_function() -> None:
    """The same request and setting get the same answer; another seed draws another length.

    The cap only cuts.
    """
    given = params("a row", max_tokens=1_000_000)
    text = answer_text("anthropic", given, LOGNORMAL)
    assert text == answer_text("anthropic", {**given, "max_tokens": 7}, LOGNORMAL)
    others = {
        answer_text("anthropic", given, Lengths("lognormal", mean=150, seed=n)) for n in range(20)
    }
    assert len({len(other) for other in others}) > 10
    short = answer("anthropic", {**given, "max_tokens": 9}, lengths=LOGNORMAL)
    assert (short.truncated, short.output_tokens, text_tokens(short.text)) == (True, 9, 9)
    assert text.startswith(short.text)


def test_bytes_of_a_token_depend_on_the_language() -> None:
    """English has four bytes a token, Japanese three; neither has more tokens than bytes."""
    found = {}
    for setting in (LOGNORMAL, JAPANESE):
        text = answer_text(
            "openai",
            body("row"),
            Lengths("lognormal", mean=5_000, sigma=0, language=setting.language),
        )
        found[setting.language] = len(text.encode()) / text_tokens(text)
    assert found["en"] == pytest.approx(4.0, abs=0.01)
    assert found["ja"] == pytest.approx(3.0, abs=0.01)
    english, japanese = (input_tokens(body(text)) for text in ("x" * 300, "帳" * 100))
    assert (english, japanese) == (79, 104)


@pytest.mark.parametrize("text", ["", "abcdefg", "é" * 9, "帳簿a係b", "😀é帳" * 5])
def test_a_cut_has_at_most_so_many_tokens(text: str) -> None:
    """A cut is a beginning of the text that one more character would take over the limit."""
    for tokens in range(12):
        part = cut(text, tokens)
        assert text.startswith(part)
        assert text_tokens(part) <= tokens
        assert part == text or text_tokens(text[: len(part) + 1]) > tokens


def test_a_structured_answer_grows_in_a_free_string() -> None:
    """It still satisfies its schema, and is about as long as drawn."""
    asked: Any = params("row", output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    text = answer_text("anthropic", asked, Lengths("lognormal", mean=500, sigma=0))
    assert satisfies(text, SCHEMA)
    assert 500 <= text_tokens(text) <= 540


def test_a_batch_answers_as_it_was_set_when_it_was_created(
    claude: anthropic.Anthropic, control: ControlClient
) -> None:
    """A setting counts for the batches created after it, and its answers can be recomputed.

    `reset` undoes it.
    """
    control.answers("lognormal", mean=100, sigma=0.5, seed=3, language="ja")
    batch = claude.messages.batches.create(requests=entries("a", "b", max_tokens=1_000))
    control.answers()
    usual = claude.messages.batches.create(requests=entries("c"))
    setting = Lengths("lognormal", mean=100, sigma=0.5, seed=3, language="ja")
    said: dict[str, str] = {}
    for made in (batch, usual):
        claude.messages.batches.retrieve(made.id)
        for line in claude.messages.batches.results(made.id):
            assert line.result.type == "succeeded"
            (block,) = line.result.message.content
            assert block.type == "text"
            said[f"{made.id} {line.custom_id}"] = block.text
    assert said == {
        f"{batch.id} r0": answer_text("anthropic", params("a"), setting),
        f"{batch.id} r1": answer_text("anthropic", params("b"), setting),
        f"{usual.id} r0": answer_text("anthropic", params("c")),
    }


@pytest.mark.parametrize("wrong", [
    {"lengths": "normal"}, {"lengths": "pareto", "alpha": 1}, {"lengths": "lognormal", "mean": 0},
    {"lengths": "lognormal", "language": "xx"},
    {"lengths": "lognormal", "middle": 4},
    {"lengths": "default", "language": "ja"},
])  # fmt: skip
def test_a_wrong_setting_is_refused(control: ControlClient, wrong: dict[str, Any]) -> None:
    """A misspelt setting is an error, and does not leave the answers unchanged."""
    with pytest.raises(ControlError):
        control.answers(**wrong)
