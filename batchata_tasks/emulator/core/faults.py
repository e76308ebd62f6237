"""Faults as knobs: rules that make the emulator misbehave the way providers do.

A rule names a kind and where it applies. Kinds of scope `call` and `batch` meet HTTP calls and new
batches (chosen by provider, route, nth call, count, probability); kinds of scope `request` and
`line` meet single requests inside a batch (chosen by share or by a part of the user's text). To add
a fault, add its kind to `fault_kinds.py` and act on it where calls are refused (`refusals.py`),
where a batch's fate is decided (`fate.py`), where input is validated (`openai_input.py`), or where
requests run (`anthropic_batch.py`, `openai_batch.py`, `broken.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.emulator.core.fault_kinds import KINDS

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.fault_kinds import Scope


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
    """The share of contents it strikes, chosen by a hash of the content: always the same ones.

    Of a rule about batches: the part of their requests that run.
    """
    contains: str | None = None
    """Strikes requests whose user text contains this."""
    times: int | None = None
    """Strikes one and the same content at most so often: a retry then succeeds."""
    larger_than: int | None = None
    """Strikes calls whose body is larger than so many bytes."""
    seconds: float = 1.0
    reads: int | None = None
    """Waits for so many reads instead of seconds, where a kind can."""
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
        if KINDS[self.kind].scope == "batch":
            self._check_batch_knobs()
        self._random.seed(self.seed)

    def _check_batch_knobs(self) -> None:
        """Refuse what a rule about whole batches cannot heed."""
        if self.contains is not None or self.times is not None:
            message = f"{self.kind} strikes whole batches: contains and times choose requests"
            raise FaultError(message)
        if self.share is not None and not 0 <= self.share <= 1:
            message = f"share must be between 0 and 1, not {self.share}"
            raise FaultError(message)

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

    def meets_call(self, provider: str, route: str, size: int = 0) -> bool:
        """Whether the rule strikes this call; counts the call if it is one it watches."""
        routes = KINDS[self.kind].routes if self.route is None else (self.route,)
        if self.provider not in (None, provider) or (routes and route not in routes):
            return False
        if self.larger_than is not None and size <= self.larger_than:
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
    """The rules in force, in the order they were set."""

    def __init__(self) -> None:
        self._rules: dict[Scope, list[Rule]] = {"call": [], "batch": [], "line": [], "request": []}

    def add(self, rule: Rule) -> None:
        """Put a rule in force."""
        self._rules[KINDS[rule.kind].scope].append(rule)

    def clear(self) -> None:
        """Drop all rules."""
        for rules in self._rules.values():
            rules.clear()

    def describe(self) -> list[JSON]:
        """Return all rules with their counts."""
        return [rule.describe() for rules in self._rules.values() for rule in rules]

    def for_call(self, provider: str, route: str, size: int) -> Rule | None:
        """Return the rule that strikes this HTTP call with a body of so many bytes, if any."""
        met = [rule for rule in self._rules["call"] if rule.meets_call(provider, route, size)]
        return met[0] if met else None

    def for_batch(self, provider: str) -> list[Rule]:
        """Return all rules that strike a batch which is being created."""
        return [rule for rule in self._rules["batch"] if rule.meets_call(provider, "create")]

    def for_line(self, provider: str, body: JSON) -> Rule | None:
        """Return the rule that strikes this request's line in an input file, if any."""
        return self._met("line", provider, body)

    def for_request(self, provider: str, body: JSON) -> Rule | None:
        """Return the rule that strikes this request of a batch, if any."""
        return self._met("request", provider, body)

    def _met(self, scope: Scope, provider: str, body: JSON) -> Rule | None:
        if not self._rules[scope]:
            return None
        text = _user_text(body)
        key = blake2b(text, digest_size=16).digest()
        for rule in self._rules[scope]:
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
