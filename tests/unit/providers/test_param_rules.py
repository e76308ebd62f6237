"""Parameters that models are known to refuse are refused before anything is sent, no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers import provider_type
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

NONE = {"reasoning_effort": "none"}
THINK = {"type": "enabled", "budget_tokens": 2000}
TOOL = {"type": "tool", "name": "label"}

# (endpoint, model, params, how the sentence begins)
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("chat", "gpt-5-mini", {"stop": ["x"]}, "stop: gpt-5-mini would refuse every line"),
    ("chat", "gpt-6-luna", {"stop": "x"}, "stop: "),
    ("chat", "gpt-5.1", {"stop": "x", **NONE}, "stop: "),
    ("chat", "o3", {"stop": "x"}, "stop: "),
    ("chat", "o4-mini-2025-04-16", {"stop": "x"}, "stop: "),
    ("chat", "gpt-4.1", {"stop": list("abcde")}, "stop: OpenAI takes up to 4"),
    ("chat", "gpt-4.1", {"temperature": 5}, "temperature: 5 is no number from 0 to 2"),
    ("chat", "gpt-4.1", {"temperature": "hot"}, "temperature: 'hot' is no number"),
    ("chat", "gpt-4.1", {"top_p": 1.5}, "top_p: "),
    ("responses", "gpt-4.1", {"top_p": -1}, "top_p: "),
    ("chat", "gpt-4.1", {"presence_penalty": 2.5}, "presence_penalty: "),
    ("chat", "gpt-5-nano", {"top_p": 0.5}, "top_p: gpt-5-nano takes only the default (1)"),
    ("chat", "gpt-5.5", {"temperature": 0}, "temperature: gpt-5.5 takes only the default (1)"),
    ("chat", "gpt-6.2-sol", {"temperature": True}, "temperature: "),
    ("chat", "gpt-5-mini", {"temperature": 0, **NONE}, "reasoning_effort: gpt-5-mini knows no "),
    ("chat", "ft:gpt-5-mini:us::id", {"temperature": 0}, "temperature: "),
    ("chat", "gpt-5.2-pro", {"temperature": 0}, "temperature: "),
    ("chat", "o3", {"presence_penalty": 1}, "presence_penalty: "),
    ("chat", "gpt-6-sol", {"frequency_penalty": -0.5}, "frequency_penalty: "),
    ("chat", "gpt-5", {"logprobs": True}, "logprobs: "),
    ("chat", "gpt-5", {"top_logprobs": 3}, "top_logprobs: "),
    ("chat", "gpt-5", {"logit_bias": {"50256": -100}}, "logit_bias: "),
    ("chat", "gpt-6-luna", {"reasoning_effort": "hihg"}, "reasoning_effort: gpt-6-luna knows no "),
    ("chat", "gpt-6-luna", {"reasoning_effort": 3}, "reasoning_effort: "),
    ("chat", "o3", {"reasoning_effort": "minimal"}, "reasoning_effort: o3 knows no effort"),
    ("chat", "gpt-5.1", {"reasoning_effort": "minimal"}, "reasoning_effort: "),
    ("chat", "gpt-4.1", {"reasoning_effort": "low"}, "reasoning_effort: gpt-4.1 does not reason"),
    ("responses", "gpt-5-mini", {"top_p": 0.5}, "top_p: "),
    ("responses", "gpt-6-luna", {"top_logprobs": 2}, "top_logprobs: "),
    ("responses", "gpt-5-pro", {"reasoning": {"effort": "low"}}, "reasoning.effort: gpt-5-pro "),
    ("responses", "gpt-6-luna", {"reasoning": {"effort": "hgih"}}, "reasoning.effort: "),
    ("responses", "gpt-6-luna", {"stop": ["x"]}, "stop: /v1/responses has none"),
    ("responses", "gpt-4.1", {"seed": 1}, "seed: /v1/responses has none"),
    ("anthropic", "claude-haiku-5-5", {"thinking": THINK}, "thinking.type: claude-haiku-5-5 refu"),
    ("anthropic", "claude-opus-4-7", {"thinking": THINK}, "thinking.type: "),
    ("anthropic", "claude-haiku-4-5", {"thinking": {"type": "adaptive"}}, "thinking.type: "),
    ("anthropic", "claude-opus-5-5", {"thinking": {"type": "disabled"}}, "thinking.type: "),
    ("anthropic", "claude-fable-5", {"thinking": {"type": "disabled"}}, "thinking.type: "),
    ("anthropic", "claude-sonnet-5-5", {"thinking": {"type": "disabled"}}, "thinking.type: "),
    ("anthropic", "claude-opus-5", {"thinking": {"type": "between_tools"}}, "thinking.type: "),
    ("anthropic", "claude-haiku-4-5", {"thinking": {"type": "on"}}, "thinking.type: 'on' is unkn"),
    ("anthropic", "claude-haiku-4-5", {"thinking": True}, "thinking.type: "),
    ("anthropic", "claude-haiku-4-5", {"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    (
        "anthropic",
        "claude-haiku-4-5",
        {"thinking": {**THINK, "budget_tokens": 1023}},
        "thinking.budget_tokens: 1023 is no budget",
    ),
    ("anthropic", "claude-opus-5-5", {"tool_choice": TOOL}, "tool_choice: "),
    ("anthropic", "claude-mythos-5-1", {"tool_choice": {"type": "any"}}, "tool_choice: "),
    ("anthropic", "claude-haiku-4-5", {"thinking": THINK, "tool_choice": TOOL}, "tool_choice: "),
    ("anthropic", "claude-haiku-5-5", {"stop_sequences": ["\n"]}, "stop_sequences: "),
    ("anthropic", "claude-haiku-5-5", {"stop_sequences": ["x", ""]}, "stop_sequences: "),
    ("anthropic", "claude-haiku-5-5", {"stop_sequences": "x"}, "stop_sequences: "),
    ("anthropic", "claude-haiku-5-5", {"stop": ["x"]}, "stop: Anthropic's API has none; write "),
    ("anthropic", "claude-haiku-5-5", {"effort": "low"}, "effort: "),
]
TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("chat", "gpt-4.1", {"stop": ["x"], "top_p": 0.5, "temperature": 0, "presence_penalty": 1}),
    ("chat", "gpt-5-chat-latest", {"stop": ["x"], "temperature": 0.3, "logit_bias": {"1": 1}}),
    ("chat", "gpt-5-mini", {"temperature": 1, "top_p": 1.0, "presence_penalty": 0, "stop": None}),
    ("chat", "gpt-5-mini", {"reasoning_effort": "minimal", "seed": 1, "verbosity": "low"}),
    # without an effort they do not reason
    ("chat", "gpt-5.1", {"temperature": 0.2, "top_p": 0.9, "logprobs": True}),
    ("chat", "gpt-5.4-mini", {"temperature": 0}),
    ("chat", "gpt-5.4-mini-2026-03-17", {"temperature": 0}),
    ("chat", "gpt-6-luna", {"temperature": 0, "top_p": 0.5, "stop": ["x"], **NONE}),
    ("chat", "gpt-6-luna", {"reasoning_effort": "max"}),
    ("chat", "gpt-5.1-codex-max", {"reasoning_effort": "xhigh"}),
    ("chat", "o1", {"stop": ["x"], "reasoning_effort": "high"}),
    ("chat", "o3-mini", {"stop": ["x"], "reasoning_effort": None}),
    ("chat", "mistral-small", {"stop": list("abcde"), "reasoning_effort": "default"}),
    ("responses", "gpt-6-luna", {"top_p": 0.5, "reasoning": {"effort": "none"}}),
    ("responses", "gpt-6-luna", {"reasoning": {"effort": "xhigh", "summary": "auto"}}),
    ("anthropic", "claude-haiku-4-5", {"thinking": THINK}),
    ("anthropic", "claude-sonnet-4-6", {"thinking": {"type": "adaptive"}}),
    ("anthropic", "claude-sonnet-4-6", {"thinking": THINK}),
    ("anthropic", "claude-opus-4-8", {"thinking": {"type": "disabled"}}),
    ("anthropic", "claude-sonnet-5", {"thinking": {"type": "disabled"}}),
    ("anthropic", "claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}),
    ("anthropic", "claude-mythos-preview", {"thinking": THINK}),
    ("anthropic", "claude-omega-99", {"thinking": {"type": "disabled"}, "tool_choice": TOOL}),
    ("anthropic", "claude-fable-5", {"tool_choice": {"type": "any"}}),
    ("anthropic", "claude-opus-5-5", {"tool_choice": {"type": "auto"}}),
    ("anthropic", "claude-haiku-5-5", {"stop_sequences": ["\nEND"], "metadata": {"user_id": "u"}}),
    ("anthropic", "other-model", {"seed": 1}),
]


def check(endpoint: str, model: str, params: dict[str, Any]) -> None:
    provider = "anthropic" if endpoint == "anthropic" else "openai"
    adapter = provider_type(provider, "chat" if provider == "anthropic" else endpoint)
    adapter.check_params(model, params, limited=False)


@pytest.mark.parametrize(("endpoint", "model", "params", "sentence"), REFUSED)
def test_a_parameter_that_a_model_refuses_is_named(
    endpoint: str, model: str, params: dict[str, Any], sentence: str
) -> None:
    """One sentence names the parameter, the model's rule and the remedy."""
    with pytest.raises(SpecError) as refusal:
        check(endpoint, model, params)
    text = str(refusal.value)
    assert text.startswith(f"params.{sentence}")
    assert text.endswith(".")
    assert "; " in text
    assert "\n" not in text


