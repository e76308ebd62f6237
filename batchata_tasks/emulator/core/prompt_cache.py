"""Anthropic's prompt cache, emulated: the prefixes of each account, and what requests are billed.

Only marks in the system prompt count, and only batches use the cache. Requests of a batch run side
by side, so those after the first find its prefix often, but not always: `hit_share` of the requests
can find it, chosen by a hash of their content, so always the same ones.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.answers.schemas import as_object
from batchata_tasks.emulator.answers.tokens import Cached

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.clock import Clock

USUAL_HIT_SHARE = 0.9
MINIMUM = {"claude-haiku": 4096, "claude-opus": 4096}
"""The shortest prefix (tokens) that a family of models caches, if it is not the usual one."""
_USUAL_MINIMUM = 1024
_LIVES = {"5m": 300.0, "1h": 3600.0}


class PromptCache:
    """The prefixes that accounts have in the cache; each use restarts a prefix's lifetime."""

    def __init__(self, clock: Clock, hit_share: float = USUAL_HIT_SHARE) -> None:
        self.hit_share = hit_share
        self._clock = clock
        self._until: dict[tuple[str, bytes], float] = {}

    def use(self, account: str, params: JSON, content: bytes) -> Cached:
        """Run one request through the cache; `content` is the hash of its content."""
        marked = _marked(params)
        if marked is None:
            return Cached()
        prefix, tokens, life = marked
        if tokens < minimum(params["model"]):
            return Cached()
        key, now = (account, prefix), self._clock.now()
        is_cached = self._until.get(key, -inf) > now
        self._until[key] = now + _LIVES[life]
        if is_cached and int.from_bytes(content[:8], "big") / 2**64 < self.hit_share:
            return Cached(read=tokens)
        return Cached(written_1h=tokens) if life == "1h" else Cached(written_5m=tokens)


def minimum(model: str) -> int:
    """Return the least number of tokens of a prefix that a model caches."""
    return next(
        (tokens for family, tokens in MINIMUM.items() if model.startswith(family)), _USUAL_MINIMUM
    )


def _marked(params: JSON) -> tuple[bytes, int, str] | None:
    """Return (hash, tokens, life) of the prefix before the last mark; None if there is no mark."""
    system: Any = params.get("system")
    if not isinstance(system, list):
        return None
    blocks = [as_object(block) for block in cast("list[Any]", system)]
    last = max((i for i, block in enumerate(blocks) if block.get("cache_control")), default=None)
    if last is None:
        return None
    texts = [str(block.get("text", "")) for block in blocks[: last + 1]]
    form = params.get("output_config")
    digest = blake2b(
        orjson.dumps([params["model"], params.get("tools"), form, texts]), digest_size=16
    ).digest()
    life = as_object(blocks[last]["cache_control"]).get("ttl", "5m")
    tokens = sum(len(text.encode()) for text in texts) // 4  # never more than the whole input
    return digest, tokens, life if life in _LIVES else "5m"
