"""Tables enriched under two prompts while their runs are killed or stopped.

There are faults at the provider.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.recovery.boundaries import BOUNDARIES, KILL_AT
from tests.support.recovery.letting_go import LETS_GO, found_it_held, has_let_go, watching
from tests.support.recovery.person import decide, held_rows
from tests.support.recovery.place import LEASE, Place
from tests.support.recovery.reader import Reader
from tests.support.recovery.troubles import add_troubles, named
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import random

    from tests.support.launcher import Run

HUNG = -1  # instead of the exit code of a run that did not end
MOST_STARTS = 40  # of runs that are left alone, but may let go of the dataset
MOST_DECISIONS = 5  # runs in a row that may leave chunks held
SOME_HELD = 3  # how a run ends whose rows are held
AIMS = (
    "moment",
    "moment",
    "early",
    "planning",
    "writing",
    "sending",
    "polling",
    "downloading",
    "landing",
    "landing",
    "ended",  # then small parts are merged
)


@dataclass
class Tally:
    """The result of a number of scenarios."""

    stop_share: float = 0.0  # this share of runs is stopped past its lease instead of killed
    boundary_share: float = 0.0  # this share of kills happens at a boundary between two steps
    flow_share: float = 0.0  # this share of starts is a flow on a Prefect server
    patience: float = 240.0  # seconds to wait for a run that is left alone
    lets_go_share: float = 0.0  # this share of starts lets go while batches are open
    pass_share: float = 0.0  # this share of kills are of a pass of `watch`
    edit_share: float = 0.0  # after this share of kills the source is edited
    edits: int = 0
    flows: int = 0
    let_go: int = 0
    passes: Counter[str] = field(default_factory=Counter[str])  # how they ended
    boundaries: Counter[str] = field(default_factory=Counter[str])
    kills: int = 0
    stops: int = 0
    woken: Counter[str] = field(default_factory=Counter[str])  # how stopped runs ended
    late: int = 0  # meant to be killed, but ended before
    starts: int = 0
    scenarios: int = 0
    stages: Counter[str] = field(default_factory=Counter[str])
    strikes: Counter[str] = field(default_factory=Counter[str])
    cancels: Counter[str] = field(default_factory=Counter[str])  # how refused ones ended
    held: Counter[str] = field(default_factory=Counter[str])  # what was decided of held chunks
    reads: int = 0
    mixed: int = 0
    rows: int = 0
    accepted: int = 0
    litter: int = 0
    merged: int = 0  # scenarios in whose dataset small parts were merged
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def measure(place: Place, *, flow: bool = False) -> float:
    """Return how long an undisturbed run works, its start left out."""
    run = place.start(flow=flow)
    place.until(lambda: place.held_by(run), run)
    began = time.monotonic()
    assert run.wait() == 0, run.text()
    return time.monotonic() - began


def begun(place: Place, rng: random.Random, tally: Tally) -> Run:
    """Start a run: as a flow, or one that lets go, for a share of starts."""
    flow = tally.flow_share > 0 and rng.random() < tally.flow_share
    tally.starts += 1
    tally.flows += flow
    if tally.lets_go_share > 0 and rng.random() < tally.lets_go_share:
        return place.start(flow=flow, **{LETS_GO: rng.choice(("0", "0.2"))})
    return place.start(flow=flow)


def passed(place: Place, rng: random.Random, tally: Tally) -> None:
    """Have `watch` look, for a share of calls, and kill it at a drawn moment or boundary."""
    if tally.pass_share == 0 or rng.random() >= tally.pass_share:
        return
    if rng.random() < tally.boundary_share:
        run = watching(place, **{KILL_AT: f"{rng.choice(list(BOUNDARIES))}:{rng.choice((1, 2))}"})
    else:
        run = watching(place)
        time.sleep(rng.uniform(0, 1.5))
        run.kill()
    code = ended(run, tally)
    tally.kills += code == -9
    tally.passes[f"exit code {code}"] += 1
    if code not in (0, -9, HUNG):
        tally.problems.append(f"a pass of watch ended with exit code {code}:\n{run.text()}")


def disturb(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Start a run and kill (or stop) it at a drawn moment.

    Returns True if the table was finished by then.
    """
    passed(place, rng, tally)
    if rng.random() < tally.stop_share:
        return stop_one(place, rng, duration, tally)
    if tally.boundary_share > 0 and rng.random() < tally.boundary_share:
        return kill_at_boundary(place, rng, tally)
    return kill_one(place, rng, duration, tally)


