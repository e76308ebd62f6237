"""Parameters of a spec that could raise a bill: bounded, or refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.errors import SpecError
from tests.support.books import check_money
from tests.support.operations import preview
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

# what the bound counts on, or what makes costs wrong: never a parameter
ALWAYS = [
    ("anthropic", {"max_tokens": 9}),
    ("anthropic", {"model": "claude-opus-5-5"}),
    ("anthropic", {"messages": []}),
    ("anthropic", {"system": "x"}),
    ("anthropic", {"output_config": {"effort": "max"}}),
    ("anthropic", {"stream": True}),
    ("anthropic", {"service_tier": "auto"}),
    ("anthropic", {"speed": "fast"}),
    ("anthropic", {"inference_geo": "us"}),
    ("openai", {"max_completion_tokens": 9}),
    ("openai", {"max_tokens": 9}),
    ("openai", {"model": "gpt-6-astra"}),
    ("openai", {"messages": []}),
    ("openai", {"n": 5}),
    ("openai", {"response_format": {"type": "text"}}),
    ("openai", {"stream": True}),
    ("openai", {"service_tier": "priority"}),
    ("openai", {"web_search_options": {}}),
    ("openai", {"modalities": ["text", "audio"]}),
    ("openai", {"audio": {"voice": "x", "format": "wav"}}),
    ("responses", {"max_output_tokens": 9}),
    ("responses", {"max_tokens": 9}),
    ("responses", {"max_completion_tokens": 9}),
    ("responses", {"model": "gpt-6-astra"}),
    ("responses", {"input": "x"}),
    ("responses", {"messages": []}),
    ("responses", {"n": 5}),
    ("responses", {"instructions": "x"}),
    ("responses", {"response_format": {"type": "text"}}),
    ("responses", {"stream": True}),
    ("responses", {"background": True}),
    ("responses", {"background_options": {"completion_window": "8h"}}),
    ("responses", {"service_tier": "priority"}),
    ("responses", {"tools": [{"type": "web_search"}]}),
    ("responses", {"text": {"format": {"type": "text"}}}),
    ("responses", {"text": {"verbosity": "low", "format": {"type": "text"}}}),
    ("responses", {"text": "short"}),
    ("responses", {"text": None}),
]
# what may cost more than bytes and cap say: not under a limit
LIMITED = [
    ("anthropic", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("anthropic", {"tool_choice": {"type": "any"}}),
    ("anthropic", {"thinking": {"type": "adaptive"}}),
    ("anthropic", {"container": "c"}),
    ("anthropic", {"mcp_servers": [{"type": "url", "url": "http://127.0.0.1:9", "name": "m"}]}),
    ("anthropic", {"context_management": {"edits": []}}),
    ("anthropic", {"cache_control": {"type": "ephemeral"}}),
    ("anthropic", {"output_format": {}}),
    ("anthropic", {"Max_Tokens": 9}),
    ("anthropic", {"extra_body": {"max_tokens": 9}}),
    ("openai", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("openai", {"functions": []}),
    ("openai", {"prediction": {"type": "content", "content": "x"}}),
    ("openai", {"prompt_cache_retention": "24h"}),
    ("responses", {"previous_response_id": "resp_1"}),
    ("responses", {"conversation": "conv_1"}),
    ("responses", {"prompt": {"id": "pmpt_1"}}),
    ("responses", {"include": ["reasoning.encrypted_content"]}),
    ("responses", {"tool_choice": "required"}),
    ("responses", {"max_tool_calls": 5}),
    ("responses", {"context_management": []}),
    ("responses", {"prompt_cache_options": {"ttl": "12h"}}),
    ("responses", {"moderation": {}}),
    ("responses", {"reasoning": {"mode": "pro"}}),
    ("responses", {"reasoning": {"effort": "low", "summary": "auto"}}),
    ("responses", {"reasoning": "x"}),
    ("responses", {"extra_body": {"max_output_tokens": 9}}),
    ("responses", {"Max_Output_Tokens": 9}),
    ("openai", {"best_of": 5}),
    ("openai", {"max_output_tokens": 9}),
    ("openai", {"N": 5}),
    ("openai", {"extra_body": {"n": 5}}),
]
BOUNDED = [
    ("anthropic", {"metadata": {"user_id": "u" * 1000}}),
    ("anthropic", {"stop_sequences": ["s" * 1000]}),
    ("openai", {"metadata": {"k": "v"}, "store": True}),
    ("openai", {"stop": "s" * 1000, "reasoning_effort": "none"}),
    ("openai", {"reasoning_effort": "high"}),
    ("responses", {"metadata": {"k": "v"}, "store": True}),
    ("responses", {"reasoning": {"effort": "high"}}),
    ("responses", {"text": {"verbosity": "low"}}),
    ("responses", {"safety_identifier": "u" * 64, "truncation": "auto", "user": "u"}),
    ("openai", {"verbosity": "low", "seed": 7}),
    ("openai", {"logit_bias": {str(n): 1 for n in range(100)}, "reasoning_effort": "none"}),
]
LIMITS: list[dict[str, Any]] = [{"cost_limit_usd": 1}, {"budget": {"name": "b", "limit_usd": 1}}]


def name_of(params: dict[str, Any]) -> str:
    return next(iter(params))


def refusal(folder: Path, emulator: Emulator, api: str, **changes: Any) -> str:
    table = Table(folder, emulator, api, rows=2)
    with pytest.raises(SpecError) as found:
        table.run(**changes)
    assert table.ledger()["requests_accepted"] == 0
    return str(found.value)


@pytest.mark.parametrize(
    ("api", "params"), ALWAYS, ids=[f"{api}-{name_of(params)}" for api, params in ALWAYS]
)
@pytest.mark.parametrize("limit", [{}, *LIMITS], ids=["no limit", "own limit", "budget"])
def test_what_changes_the_price_or_the_count_is_no_parameter(
    emulator: Emulator, tmp_path: Path, api: str, params: dict[str, Any], limit: dict[str, Any]
) -> None:
    """It is refused with a limit or without, by a sentence that names the parameter."""
    text = refusal(tmp_path, emulator, api, params=params, **limit)
    assert text.startswith(f"params.{name_of(params)}: ")
    assert text.endswith("remove it.")


@pytest.mark.sampled(24)
@pytest.mark.parametrize(
    ("api", "params"), LIMITED, ids=[f"{api}-{name_of(params)}" for api, params in LIMITED]
)
@pytest.mark.parametrize("limit", LIMITS, ids=["own limit", "budget"])
def test_under_a_limit_only_what_is_bounded_passes(
    emulator: Emulator, tmp_path: Path, api: str, params: dict[str, Any], limit: dict[str, Any]
) -> None:
    """A parameter without a known bound is refused, in any spelling.

    The sentence says what is allowed.
    """
    text = refusal(tmp_path, emulator, api, params=params, **limit)
    assert text.startswith(f"params.{name_of(params)}: its effect on the price has no bound")
    assert "(allowed: " in text
    # without a limit it is the user's own business
    preview(Table(tmp_path, emulator, api, rows=2).spec(params=params))


@pytest.mark.parametrize(
    ("api", "params"), BOUNDED, ids=[f"{api}-{name_of(params)}" for api, params in BOUNDED]
)
def test_what_is_allowed_is_in_the_bound(
    emulator: Emulator, tmp_path: Path, api: str, params: dict[str, Any]
) -> None:
    """Bytes of allowed parameters count as input, so no answer is above its bound."""
    table = Table(tmp_path, emulator, api, rows=2)
    plain, given = (
        preview(table.spec(params=more, cost_limit_usd=1)).summary.bound or 0
        for more in ({}, params)
    )
    assert given > plain
    receipt = table.run(params=params, cost_limit_usd=1)
    assert (receipt.exit_code, receipt.warnings) == (0, [])
    check_money(table)
