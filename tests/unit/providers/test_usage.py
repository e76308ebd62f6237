"""The providers' reports of tokens, in one convention: the whole input, with its cached parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from genai_prices import extract_usage
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.money import usd
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers.anthropic import results as anthropic_lines
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.openai import results as openai_lines
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.providers.openai.responses import OpenAIResponsesAdapter
from batchata_tasks.types.answer import Answer, Usage
from tests.support.by_day import examples

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.providers import Provider

MODELS = {"anthropic": "claude-opus-5-5", "openai": "gpt-6-luna", "responses": "gpt-6-luna"}
ADAPTERS: dict[str, type[Provider]] = {
    "anthropic": AnthropicAdapter,
    "openai": OpenAIAdapter,
    "responses": OpenAIResponsesAdapter,
}
SIDES = {"anthropic": "anthropic", "openai": "openai", "responses": "openai"}  # whose API it is


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


def line_of(provider: str, usage: Any) -> dict[str, Any]:
    """Return a result line as the provider writes it, around a usage block."""
    if provider == "anthropic":
        message = {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": MODELS[provider],
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": usage,
        }
        return {"custom_id": "r1", "result": {"type": "succeeded", "message": message}}
    if provider == "responses":
        output = [
            {
                "id": "msg_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi"}],
            }
        ]
        body = {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "model": MODELS[provider],
            "output": output,
            "usage": usage,
        }
        return {
            "id": "batch_req_1",
            "custom_id": "r1",
            "response": {"status_code": 200, "request_id": "req_1", "body": body},
            "error": None,
        }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODELS[provider],
        "choices": [choice],
        "usage": usage,
    }
    return {
        "id": "batch_req_1",
        "custom_id": "r1",
        "response": {"status_code": 200, "request_id": "req_1", "body": body},
        "error": None,
    }


def answer_of(provider: str, usage: Any, folder: Path) -> Answer:
    adapter = ADAPTERS[provider]()
    path = folder / "results.jsonl"
    path.write_bytes(orjson.dumps(line_of(provider, usage)) + b"\n")
    (answer,) = adapter.answers(path)
    return answer


ANTHROPIC_NULLS = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 36,
    "server_tool_use": None,
    "service_tier": "batch",
    "inference_geo": None,
}
BLOCKS: list[tuple[str, str, Any, Usage]] = [
    ("plain", "anthropic", ANTHROPIC_NULLS, Usage(11, 36)),
    ("two-numbers", "anthropic", {"input_tokens": 11, "output_tokens": 36}, Usage(11, 36)),
    (
        "all-null",
        "anthropic",
        {
            **ANTHROPIC_NULLS,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
        },
        Usage(11, 36),
    ),
    (
        "read",
        "anthropic",
        {**ANTHROPIC_NULLS, "cache_read_input_tokens": 2000},
        Usage(2011, 36, 2000),
    ),
    (
        "both-writes",
        "anthropic",
        {
            **ANTHROPIC_NULLS,
            "cache_read_input_tokens": 200,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        },
        Usage(261, 36, 200, 20, 30),
    ),
    (
        "only-the-sum-of-writes",
        "anthropic",
        {**ANTHROPIC_NULLS, "cache_creation_input_tokens": 50, "cache_creation": None},
        Usage(61, 36, 0, 50),
    ),
    (
        "only-the-parts-of-writes",
        "anthropic",
        {
            **ANTHROPIC_NULLS,
            "cache_creation_input_tokens": None,
            "cache_creation": {"ephemeral_5m_input_tokens": None, "ephemeral_1h_input_tokens": 30},
        },
        Usage(41, 36, 0, 0, 30),
    ),
    (
        "searches",
        "anthropic",
        {**ANTHROPIC_NULLS, "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 2}},
        Usage(11, 36, web_searches=3),
    ),
    (
        "bound-to-the-us",
        "anthropic",
        {**ANTHROPIC_NULLS, "inference_geo": "us"},
        Usage(11, 36, us_only=True),
    ),
    ("anywhere", "anthropic", {**ANTHROPIC_NULLS, "inference_geo": "global"}, Usage(11, 36)),
    (
        "thought",
        "anthropic",
        {**ANTHROPIC_NULLS, "output_tokens_details": {"thinking_tokens": 30}},
        Usage(11, 36),
    ),
    (
        "all-from-cache",
        "anthropic",
        {**ANTHROPIC_NULLS, "input_tokens": 0, "cache_read_input_tokens": 9},
        Usage(9, 36, 9),
    ),
    (
        "plain",
        "openai",
        {
            "prompt_tokens": 22,
            "completion_tokens": 2,
            "total_tokens": 24,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(22, 2),
    ),
    (
        "three-numbers",
        "openai",
        {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
        Usage(22, 2),
    ),
    (
        "all-null",
        "openai",
        {
            "prompt_tokens": 22,
            "completion_tokens": 2,
            "total_tokens": 24,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
        Usage(22, 2),
    ),
    (
        "null-details",
        "openai",
        {
            "prompt_tokens": 22,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": None, "audio_tokens": None},
        },
        Usage(22, 2),
    ),
    (
        "read-and-written",
        "openai",
        {
            "prompt_tokens": 350,
            "completion_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 50},
        },
        Usage(350, 30, 200, 50),
    ),
    (
        "reasoned",
        "openai",
        {
            "prompt_tokens": 22,
            "completion_tokens": 900,
            "completion_tokens_details": {"reasoning_tokens": 890},
        },
        Usage(22, 900),
    ),
    (
        "plain",
        "responses",
        {
            "input_tokens": 18,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 25,
        },
        Usage(18, 7),
    ),
    (
        "three-numbers",
        "responses",
        {"input_tokens": 18, "output_tokens": 7, "total_tokens": 25},
        Usage(18, 7),
    ),
    (
        "all-null",
        "responses",
        {
            "input_tokens": 18,
            "input_tokens_details": None,
            "output_tokens": 7,
            "output_tokens_details": None,
            "total_tokens": 25,
        },
        Usage(18, 7),
    ),
    (
        "read-and-written",
        "responses",
        {
            "input_tokens": 350,
            "input_tokens_details": {"cache_write_tokens": 50, "cached_tokens": 200},
            "output_tokens": 30,
        },
        Usage(350, 30, 200, 50),
    ),
    (
        "reasoned",
        "responses",
        {
            "input_tokens": 18,
            "output_tokens": 109,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 127,
        },
        Usage(18, 109),
    ),
]


@pytest.mark.parametrize(
    ("provider", "block", "usage"),
    [block[1:] for block in BLOCKS],
    ids=[f"{provider}-{name}" for name, provider, _, _ in BLOCKS],
)
def test_a_usage_block_is_read(
    provider: str, block: dict[str, Any], usage: Usage, tmp_path: Path
) -> None:
    """Anthropic leaves cached input out of input_tokens, OpenAI includes it.

    Null or absent is zero.
    """
    answer = answer_of(provider, block, tmp_path)
    assert (answer.usage, answer.readable) == (usage, True)


# the library reads the sum of cache writes alone, and no surcharge
THEIRS = [
    block[:3] for block in BLOCKS if block[0] not in ("only-the-parts-of-writes", "bound-to-the-us")
]


@pytest.mark.parametrize(
    ("provider", "block"),
    [block[1:] for block in THEIRS],
    ids=[f"{provider}-{name}" for name, provider, _ in THEIRS],
)
def test_a_usage_block_costs_what_genai_prices_makes_of_it(
    provider: str, block: dict[str, Any], tmp_path: Path
) -> None:
    """From the provider's own JSON to dollars, two programs get one figure."""
    rates = published_rates(SIDES[provider], MODELS[provider])
    assert rates is not None
    body = {"model": MODELS[provider], "usage": block}
    flavor = {"anthropic": "default", "openai": "chat"}.get(provider, provider)
    theirs = extract_usage(body, provider_id=SIDES[provider], api_flavor=flavor)
    priced = theirs.calc_price(price_context={"processing": "batch"})
    assert usd(rates.cost(answer_of(provider, block, tmp_path).usage)) == priced.total_price


