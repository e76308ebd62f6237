"""Faults as knobs: rules that make the emulator misbehave the way providers do.

A rule names a kind and where it applies. Kinds of scope `call` meet HTTP calls (chosen by provider,
route, nth call, count, probability); kinds of scope `request` meet single requests inside a batch
(chosen by share or by a part of the user's text). To add a fault, add its kind to `KINDS` and act
on it where calls are answered (`calls.py`), where batches are created, or where requests run
(`anthropic_batch.py`, `openai_batch.py`, `broken.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import orjson

if TYPE_CHECKING:
    from batchata_tasks.emulator.schemas import JSON

Scope: TypeAlias = Literal["call", "request"]

CREATE = ("create",)
DOWNLOADS = ("results", "content")
ANY: tuple[str, ...] = ()

KINDS: dict[str, tuple[Scope, tuple[str, ...]]] = {
    # kind: its scope, and the routes it meets when the rule names none
    "http_429": ("call", ANY),
    "http_error": ("call", ANY),
    "http_500_before": ("call", CREATE),
    "http_500_after": ("call", CREATE),
    "drop_before": ("call", CREATE),
    "drop_after": ("call", CREATE),
    "accept_delay": ("call", CREATE),
    "list_lag": ("call", CREATE),
    "token_limit": ("call", CREATE),
    "slow": ("call", ANY),
    "not_found": ("call", ("get",)),
    "cut_download": ("call", DOWNLOADS),
    "request_error": ("request", ANY),
    "request_invalid": ("request", ANY),
    "request_expired": ("request", ANY),
    "request_refusal": ("request", ANY),
    "request_truncated": ("request", ANY),
    "request_invalid_answer": ("request", ANY),
    "request_missing": ("request", ANY),
    "request_duplicated": ("request", ANY),
    "request_broken_line": ("request", ANY),
}
"""Every kind of fault."""


class FaultError(ValueError):
    """A fault rule that cannot be understood; the message says what is wrong with it."""


@dataclass(slots=True)
class Rule:
    """One fault and where it strikes."""

    kind: str
    provider: str | None = None
    route: str | None = None
    nth: int | None = None
    """Only the nth matching call after the rule was set, counted from 1."""
    count: int | None = None
    """At most so many strikes in all."""
    probability: float | None = None
    seed: int = 0
    share: float | None = None
    """The share of contents it strikes, chosen by a hash of the content: always the same ones."""
    contains: str | None = None
    """Strikes requests whose user text contains this."""
    times: int | None = None
    """Strikes one and the same content at most so often: a retry then succeeds."""
    seconds: float = 1.0
    retry_after: float | None = None
    after_bytes: int = 1_000
    clean: bool = False
    """A cut download ends properly instead of with a broken connection."""
    status: int = 500
    message: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    html: bool = False
    calls: int = 0
    strikes: int = 0
    _seen: dict[bytes, int] = field(default_factory=dict[bytes, int])
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            message = f"unknown fault kind {self.kind!r}; known: {', '.join(KINDS)}"
            raise FaultError(message)
        self._random.seed(self.seed)

    @classmethod
    def parse(cls, given: JSON) -> Rule:
        """Build a rule from a control request."""
        known = {item.name for item in fields(cls)} - {"_seen", "_random", "calls", "strikes"}
        unknown = sorted(set(given) - known)
        if unknown or "kind" not in given:
            message = f"unknown knobs {unknown}" if unknown else "a fault needs a kind"
            raise FaultError(message)
        return cls(**given)

    def describe(self) -> JSON:
        """Return the rule and how often it struck."""
        hidden = {"_seen", "_random"}
        names = [item.name for item in fields(self) if item.name not in hidden]
        return {name: getattr(self, name) for name in names}

    def meets_call(self, provider: str, route: str) -> bool:
        """Whether the rule strikes this call; counts the call if it is one it watches."""
        routes = KINDS[self.kind][1] if self.route is None else (self.route,)
        if self.provider not in (None, provider) or (routes and route not in routes):
            return False
        self.calls += 1
        if self.nth is not None and self.calls != self.nth:
            return False
        if self.probability is not None and self._random.random() >= self.probability:
            return False
        return self._strike()

    def meets_request(self, provider: str, text: bytes, key: bytes) -> bool:
        """Whether the rule strikes a request with this user text (as JSON) and content key."""
        if self.provider not in (None, provider):
            return False
        if self.contains is not None and orjson.dumps(self.contains)[1:-1] not in text:
            return False
        if self.share is not None and self._point(key) >= self.share:
            return False
        if self.times is not None:
            if self._seen.get(key, 0) >= self.times:
                return False
            self._seen[key] = self._seen.get(key, 0) + 1
        return self._strike()

    def _point(self, key: bytes) -> float:
        salt = f"{self.kind}:{self.seed}".encode()
        return int.from_bytes(blake2b(key, digest_size=8, key=salt[:64]).digest(), "big") / 2**64

    def _strike(self) -> bool:
        if self.count is not None and self.strikes >= self.count:
            return False
        self.strikes += 1
        return True


class Faults:
    """The rules in force, in the order they were set; the first that strikes wins."""

    def __init__(self) -> None:
        self._calls: list[Rule] = []
        self._requests: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Put a rule in force."""
        scope, _ = KINDS[rule.kind]
        (self._calls if scope == "call" else self._requests).append(rule)

    def clear(self) -> None:
        """Drop all rules."""
        self._calls.clear()
        self._requests.clear()

    def describe(self) -> list[JSON]:
        """Return all rules with their counts."""
        return [rule.describe() for rule in (*self._calls, *self._requests)]

    def for_call(self, provider: str, route: str) -> Rule | None:
        """Return the rule that strikes this HTTP call, if any."""
        met = [rule for rule in self._calls if rule.meets_call(provider, route)]
        return met[0] if met else None

    def for_request(self, provider: str, body: JSON) -> Rule | None:
        """Return the rule that strikes this request of a batch, if any."""
        if not self._requests:
            return None
        text = _user_text(body)
        key = blake2b(text, digest_size=16).digest()
        for rule in self._requests:
            if rule.meets_request(provider, text, key):
                return rule
        return None


def _user_text(body: JSON) -> bytes:
    """Return the first user message as JSON: what stays the same when a request is retried."""
    messages: Any = body.get("messages", body.get("input"))
    if isinstance(messages, list):
        for message in cast("list[Any]", messages):
            if isinstance(message, dict) and cast("JSON", message).get("role") == "user":
                return orjson.dumps(message)
    return orjson.dumps(messages)
