"""The fast path reads the plain line as the slow one does, and leaves every other line to it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchata_tasks.providers.anthropic import fast_lines as anthropic_fast
from batchata_tasks.providers.anthropic import results as anthropic_lines
from batchata_tasks.providers.openai import fast_lines as openai_fast
from batchata_tasks.providers.openai import results as openai_lines
from batchata_tasks.providers.result_lines import read_line, read_lines
from tests.support.by_day import examples
from tests.support.odd_lines import odd_lines
from tests.support.result_lines import LINES

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES: dict[str, tuple[Any, Any]] = {
    "anthropic": (anthropic_fast, anthropic_lines),
    "openai": (openai_fast, openai_lines),
    "responses": (openai_fast, openai_lines),
}
ODD: list[Any] = [None, 0, 1, 7, -1, 2**41, 1.5, 2.0, True, "", "5", "us", "x", [], ["x"], {}]
ODD += [{"text": "y"}, {"cached_tokens": 3}, {"reasoning_tokens": 99}, '{"cached_tokens": 4}']
QUICK = settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place within a line, as its holder and its name there."""
    names = (
        value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    )
    for name in list(names):
        yield value, name
        yield from places(value[name])


def check(dialect: str, line: bytes) -> None:
    fast, slow = MODULES[dialect]
    (answer,) = read_lines([line], fast.plain_answer, slow.answer_of)
    assert answer == read_line(line, slow.answer_of)


@pytest.mark.parametrize("dialect", MODULES)
@QUICK
@given(data=st.data())
def test_odd_lines_read_alike(dialect: str, data: st.DataObject) -> None:
    """However odd a line is, both ways read the same of it."""
    check(dialect, data.draw(odd_lines(dialect)).line)


@pytest.mark.parametrize("dialect", MODULES)
def test_each_field_that_is_odd_reads_alike(dialect: str) -> None:
    """Whatever stands in one field of the documented line, or if it is not there."""
    count = len(list(places(LINES[dialect])))
    for number in range(count):
        for odd in [*ODD, ...]:
            line = copy.deepcopy(LINES[dialect])
            holder, name = list(places(line))[number]
            if odd is ...:
                del holder[name]
            else:
                holder[name] = odd
            check(dialect, orjson.dumps(line))


@pytest.mark.parametrize("dialect", MODULES)
@QUICK
@given(data=st.data())
def test_counts_and_further_fields_read_alike(dialect: str, data: st.DataObject) -> None:
    """Several fields of the usage at once, and fields that the documented line does not have."""
    line = copy.deepcopy(LINES[dialect])
    message = line["result"]["message"] if dialect == "anthropic" else line["response"]["body"]
    names = [
        *("input_tokens", "output_tokens", "cache_read_input_tokens", "total_tokens", "iterations"),
        *("prompt_tokens", "completion_tokens", "cache_creation", "prompt_tokens_details"),
        *("cache_creation_input_tokens", "completion_tokens_details", "server_tool_use"),
        *("input_tokens_details", "output_tokens_details"),
    ]
    odd = st.sampled_from(ODD) | st.integers(0, 40)
    message["usage"] |= data.draw(st.dictionaries(st.sampled_from(names), odd, max_size=4))
    message |= data.draw(
        st.dictionaries(st.sampled_from(["output", "content", "choices", "x"]), odd)
    )
    check(dialect, orjson.dumps(line))


@pytest.mark.parametrize("dialect", MODULES)
def test_the_documented_line_is_a_plain_one(dialect: str) -> None:
    """It does not need the slow way, or nothing would be gained."""
    fast, slow = MODULES[dialect]
    line = orjson.dumps(LINES[dialect])
    answer = fast.plain_answer(orjson.loads(line), {})
    assert answer == read_line(line, slow.answer_of)
    assert answer.text == "fine"


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "?"}]}
SAID: dict[str, Any] = {"type": "message", "content": [{"type": "output_text", "text": "other"}]}


@pytest.mark.parametrize(
    ("others", "is_plain"),
    [
        ([REASONING], True),
        ([REASONING, REASONING], True),
        ([SAID], False),
        ([{**SAID, "phase": "commentary"}], False),
        ([{"type": "web_search_call"}], False),
        ([{"type": "Reasoning"}], False),
        ([{}], False),
        (["x"], False),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_a_model_thought_is_no_part_of_its_answer(
    others: list[Any], is_plain: bool, first: bool
) -> None:
    """Items of reasoning leave a response a plain one; any other item is left to the slow way."""
    line = copy.deepcopy(LINES["responses"])
    body = line["response"]["body"]
    body["output"] = [*others, *body["output"]] if first else [*body["output"], *others]
    check("responses", orjson.dumps(line))
    try:
        answer = openai_fast.plain_answer(line, {})
    except (LookupError, TypeError, ValueError, AttributeError):  # also for `read_lines` to handle
        answer = None
    assert (answer is not None) is is_plain