TOKENS = st.none() | st.integers(0, 300_000)


@given(TOKENS, TOKENS, st.none() | st.tuples(TOKENS, TOKENS), st.integers(0, 300_000))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_all_of_anthropics_input_is_counted_once(
    read: int | None, written: int | None, parts: tuple[int | None, int | None] | None, plain: int
) -> None:
    """With any part of the block, the whole input is the sum of its kinds; no kind is lost."""
    minutes, hour = parts or (None, None)
    created = (
        None
        if parts is None
        else {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour}
    )
    usage = anthropic_lines.usage_of(
        {
            "input_tokens": plain,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": created,
        }
    )
    kinds = usage.cache_read_tokens + usage.cache_write_tokens + usage.cache_write_1h_tokens
    assert usage.input_tokens - kinds == plain
    assert usage.cache_read_tokens == (read or 0)
    assert usage.cache_write_1h_tokens == (hour or 0)
    assert usage.cache_write_tokens + usage.cache_write_1h_tokens == max(
        written or 0, (minutes or 0) + (hour or 0)
    )


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("count", ["7", 7.5, -1, True, [7]])
def test_a_count_that_is_none_leaves_the_cost_open(
    provider: str, count: Any, tmp_path: Path
) -> None:
    """A count that is invalid leaves the cost open: the answer was not free."""
    name = "prompt_tokens" if provider == "openai" else "input_tokens"
    assert not answer_of(provider, {name: count}, tmp_path).readable


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("block", [None, {}, {"input_tokens": None, "prompt_tokens": None}, []])
def test_an_answer_without_usage_was_not_free(provider: str, block: Any, tmp_path: Path) -> None:
    """If nothing reports what an answer used, its cost is unknown; it is not 0."""
    assert not answer_of(provider, block, tmp_path).readable


@pytest.mark.parametrize(("sent", "received"), [("prompt", "completion"), ("input", "output")])
@pytest.mark.parametrize(
    ("written", "reasoning", "total", "output"),
    [
        (25, 20, 45, 25),  # as OpenAI counts: within
        (5, 5000, 5025, 5005),  # beside: the total has them
        (5, 5000, None, 5005),  # beside, without a total
        (5, None, 5025, 5005),  # only the total has them
        (25, 20, "many", 25),  # a total that is none spoils nothing
    ],
)
def test_reasoning_that_a_server_counts_apart_costs(
    sent: str, received: str, written: int, reasoning: int | None, total: Any, output: int
) -> None:
    """Output includes tokens of reasoning, wherever a usage block states them."""
    usage = {
        f"{sent}_tokens": 20,
        f"{received}_tokens": written,
        f"{received}_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": total,
    }
    assert openai_lines.stated_usage(usage) == (Usage(20, output), True)


def test_cached_tokens_that_a_server_counts_apart_are_input() -> None:
    """More cached tokens than input stand beside it; no output is made of them."""
    details = {"prompt_tokens_details": {"cached_tokens": 900}}
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 925, **details}
    assert openai_lines.stated_usage(usage) == (Usage(920, 5, 900), True)
