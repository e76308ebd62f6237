"""Fault rules: they make the emulator misbehave as providers do.

A rule names a kind and where it applies. Kinds of scope `call` and `batch` strike HTTP calls and
new batches (chosen by provider, route, nth call, count, probability); kinds of scope `request` and
`line` strike single requests in a batch (chosen by share or by a part of the user's text). To add
a fault, add its kind to `fault_kinds.py`, and its effect where calls are refused (`refusals.py`),
where the ending of a batch is decided (`fate.py`), where input is validated (`openai/input.py`), or
where requests run (`anthropic/batch.py`, `openai/batch.py`, `answers/broken.py`).
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
    """A fault rule is invalid; the message says why."""


@dataclass(slots=True)
class Rule:
    """One fault and where it strikes."""

    kind: str
    provider: str | None = None
    route: str | None = None
    nth: int | None = None
    """Only the nth matching call after the rule was added, counted from 1."""
    count: int | None = None
    """The most strikes in all."""
    probability: float | None = None
    seed: int = 0
    share: float | None = None
    """The share of contents that it strikes, chosen by a hash of the content: always the same ones.

    For a kind of scope `batch`: the share of the batch's requests that run.
    """
    contains: str | None = None
    """Strikes requests whose user text contains this."""
    times: int | None = None
    """The most strikes on the same content: a later retry then succeeds."""
    larger_than: int | None = None
    """Strikes calls whose body is larger than this many bytes."""
    seconds: float = 1.0
    reads: int | None = None
    """Waits for this many reads instead of seconds, if the kind supports it."""
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
            self._check_batch_settings()
        self._random.seed(self.seed)

    def _check_batch_settings(self) -> None:
        """Refuse settings that do not apply to whole batches."""
        if self.contains is not None or self.times is not None:
            message = f"{self.kind} strikes whole batches: contains and times choose requests"
            raise FaultError(message)
        if self.share is not None and not 0 <= self.share <= 1:
            message = f"share must be between 0 and 1, not {self.share}"
            raise FaultError(message)

    @classmethod
    def parse(cls, given: JSON) -> Rule:
        """Build a rule from a control request."""
        settings = {item.name for item in fields(cls)} - {"_seen", "_random", "calls", "strikes"}
        unknown = sorted(set(given) - settings)
        if unknown or "kind" not in given:
            message = f"unknown settings {unknown}" if unknown else "a fault needs a kind"
            raise FaultError(message)
        return cls(**given)

    def describe(self) -> JSON:
        """Return the rule and how often it struck."""
        hidden = {"_seen", "_random"}
        names = [item.name for item in fields(self) if item.name not in hidden]
        return {name: getattr(self, name) for name in names}

    def meets_call(self, provider: str, route: str, size: int = 0) -> bool:
        """Whether the rule strikes this call; counts calls whose provider, route and size match."""
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
    """The rules, in the order in which they were added."""

    def __init__(self) -> None:
        self._rules: dict[Scope, list[Rule]] = {"call": [], "batch": [], "line": [], "request": []}

    def add(self, rule: Rule) -> None:
        """Add a rule."""
        self._rules[KINDS[rule.kind].scope].append(rule)

    def clear(self) -> None:
        """Drop all rules."""
        for rules in self._rules.values():
            rules.clear()

    def describe(self) -> list[JSON]:
        """Return all rules with their counts."""
        return [rule.describe() for rules in self._rules.values() for rule in rules]

    def for_call(self, provider: str, route: str, size: int) -> Rule | None:
        """Return the rule that strikes this HTTP call, if any; `size` is that of its body."""
        # all rules are asked, because each counts the calls that it could strike
        striking = [rule for rule in self._rules["call"] if rule.meets_call(provider, route, size)]
        return striking[0] if striking else None

    def for_batch(self, provider: str) -> list[Rule]:
        """Return all rules that strike a batch at its creation."""
        return [rule for rule in self._rules["batch"] if rule.meets_call(provider, "create")]

    def for_line(self, provider: str, body: JSON) -> Rule | None:
        """Return the rule that strikes this request's line in an input file, if any."""
        return self._first("line", provider, body)

    def for_request(self, provider: str, body: JSON) -> Rule | None:
        """Return the rule that strikes this request of a batch, if any."""
        return self._first("request", provider, body)

    def _first(self, scope: Scope, provider: str, body: JSON) -> Rule | None:
        if not self._rules[scope]:
            return None
        text = _user_text(body)
        key = blake2b(text, digest_size=16).digest()
        for rule in self._rules[scope]:
            if rule.meets_request(provider, text, key):
                return rule
        return None


def _user_text(body: JSON) -> bytes:
    """Return the first user message as JSON; it stays the same if the request is retried."""
    messages: Any = body.get("messages", body.get("input"))
    if isinstance(messages, list):
        for message in cast("list[Any]", messages):
            if isinstance(message, dict) and cast("JSON", message).get("role") == "user":
                return orjson.dumps(message)
    return orjson.dumps(messages)
