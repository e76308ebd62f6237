"""Scenarios, drawn: tables, answer lengths, limits, faults and kills.

The same seed and number give the same scenario.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from batchata_tasks.emulator import Lengths
from batchata_tasks.emulator.core.fault_kinds import STYLES
from tests.support.recovery.boundaries import BOUNDARIES
from tests.support.recovery.place import MODELS, Provider

Kind = Literal["alone", "killed", "overlap", "changed", "budget"]
# "budget" takes a share of its own
KINDS: dict[Kind, float] = {
    "alone": 0.3,
    "killed": 0.45,
    "overlap": 0.15,
    "changed": 0.1,
}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["x", "y"]}, "why": {"type": "string"}},
    "required": ["label", "why"],
}
JAPANESE = "帳簿係は今週の頁を開き一行ずつ声に出して読んだ"
AFTER: tuple[dict[str, Any], ...] = (
    {"kind": "drop_after"},
    {"kind": "drop_mid_answer"},
    {"kind": "garbled_answer"},
    {"kind": "garbled_answer", "html": True},
    *({"kind": "http_error_after", "status": status} for status in (408, 409, 425, 499, 500)),
    *({"kind": "http_error_after", "status": status, "html": True} for status in (404, 502)),
    {"kind": "http_error_after", "status": 400, "html": True},
    {"kind": "accept_delay", "seconds": 0.1},
)
"""Creates that were accepted, and answered so that nobody can know."""
BEFORE: tuple[dict[str, Any], ...] = (
    {"kind": "drop_before"},
    *({"kind": "http_error", "route": "create", "status": status} for status in (408, 409, 500)),
    {"kind": "http_error", "route": "create", "status": 502, "html": True},
)
"""Creates that were not accepted, answered as unclearly."""
_ONCE = ("plan", "held", "dataset", "owner", "run is")  # boundaries that a run passes once


@dataclass(frozen=True)
class Table:
    """One dataset's rows and how they are sent."""

    texts: list[str]
    items_per_batch: int
    parallel: int
    max_tokens: int
    schema: bool
    limit_share: float | None  # of the sum of its rows' bounds; None for no limit
    again_share: float  # of the limit that replaces it, if it is changed


@dataclass(frozen=True)
class Kill:
    """How one start is killed: after some seconds, or at a boundary between two steps."""

    after: float = 0.0
    boundary: str | None = None


@dataclass(frozen=True)
class Scenario:
    """The tables, limits and disturbances of one scenario."""

    name: str
    kind: Kind
    provider: Provider
    tables: list[Table]
    lengths: Lengths
    seconds: float  # that a batch takes
    kills: list[Kill]
    budget_share: float = 0.0  # of the sum of all rows' bounds
    faults: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    listed: bool = True  # whether the provider's lists show its batches

    @property
    def model(self) -> str:
        return MODELS[self.provider]


def draw(
    seed: int, number: int, budgets: float = 0.0, *, small: bool = False, unclear: bool = False
) -> Scenario:
    """Draw a scenario; `small` ones have few rows, `unclear` ones have creates of unknown fate.

    A share of `budgets` has several datasets under one budget.
    """
    scenario = _draw(seed, number, budgets, small=small)
    if not unclear:
        return scenario
    rng = random.Random(f"unclear {seed} {number}")
    listed = rng.random() < 0.75
    faults = [*_unclear(rng, listed=listed), *scenario.faults]
    return replace(scenario, name=f"{scenario.name}-unclear", faults=faults, listed=listed)


def _unclear(rng: random.Random, *, listed: bool) -> list[dict[str, Any]]:
    """Draw faults that leave creates unclear, and the shape of what tells their fate.

    If lists show nothing, a create whose answer was lost stays undecided.
    """
    faults = [
        *rng.sample(AFTER, rng.choice([1, 1, 2, 3])),
        *rng.sample(BEFORE, rng.choice([0, 1, 1, 2])),
    ]
    drawn = [
        {**fault, "seed": rng.randrange(1 << 30)}
        | ({"probability": rng.choice([0.15, 0.4])} if rng.random() < 0.7 else {"nth": 1})
        for fault in faults
    ]
    if rng.random() < 0.3:
        drawn.append({"kind": "odd_objects", "style": rng.choice(list(STYLES))})
    if rng.random() < 0.3:
        drawn.append({"kind": "bare_create", "probability": 0.5})
    if rng.random() < 0.5:
        drawn.append({"kind": "lists_unproven"})
    if not listed:
        drawn.append({"kind": "list_empty"})
    elif rng.random() < 0.3:
        drawn.append({"kind": "list_flat"})
    return drawn


