"""The emulated prompt cache: what it holds, for whom and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from batchata_tasks.emulator.core.clock import Clock
from batchata_tasks.emulator.core.prompt_cache import Cached, PromptCache, minimum

# hashes of contents that find what is there, and that do not
HIT = b"\x00" * 16
MISS = b"\xff" * 16
TEXT = "x" * 8000


def params(
    ttl: str | None = "1h", text: str = TEXT, model: str = "claude-sonnet-5-5", **more: Any
) -> dict[str, Any]:
    mark = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    return {
        "model": model,
        "system": [{"type": "text", "text": text, "cache_control": mark}],
        "messages": [],
        **more,
    }


@pytest.fixture
def cache() -> PromptCache:
    clock = Clock()
    clock.freeze(frozen=True)
    return PromptCache(clock)


def test_the_first_writes_and_later_ones_read(cache: PromptCache) -> None:
    """A prefix is written once and read later.

    Requests that run beside the one that writes it do not find it.
    """
    assert [cache.use("a", params(), content) for content in (HIT, HIT, MISS, HIT)] == [
        Cached(written_1h=2000),
        Cached(read=2000),
        Cached(written_1h=2000),
        Cached(read=2000),
    ]


@pytest.mark.parametrize(
    ("account", "other"),
    [
        ("b", params()),
        ("a", params(text=TEXT + "y")),
        ("a", params(model="claude-sonnet-5")),
        ("a", params(output_config={"format": 1})),
    ],
)
def test_what_differs_is_not_found(cache: PromptCache, account: str, other: dict[str, Any]) -> None:
    """The cache belongs to the account.

    A prefix is its text, its model and the required form of answers.
    """
    cache.use("a", params(), HIT)
    assert cache.use(account, other, HIT).read == 0


@pytest.mark.parametrize(
    ("ttl", "seconds", "kind"),
    [(None, 300, "written_5m"), ("5m", 300, "written_5m"), ("1h", 3600, "written_1h")],
)
def test_an_entry_lives_on_while_it_is_used(
    cache: PromptCache, ttl: str | None, seconds: int, kind: str
) -> None:
    """A mark's life is five minutes unless it says an hour, and begins anew with each use."""
    clock = cache._clock
    assert getattr(cache.use("a", params(ttl), HIT), kind) == 2000
    for _ in range(3):
        clock.advance(seconds - 1)
        assert cache.use("a", params(ttl), HIT) == Cached(read=2000)
    clock.advance(seconds)
    assert getattr(cache.use("a", params(ttl), HIT), kind) == 2000


def test_what_is_short_or_unmarked_is_not_cached(cache: PromptCache) -> None:
    """Below the model's minimum, or without a mark, input is not cached."""
    for given in (
        params(text="x" * 4095),
        params(model="claude-haiku-5-5"),
        {"model": "claude-sonnet-5-5", "system": TEXT},
    ):
        assert [cache.use("a", given, HIT) for _ in range(2)] == [Cached(), Cached()]
    assert cache.use("a", params(text="x" * 4096), HIT) == Cached(written_1h=1024)
    assert (minimum("claude-sonnet-5-5"), minimum("claude-haiku-5-5")) == (1024, 4096)
