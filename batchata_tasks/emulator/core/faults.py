"""Fault rules: they make the emulator misbehave as providers do.

A rule names a kind and where it applies. Kinds of scope `call`, `answer` and `batch` strike HTTP
calls and new batches (chosen by provider, route, nth call, count, probability); kinds of scope
`request` and `line` strike single requests in a batch (chosen by share or by a part of the user's
text). To add a fault, add its kind to `fault_kinds.py`, and its effect where calls go wrong
(`effects.py`) or are refused (`refusals.py`), where answers get their shape (`shapes.py`), where
the ending of a batch is decided (`fate.py`) or told (`misreports.py`), where input is validated
(`openai/input.py`), or where requests run (`anthropic/batch.py`, `openai/batch.py`,
`answers/broken.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast, get_args

import orjson

from batchata_tasks.emulator.core.fault_kinds import IDS, KINDS, ROUTES, STYLES, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.emulator.answers.schemas import JSON


# the least and the greatest HTTP status that rules take, and those of some kinds
_ERRORS = (400, 599)
_STATUSES = {"redirect": (300, 399), "cut_download": (200, 299)}
_STYLES = {"odd_objects": STYLES, "odd_id": IDS}


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
    status: int | None = None
    """The HTTP status of the answer; None for that of the kind."""
    message: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    html: bool = False
    empty: bool = False
    body: str | None = None
    """What the answer is instead of JSON: a page, nothing, or this text."""
    gzip: bool = False
    """The answer is packed before it is cut."""
    file: str | None = None
    """Which of a batch's two files comes late: `output` or `error`; None for both."""
    style: str | None = None
    """The shape of `odd_objects`, or of the id of `odd_id`."""
    word: str = "preparing_results"
    """The unknown status of `odd_objects`."""
    header: str | None = None
    """A further header that selects a project, for `projects`."""
    calls: int = 0
    strikes: int = 0
    _seen: dict[bytes, int] = field(default_factory=dict[bytes, int])
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            message = f"unknown fault kind {self.kind!r}; known: {', '.join(KINDS)}"
            raise FaultError(message)
        self._check_choice("provider", self.provider, ("anthropic", "openai"))
        self._check_choice("route", self.route, ROUTES)
        self._check_choice("file", self.file, ("output", "error"))
        if self.kind in _STYLES:
            self._check_choice("style", self.style or "none", _STYLES[self.kind])
        least, most = _STATUSES.get(self.kind, _ERRORS)
        if self.status is not None and not least <= self.status <= most:
            message = f"status of {self.kind} must be from {least} to {most}, not {self.status}"
            raise FaultError(message)
        if KINDS[self.kind].scope == "batch":
            self._check_batch_settings()
        self._random.seed(self.seed)

    def _check_choice(self, name: str, value: str | None, known: Iterable[str]) -> None:
        if value is not None and value not in known:
            message = f"{name} of {self.kind} must be one of {', '.join(known)}, not {value!r}"
            raise FaultError(message)

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
        unknown = sorted(set(given) - set(SETTINGS))
        if unknown or "kind" not in given:
            message = f"unknown settings {unknown}" if unknown else "a fault needs a kind"
            raise FaultError(message)
        return cls(**given)

    def describe(self) -> JSON:
        """Return the rule and how often it struck."""
        hidden = {"_seen", "_random"}
        names = [item.name for item in fields(self) if item.name not in hidden]
        return {name: getattr(self, name) for name in names}

    def concerns(self, provider: str) -> bool:
        """Whether the rule holds for a provider."""
        return {self.provider, KINDS[self.kind].only} <= {None, provider}

    def meets_call(self, provider: str, route: str, size: int | None = 0) -> bool:
        """Whether the rule strikes this call; counts calls whose provider, route and size match.

        The size is that of the body as announced, None if it was not.
        """
        routes = KINDS[self.kind].routes if self.route is None else (self.route,)
        if not self.concerns(provider) or (routes and route not in routes):
            return False
        if self.larger_than is not None and (size or 0) <= self.larger_than:
            return False
        if self.kind == "length_required" and size is not None:
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


SETTINGS: dict[str, str] = {
    item.name: str(item.type).removesuffix(" | None")
    for item in fields(Rule)
    if item.name not in ("_seen", "_random", "calls", "strikes")
}
"""The settings of a rule, each with its type as it is annotated."""


class Faults:
    """The rules, in the order in which they were added."""

    def __init__(self) -> None:
        self._rules: dict[Scope, list[Rule]] = {scope: [] for scope in get_args(Scope)}

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

    def for_call(self, provider: str, route: str, size: int | None) -> Rule | None:
        """Return the rule that strikes this HTTP call, if any; for `size` see `meets_call`."""
        # all rules are asked, because each counts the calls that it could strike
        striking = [rule for rule in self._rules["call"] if rule.meets_call(provider, route, size)]
        return striking[0] if striking else None

    def for_answer(self, provider: str, route: str, size: int | None) -> list[Rule]:
        """Return all rules that change the shape of the answer to this HTTP call."""
        return [rule for rule in self._rules["answer"] if rule.meets_call(provider, route, size)]

    def for_server(self, provider: str, kind: str) -> Rule | None:
        """Return the rule of a kind of scope `server`, if there is one for the provider."""
        for rule in self._rules["server"]:
            if rule.kind == kind and rule.concerns(provider):
                rule.strikes += 1
                return rule
        return None

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