@pytest.mark.parametrize(("endpoint", "model", "params"), TAKEN)
def test_a_parameter_that_a_model_may_take_goes_through(
    endpoint: str, model: str, params: dict[str, Any]
) -> None:
    """What is documented to work, is a default, or concerns unknown models, is left to the API."""
    check(endpoint, model, params)


@pytest.mark.parametrize(
    ("api", "changes", "sentence"),
    [
        (
            "openai",
            {"model": "gpt-5-mini", "params": {"stop": ["x"]}},
            r"^params\.stop: gpt-5-mini",
        ),
        ("responses", {"params": {"top_p": 0.1}}, r"^params\.top_p: gpt-6-luna"),
        (
            "anthropic",
            {"model": "claude-haiku-4-5", "max_tokens": 2000, "params": {"thinking": THINK}},
            r"^params\.thinking\.budget_tokens: 2,000 is not below max_tokens \(2,000\)",
        ),
    ],
)
def test_nothing_is_sent_with_a_parameter_that_the_model_refuses(
    emulator: Emulator, tmp_path: Path, api: str, changes: dict[str, Any], sentence: str
) -> None:
    """A run is refused before its first call."""
    table = Table(tmp_path, emulator, api, rows=2)
    with pytest.raises(SpecError, match=sentence):
        table.run(**changes)
    assert table.ledger()["requests_accepted"] == 0


def test_a_budget_below_the_cap_is_taken() -> None:
    """Thinking is a part of `max_tokens`, so it has to leave something of it."""
    adapter = provider_type("anthropic")
    adapter.check_cap(2001, {"thinking": THINK})
    adapter.check_cap(100, {"thinking": {"type": "adaptive"}})
    provider_type("openai").check_cap(1, {})