def aim_at(place: Place, run: Run, rng: random.Random, duration: float, tally: Tally) -> None:
    """Wait for a drawn moment of a run, or until it ends."""
    aim = rng.choice(AIMS)
    if aim == "early":
        time.sleep(rng.uniform(0, 0.1))
    elif place.until(lambda: place.held_by(run), run):
        if aim == "moment":
            moment = time.monotonic() + rng.uniform(0, duration)
            place.until(lambda: time.monotonic() >= moment, run)
        else:
            place.until(lambda: aim in place.stages(), run, tally.patience)
            time.sleep(rng.uniform(0, 0.01))


def stop_one(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Stop a run at a drawn moment, let another take over and finish, wake the first up."""
    short = {"BATCHATA_LEASE_SECONDS": str(LEASE)}
    run = place.start(**short)
    place.until(lambda: place.held_by(run), run)
    aim_at(place, run, rng, duration, tally)
    place.halt(run)
    if run.poll() is not None:
        tally.late += 1
        return run.poll() == 0
    tally.stops += 1
    tally.stages.update(f"{stage} (stopped)" for stage in place.stages())
    other = place.take_over(**short)
    code = other.wait(PATIENCE)
    tally.starts += 2
    if code != 0 and not (code == SOME_HELD and held_rows(other)):
        tally.problems.append(f"a run that took over ended with exit code {code}:\n{other.text()}")
    run.go_on()
    if (code := run.wait()) not in (0, 1) and not (code == SOME_HELD and held_rows(run)):
        tally.problems.append(f"a run that woke up ended with exit code {code}:\n{run.text()}")
    tally.woken[f"{code}: {run.text().strip().splitlines()[-1][:90]}"] += 1
    return True


def kill_one(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Start a run and kill it at a drawn moment; True when it had ended well before that."""
    run = begun(place, rng, tally)
    aim_at(place, run, rng, duration, tally)
    if run.kill() == -9:
        tally.stages.update(place.stages().keys())
    return was_finished(run, tally)


def kill_at_boundary(place: Place, rng: random.Random, tally: Tally) -> bool:
    """Let a run kill itself at a drawn boundary; True when it never reached that and ended well."""
    name = rng.choice(list(BOUNDARIES))
    run = place.start(**{KILL_AT: f"{name}:{rng.choice((1, 1, 2, 3, 5))}"})
    tally.starts += 1
    if ended(run, tally) == -9:
        tally.boundaries[name] += 1
    return was_finished(run, tally)


def ended(run: Run, tally: Tally) -> int:
    """Return the exit code of a run; one that does not end is a problem, and is killed."""
    try:
        return run.wait(tally.patience)
    except TimeoutError as error:
        tally.problems.append(str(error))
        return HUNG


def was_finished(run: Run, tally: Tally) -> bool:
    """Count a kill; True when the run had ended well before it."""
    code = run.wait()
    if code == -9:
        tally.kills += 1
        return False
    if has_let_go(run):
        tally.let_go += 1
        return False
    tally.late += 1
    if code not in (0, SOME_HELD) or (code == SOME_HELD and not held_rows(run)):
        tally.problems.append(f"a run ended by itself with exit code {code}:\n{run.text()}")
    return code == 0


def cancel_in_vain(place: Place, tally: Tally) -> None:
    """Cancel the open batches, which the provider refuses: they land instead."""
    run = place.batchata("cancel", str(place.spec))
    code = ended(run, tally)
    tally.cancels[f"exit code {code}"] += 1
    too_early = "nothing to cancel" in run.text()  # the run had hardly begun when it was killed
    if code not in (0, 1, HUNG) and not too_early:
        tally.problems.append(f"a cancel ended with exit code {code}:\n{run.text()}")


def meddle(place: Place, rng: random.Random, tally: Tally, *, cancels: bool) -> None:
    """Do what people do between two starts: cancel, where the provider refuses that; edit rows."""
    if cancels and rng.random() < 0.5:
        cancel_in_vain(place, tally)
    if tally.edit_share > 0 and rng.random() < tally.edit_share:
        place.edit(rng)
        tally.edits += 1


def finish(place: Place, rng: random.Random, tally: Tally) -> None:
    """Leave a run alone until it ends well; decide what became of chunks that are held."""
    for _ in range(MOST_DECISIONS):
        run = finished(place, rng, tally)
        code = run.poll()
        if code != SOME_HELD or not held_rows(run):
            if code not in (0, -9):
                text = run.text()
                tally.problems.append(f"a run that was left alone ended with {code}:\n{text}")
            return
        tally.held.update(decide(place))
    tally.problems.append(f"rows were still held after {MOST_DECISIONS} runs")


def finished(place: Place, rng: random.Random, tally: Tally) -> Run:
    """Return a run that ended by itself; runs before it let go, and `watch` passed beside them."""
    for _ in range(MOST_STARTS):
        run = begun(place, rng, tally)
        passed(place, rng, tally)
        ended(run, tally)
        if not has_let_go(run) and not found_it_held(run):
            break
        tally.let_go += has_let_go(run)
    return run


def scenario(
    place: Place,
    rng: random.Random,
    kills: int,
    duration: float,
    tally: Tally,
    *,
    midway: bool = False,
    rounds: bool = False,
) -> None:
    """Enrich a table with `kills` kills, then again under another prompt with as many.

    `midway`: the spec changes while the first run is still open. `rounds`: some rows need another
    attempt.
    """
    began, edits = time.monotonic(), tally.edits
    conflict = add_troubles(place, rng, rounds=rounds)
    with Reader(place.output / "data") as reader:
        for version, per_batch in (("v1", 40), ("v2", 55)):
            place.ask(version, items_per_batch=per_batch)
            for _ in range(kills):
                if disturb(place, rng, duration, tally):
                    break
                meddle(place, rng, tally, cancels=conflict)
            if version == "v1" and midway:
                continue
            finish(place, rng, tally)
    for rule in place.emulator.control.list_faults():
        tally.strikes[named(rule)] += rule["strikes"]
    findings = place.check()
    expected = range(len(place.keys), 2 * len(place.keys) + 1) if midway else (2 * len(place.keys),)
    problems = findings.problems()
    if findings.accepted not in expected and tally.edits == edits:
        problems.append(
            f"{findings.accepted} contents were accepted "
            f"for {len(place.keys)} rows under two prompts"
        )
    if reader.vanished:
        problems.append(f"keys that vanished: {reader.vanished[:5]}")
    tally.problems += [f"{place.folder}: {problem}" for problem in problems]
    if problems:
        books = json.dumps(place.emulator.control.ledger(detail=True), indent=1)
        (place.folder / "provider.json").write_text(books, encoding="utf-8")
    tally.scenarios += 1
    tally.reads, tally.mixed = tally.reads + reader.reads, tally.mixed + reader.mixed
    tally.rows, tally.accepted = tally.rows + findings.rows, tally.accepted + findings.accepted
    tally.litter += len(findings.litter)
    tally.merged += any((place.output / "data").glob("merged-*"))
    tally.seconds += time.monotonic() - began
