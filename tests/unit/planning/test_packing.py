"""Chunks keep the provider's limits and cover every row once.

Request files are the bytes that were planned.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.planning.packing import Packer, PlannedChunk, prefix_within
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.base import Limits
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.providers.openai.responses import OpenAIResponsesAdapter
from batchata_tasks.providers.request_file import write_request_file
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, chunk_token, custom_id, row_id
from tests.support.by_day import examples

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.providers import Framing

ADAPTERS = {
    "anthropic": AnthropicAdapter,
    "openai": OpenAIAdapter,
    "responses": OpenAIResponsesAdapter,
}
FRAMINGS = {name: kind.framing for name, kind in ADAPTERS.items()}
LIMITS = {name: kind.limits for name, kind in ADAPTERS.items()}


def packed(limits: Limits, sizes: list[int], items: int | None = None) -> list[PlannedChunk]:
    packer = Packer([limits], items)
    for number, size in enumerate(sizes):
        assert packer.fits_alone(size)
        packer.add(size, bound=number)
    return packer.finish()


def rows_of(spans: list[PlannedChunk]) -> list[int]:
    return [span.stop - span.start for span in spans]


@pytest.mark.parametrize(
    ("requests", "items", "count", "expected"),
    [
        (3, None, 0, []),
        (3, None, 2, [2]),
        (3, None, 3, [3]),
        (3, None, 4, [3, 1]),
        (3, None, 7, [3, 3, 1]),
        (3, 2, 4, [2, 2]),
        (3, 2, 5, [2, 2, 1]),
        (3, 3, 3, [3]),
        (3, 4, 4, [3, 1]),
        (3, 1, 2, [1, 1]),
    ],
)
def test_the_count_limit_at_its_edge(
    requests: int, items: int | None, count: int, expected: list[int]
) -> None:
    """One below, at and above the provider's count or `items_per_batch`, whichever is less."""
    assert rows_of(packed(Limits(requests, 10**9), [1] * count, items)) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([99], [1]),
        ([100], [1]),
        ([50, 49], [2]),
        ([50, 50], [2]),
        ([50, 51], [1, 1]),
        ([100, 1, 99, 1], [1, 2, 1]),
        ([1, 100, 1], [1, 1, 1]),
        ([0, 100, 0], [3]),
    ],
)
def test_the_byte_limit_at_its_edge(sizes: list[int], expected: list[int]) -> None:
    """A batch's requests may have the limit's bytes, and not one more."""
    assert rows_of(packed(Limits(10, 100), sizes)) == expected


def test_a_request_over_the_limit_never_fits() -> None:
    """A request larger than a batch is found before it is packed."""
    packer = Packer([Limits(10, 100)])
    assert packer.fits_alone(100)
    assert not packer.fits_alone(101)


@given(
    st.lists(st.integers(0, 50)),
    st.integers(1, 7),
    st.integers(50, 120),
    st.none() | st.integers(1, 9),
)
@settings(deadline=None, max_examples=examples(200), derandomize=True)
def test_spans_cover_every_row_once(
    sizes: list[int], requests: int, limit: int, items: int | None
) -> None:
    """No row is lost or sent twice, and sums are the rows' own.

    No two neighbours would fit in one.
    """
    spans = packed(Limits(requests, limit), sizes, items)
    most = min(requests, items or requests)
    assert [n for span in spans for n in range(span.start, span.stop)] == list(range(len(sizes)))
    for span in spans:
        assert 1 <= span.stop - span.start <= most
        assert span.bytes == sum(sizes[span.start : span.stop]) <= limit
        assert span.bound == sum(range(span.start, span.stop))
    for left, right in pairwise(spans):
        assert left.stop - left.start == most or left.bytes + sizes[right.start] > limit


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_leave_room_for_the_frame(name: str) -> None:
    """Both providers' documented limits hold with the head and tail of the file on top."""
    documented = (100_000, 256_000_000) if name == "anthropic" else (50_000, 200_000_000)
    limits, framing = LIMITS[name], FRAMINGS[name]
    assert limits.requests <= documented[0]
    assert limits.bytes + len(framing.head) + len(framing.tail) <= documented[1]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9))), st.integers(0, 200))