def _draw(seed: int, number: int, budgets: float, *, small: bool) -> Scenario:
    rng = random.Random(f"money {seed} {number}")
    kind: Kind = (
        "budget" if rng.random() < budgets else rng.choices(list(KINDS), list(KINDS.values()))[0]
    )
    lengths, cap = _lengths(rng)
    shared = kind == "budget"
    number_of_tables = rng.randint(2, 3) if shared else 1
    tables = [
        _table(rng, cap, lengths.language == "ja", small=small or shared, shared=shared)
        for _ in range(number_of_tables)
    ]
    kills = 0
    if kind == "killed":
        kills = rng.randint(1, 3)
    elif kind == "changed":
        kills = 1
    elif kind == "budget":
        kills = rng.choice([0, 0, 1])
    return Scenario(
        f"{seed}-{number}",
        kind,
        rng.choice(list(MODELS)),
        tables,
        lengths,
        rng.choice([0.02, 0.05, 0.1, 0.2]),
        [_kill(rng) for _ in range(kills)],
        _share(rng),
        _faults(rng),
    )


def _share(rng: random.Random) -> float:
    """Draw a limit's share of the bounds.

    It is often far below 1, as answers are shorter than their caps.
    """
    return rng.choice(
        [
            rng.uniform(0, 1.3),
            10 ** rng.uniform(-2.0, -0.2),
            10 ** rng.uniform(-2.0, -0.2),
            rng.choice([0.0, 0.002, 0.01]),
        ]
    )


def _lengths(rng: random.Random) -> tuple[Lengths, int]:
    cap = rng.choice([20, 60, 100, 300, 1000])
    mean = max(8.0, cap * rng.choice([0.2, 0.5, 0.9]))
    seed = rng.randrange(1 << 30)
    language = rng.choice(["en", "en", "ja"])
    setting = rng.choice(
        [
            Lengths(),
            Lengths(
                "lognormal", mean=mean, sigma=rng.choice([0.4, 1.0]), seed=seed, language=language
            ),
            Lengths(
                "pareto", mean=mean, alpha=rng.choice([1.2, 1.8]), seed=seed, language=language
            ),
        ]
    )
    return setting, cap


def _table(rng: random.Random, cap: int, japanese: bool, *, small: bool, shared: bool) -> Table:
    rows = (
        rng.randint(5, 40)
        if small
        else rng.choice(
            [
                *(rng.randint(5, 40) for _ in range(4)),
                *(rng.randint(20, 120) for _ in range(3)),
                rng.randint(200, 300),
            ]
        )
    )
    spread = rng.choice([0.0, 0.3, 1.5])  # of the logarithm of a row's length
    words = JAPANESE if japanese else "the clerk read every line of the ledger aloud "
    texts: list[str] = []
    for number in range(rows):
        length = int(min(6000, 60 * 2.718 ** rng.gauss(0, spread))) if spread else 40
        texts.append(f"{number} {(words * (1 + length // len(words)))[:length]}".strip())
    limit = None if shared and rng.random() < 0.6 else _share(rng)
    most = rows // 3 if rows < 200 else rows // 2
    return Table(
        texts,
        rng.randint(max(1, rows // 8), max(2, most)),
        rng.randint(1, 4),
        cap,
        rng.random() < 0.2,
        limit,
        _share(rng),
    )


def _kill(rng: random.Random) -> Kill:
    if rng.random() < 0.5:
        return Kill(after=rng.uniform(0.05, 0.9))
    name = rng.choice(list(BOUNDARIES))
    nth = 1 if any(word in name for word in _ONCE) else rng.choice([1, 1, 2, 3, 5])
    return Kill(boundary=f"{name}:{nth}")


def _faults(rng: random.Random) -> list[dict[str, Any]]:
    """Draw the faults of a scenario: most have a few, a third has none."""
    choice: list[dict[str, Any]] = [
        {"kind": "http_429", "route": "create", "probability": 0.2, "retry_after": 0.1},
        {"kind": "http_500_after", "probability": 0.2},
        {"kind": "drop_after", "probability": 0.2},
        {"kind": "drop_before", "probability": 0.1},
        {"kind": "cut_download", "probability": 0.2, "after_bytes": 900},
        {"kind": "request_error", "share": 0.1, "times": 1},
        {"kind": "request_expired", "share": 0.1, "times": 1},
        {"kind": "request_truncated", "share": 0.1, "times": 1},
        {"kind": "request_refusal", "share": 0.1},
        {"kind": "request_invalid_answer", "share": 0.2, "times": 1},
        {"kind": "batch_expires", "share": 0.5, "probability": 0.2},
    ]
    chosen = rng.sample(choice, rng.choice([0, 1, 2, 4]))
    return [{**fault, "seed": rng.randrange(1 << 30)} for fault in chosen]
