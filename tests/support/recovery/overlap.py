"""Two runs of one dataset started at the same instant."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.launcher import START_AT

if TYPE_CHECKING:
    import random

    from tests.support.launcher import Run
    from tests.support.recovery.place import Place

HELD = "another run holds this dataset"
QUICK = {"BATCHATA_POLL_INTERVAL": "0.02"}
AHEAD = 0.15  # seconds from the order to the start: both children stand ready by then


@dataclass
class Overlaps:
    """The result of a number of such pairs."""

    pairs: int = 0
    endings: Counter[str] = field(default_factory=Counter[str])  # how the two ended
    problems: list[str] = field(default_factory=list[str])


def overlap(place: Place, rng: random.Random, tally: Overlaps) -> None:
    """Start two runs at one instant, or a moment apart, and then one more.

    The last must find everything up to date.
    """
    apart = rng.choice([0.0, 0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.4)])
    instant = time.time() + AHEAD
    runs = [
        place.start(**QUICK, **{START_AT: repr(moment)}) for moment in (instant, instant + apart)
    ]
    tally.pairs += 1
    problems = _endings(runs, tally)
    third = place.start(**QUICK)
    if (code := third.wait()) != 0:
        problems.append(f"the third run ended with exit code {code}:\n{third.text()}")
    elif (requests := json.loads(third.text().splitlines()[-1])["plan"]["requests"]) != 0:
        problems.append(f"the third run found {requests} rows to send")
    findings = place.check()
    problems += findings.problems()
    if findings.accepted != len(place.keys):
        problems.append(f"{findings.accepted} contents were accepted for {len(place.keys)} rows")
    tally.problems += [f"{place.folder} ({apart:.3f} s apart): {problem}" for problem in problems]


def _endings(runs: list[Run], tally: Overlaps) -> list[str]:
    """Wait for both; one must work, the other do nothing or be refused with the sentence."""
    codes = [run.wait() for run in runs]
    tally.endings[" and ".join(map(str, sorted(codes)))] += 1
    problems = [
        f"a run ended with exit code {code}:\n{run.text()}"
        for code, run in zip(codes, runs, strict=True)
        if code not in (0, 1)
    ]
    problems += [
        f"refused otherwise:\n{run.text()}"
        for code, run in zip(codes, runs, strict=True)
        if code == 1 and HELD not in run.text()
    ]
    if 0 not in codes:
        problems.append("neither run did the work:\n" + "\n".join(run.text() for run in runs))
    return problems