@settings(deadline=None, max_examples=examples(200), derandomize=True)
def test_a_prefix_is_the_longest_that_fits(rows: list[tuple[int, int]], money: int) -> None:
    """Its bounds fit the money, and one more row would not."""
    bounds = [bound for bound, _ in rows]
    count = prefix_within(bounds, money)
    assert sum(bounds[:count]) <= money
    assert count == len(rows) or sum(bounds[: count + 1]) > money


@pytest.mark.parametrize(
    ("money", "expected"),
    [
        (0, (0, 0, 0)),
        (9, (0, 0, 0)),
        (10, (1, 1, 10)),
        (29, (1, 1, 10)),
        (30, (2, 3, 30)),
        (99, (3, 6, 40)),
    ],
)
def test_a_prefix_at_the_edge(money: int, expected: tuple[int, int, int]) -> None:
    """It uses the last picodollar and no more."""
    assert prefix_within([10, 20, 10], money) == expected[0]


def test_free_rows_fit_into_no_money() -> None:
    """Rows that cost nothing are never held back."""
    assert prefix_within([0, 0, 1], 0) == 2


IDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=60)


@given(IDS, st.integers(0, 99), st.integers(0, 10**9), st.sampled_from(["batch", "local"]))
@settings(deadline=None, max_examples=examples(100), derandomize=True)
def test_custom_ids_suit_both_providers(run: str, number: int, start: int, kind: str) -> None:
    """A custom_id has at most 64 letters, digits and hyphens, always of one length.

    Its token and its row's id can be separated.
    """
    token, row = chunk_token(run, number, start, kind), row_id("d", run.encode(), "f")
    name = custom_id(token, row)
    assert re.fullmatch("[a-z0-9]{20}-[a-z0-9]{24}", name)
    assert len(name) == CUSTOM_ID_CHARS <= 64
    assert name.partition("-")[::2] == (token, row)


def test_a_carried_on_run_makes_the_same_tokens() -> None:
    """A token depends on each of run, round, place and kind, and on nothing else."""
    facts = [
        ("r", 1, 0, "batch"),
        ("s", 1, 0, "batch"),
        ("r", 2, 0, "batch"),
        ("r", 1, 1, "batch"),
        ("r", 1, 0, "local"),
        ("r", 11, 0, "batch"),
    ]
    tokens = [chunk_token(*fact) for fact in facts]
    assert tokens == [chunk_token(*fact) for fact in facts]
    assert len(set(tokens)) == len(facts)
    assert chunk_token("r", 1, 11, "batch") != chunk_token("r", 11, 1, "batch")


def parsed(name: str, content: bytes) -> list[tuple[str, object]]:
    """Read a request file as its provider does."""
    if name == "anthropic":
        return [(r["custom_id"], r["params"]) for r in json.loads(content)["requests"]]
    lines = [json.loads(line) for line in content.split(b"\n")[:-1]]
    url = "/v1/responses" if name == "responses" else "/v1/chat/completions"
    assert all(line["method"] == "POST" and line["url"] == url for line in lines)
    return [(line["custom_id"], line["body"]) for line in lines]


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 2048, 2049])
@pytest.mark.parametrize("name", FRAMINGS)
def test_request_files_hold_the_bodies(tmp_path: Path, name: str, count: int) -> None:
    """Read as JSON, a request file is its custom ids and bodies, in order, for any text."""
    framing: Framing = FRAMINGS[name]
    bodies = [
        (f"{n:024}", orjson.dumps({"n": n, "text": 'new\nline "ü🦊\u2028'})) for n in range(count)
    ]
    path = tmp_path / "requests"
    write_request_file(path, framing, "t" * 20, iter(bodies))
    content = path.read_bytes()
    assert parsed(name, content) == [
        (f"{'t' * 20}-{row}", json.loads(body)) for row, body in bodies
    ]
    planned = sum(framing.size(CUSTOM_ID_CHARS, body) for _, body in bodies)
    unjoined = len(framing.joint) if count else 0
    assert len(content) == planned - unjoined + len(framing.head) + len(framing.tail)
