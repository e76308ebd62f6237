"""Any number of scenarios, each checked against the provider's bill: cost limits must hold.

`python -m tests.support.money.scenarios --number 2000 --seed 1 --workers 2`

Run it from the project folder. A scenario is a table under a limit, with answers of drawn lengths,
faults at the provider, and runs that are killed and started again. `--only 17` plays one of them
again and keeps its folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from batchata_tasks.ledger import Ledger
from tests.support.launcher import START_AT
from tests.support.money.checks import Books, Ending, Found, check_end, check_rows, could_spend
from tests.support.money.draw import AFTER, BEFORE, Scenario, draw
from tests.support.money.place import PICO, Data, Station, ask
from tests.support.recovery.boundaries import KILL_AT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.launcher import Run
    from tests.support.money.draw import Kill

ENDINGS = (0, 3, 4)  # how a run ends that nothing and nobody stopped
HELD = "another run holds this dataset"
_TICK = 0.005
_AHEAD = 0.1


@dataclass
class Outcome:
    """One scenario that was played."""

    scenario: Scenario
    found: Found
    kills: int = 0
    seconds: float = 0.0
    codes: list[int] = field(default_factory=list[int])
    verdicts: list[str] = field(default_factory=list[str])
    strikes: Counter[str] = field(default_factory=Counter[str])  # of faults, by their kind

    def said(self, *words: str) -> int:
        """Count the guard's verdicts that are one of these."""
        return sum(verdict in words for verdict in self.verdicts)


def play(station: Station, scenario: Scenario) -> Outcome:
    """Play a scenario and check it; its folder stays if something was wrong."""
    began, home = time.monotonic(), station.folder / scenario.name
    station.set_up(scenario)
    datas = [
        Data(station, scenario, table, home, f"t{number}")
        for number, table in enumerate(scenario.tables)
    ]
    budget = (
        usd(scenario.budget_share * sum(data.bound for data in datas))
        if scenario.kind == "budget"
        else None
    )
    for data in datas:
        limits: dict[str, Any] = {"cost_limit_usd": limit_of(data, data.table.limit_share)}
        data.write(
            **limits,
            budget={"name": "shared", "limit_usd": budget, "period": "total"}
            if budget is not None
            else None,
        )
    Ledger(f"sqlite:///{home / 'ledger.db'}").close()
    outcome = Outcome(scenario, Found())
    try:
        endings = _played(datas, scenario, outcome)
        for rule in station.emulator.control.list_faults():
            outcome.strikes[rule["kind"]] += rule["strikes"]
        _check(home, datas, endings, outcome, budget)
        if outcome.found.held and not outcome.found.problems:
            endings = _decided(datas, outcome)
            _check(home, datas, endings, outcome, budget)
    except (AssertionError, TimeoutError) as error:
        outcome.found.problems.append(str(error))
    outcome.seconds = time.monotonic() - began
    if outcome.found.problems:
        (home / "provider.json").write_text(
            json.dumps(station.emulator.control.ledger(detail=True), indent=1), encoding="utf-8"
        )
    else:
        shutil.rmtree(home)
    return outcome


def usd(pico: float) -> float:
    """Return picodollars as the number of a spec."""
    return float(int(pico) * PICO)


def limit_of(data: Data, share: float | None) -> float | None:
    return None if share is None else usd(share * data.bound)


def _played(datas: list[Data], scenario: Scenario, outcome: Outcome) -> list[Ending]:
    if scenario.kind == "overlap":
        return [_overlapping(datas[0], outcome, apart=0.05 * (scenario.lengths.seed % 4))]
    if scenario.kind == "budget":
        with ThreadPoolExecutor(len(datas)) as pool:
            return list(pool.map(lambda data: _to_the_end(data, scenario.kills, outcome), datas))
    return [_to_the_end(datas[0], scenario.kills, outcome)]


def _to_the_end(data: Data, kills: list[Kill], outcome: Outcome) -> Ending:
    """Start and kill runs, then let one end."""
    for kill in kills:
        run = _killed(data, kill)
        if run.wait() != -9:
            return _ended(run, outcome)
        outcome.kills += 1
        if data.scenario.kind == "changed":
            data.write(cost_limit_usd=limit_of(data, data.table.again_share))
    return _ended(data.start(), outcome)


def _decided(datas: list[Data], outcome: Outcome) -> list[Ending]:
    """Decide the held chunks by the provider's books, then go on without any fault."""
    control = datas[0].station.emulator.control
    control.clear_faults()
    books = Books(datas[0].home, datas, control.ledger(detail=True)[datas[0].scenario.provider])
    assert datas[0].batchata("reconcile").wait() == 0  # which may find what became of them
    while held := ask(datas[0].home, "SELECT id FROM chunks WHERE state = 'held'"):
        assert outcome.found.decided < len(books.chunks), f"chunks stay held: {held}"
        chunk = held[0]["id"]
        batch_id = books.bill.batches.get(chunk)
        words = ("--adopt", f"{chunk}={batch_id}") if batch_id else ("--resend", chunk)
        run = datas[0].batchata("reconcile", *words)
        assert run.wait() == 0, run.text()
        outcome.found.decided += 1
    outcome.found.held = outcome.found.unsent = 0
    return [_ended(data.start(), outcome) for data in datas]


def _killed(data: Data, kill: Kill) -> Run:
    if kill.boundary is not None:
        return data.start(**{KILL_AT: kill.boundary})
    run, until = data.start(), time.monotonic() + kill.after
    while run.poll() is None and time.monotonic() < until:
        time.sleep(_TICK)
    run.kill()
    return run


def _ended(run: Run, outcome: Outcome) -> Ending:
    code = run.wait()
    outcome.codes.append(code)
    assert code in ENDINGS, f"exit code {code}:\n{run.text()}"
    return Ending(code, json.loads(run.text().splitlines()[-1]))


def _overlapping(data: Data, outcome: Outcome, apart: float) -> Ending:
    """Start two runs of one dataset at once, or a moment apart; return how the last one ended."""
    instant = time.time() + _AHEAD
    runs = [data.start(**{START_AT: repr(instant + wait)}) for wait in (0.0, apart)]
    codes = [run.wait() for run in runs]
    outcome.codes += codes
    good = [run for run, code in zip(runs, codes, strict=True) if code in ENDINGS]
    refused = all(HELD in run.text() for run in runs if run not in good)
    assert good, f"neither run did the work:\n{''.join(run.text() for run in runs)}"
    assert refused, f"exit codes {codes}:\n{''.join(run.text() for run in runs)}"
    last = max(good, key=lambda run: run.log.stat().st_mtime_ns)
    return _ended(last, Outcome(outcome.scenario, Found()))


def _check(
    home: Path, datas: list[Data], endings: list[Ending], outcome: Outcome, budget: float | None
) -> None:
    scenario, found = outcome.scenario, outcome.found
    books = Books(
        home, datas, datas[0].station.emulator.control.ledger(detail=True)[scenario.provider]
    )
    found.problems += books.problems()
    found.spent, found.batches = books.bill.total, len(books.bill.by_chunk)
    if budget is not None and books.bill.total > (whole := round(budget / float(PICO)) * PICO):
        found.problems.append(f"${books.bill.total} was spent of a budget of ${whole}")
    for data, ending in zip(datas, endings, strict=True):
        found.problems += check_rows(data, books)
        check_end(data, books, ending, found)
    if budget:
        could = min(
            Decimal(str(budget)), sum((could_spend(data, books) for data in datas), Decimal(0))
        )
        found.utilisation = float(found.spent / could) if could else None
    if (verdicts := home / "verdicts").exists():
        outcome.verdicts = verdicts.read_text(encoding="utf-8").splitlines()


# --- by hand ------------------------------------------------------------------------------------


def main(arguments: Iterable[str] | None = None) -> int:
    """Play the scenarios of the options and print the result."""
    given = parsed(arguments)
    folder = Path(tempfile.mkdtemp(prefix="batchata-money-"))
    # bounds are computed here; nothing is sent
    os.environ.update(ANTHROPIC_API_KEY="nobody", OPENAI_API_KEY="nobody")
    numbers = list(range(given.first, given.first + given.number))
    if given.only is not None:
        numbers = [given.only]
    with ExitStack() as stack:
        local, lock = threading.local(), threading.Lock()

        until = time.monotonic() + given.seconds

        def one(number: int) -> Outcome | None:
            if time.monotonic() > until:
                return None
            if not hasattr(local, "station"):
                with lock:
                    local.station = stack.enter_context(Station(folder))
            drawn = draw(given.seed, number, given.budgets, unclear=given.unclear)
            outcome = play(local.station, drawn)
            _tell(outcome, verbose=given.only is not None)
            return outcome

        with ThreadPoolExecutor(given.workers) as pool:
            outcomes = [outcome for outcome in pool.map(one, numbers) if outcome is not None]
    sys.stdout.write(table(outcomes))
    return 1 if any(outcome.found.problems for outcome in outcomes) else 0


def parsed(arguments: Iterable[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.money.scenarios", description=__doc__
    )
    parser.add_argument("--number", type=int, default=100, help="how many scenarios")
    parser.add_argument("--first", type=int, default=0, help="the number of the first scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--budgets",
        type=float,
        default=0.0,
        help="share of scenarios in which several datasets share a budget",
    )
    parser.add_argument(
        "--unclear", action="store_true", help="let creates be of unknown fate in all of them"
    )
    parser.add_argument(
        "--seconds", type=float, default=inf, help="begin no scenario after so many seconds"
    )
    parser.add_argument("--only", type=int, help="play this one alone")
    return parser.parse_args(None if arguments is None else list(arguments))


def _tell(outcome: Outcome, *, verbose: bool) -> None:
    for problem in outcome.found.problems:
        sys.stderr.write(f"scenario {outcome.scenario.name} ({outcome.scenario.kind}): {problem}\n")
    if verbose:
        sys.stderr.write(f"{outcome}\n")


def table(outcomes: list[Outcome]) -> str:
    """Return the summary, as Markdown."""
    head = [
        "",
        "scenarios",
        "rows",
        "kills",
        "batches",
        "ended 0 / 3 / 4",
        "used, where anything was spent: median, 10th percentile, least",
        "waits: median, 90th percentile, most",
        "cuts",
        "seconds: mean, most",
        "creates accepted / not accepted, fate unclear",
        "chunks held",
        "problems",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    kinds = sorted({outcome.scenario.kind for outcome in outcomes})
    lines += [
        _line(kind, [outcome for outcome in outcomes if outcome.scenario.kind == kind])
        for kind in kinds
    ]
    lines.append(_line("all", outcomes))
    used = [outcome for outcome in outcomes if 4 in outcome.codes]
    for name in ("default", "lognormal", "pareto"):
        lines.append(
            _line(
                f"limit reached, {name} lengths",
                [outcome for outcome in used if outcome.scenario.lengths.lengths == name],
            )
        )
    return "\n".join(lines) + "\n"


def _struck(outcomes: list[Outcome], faults: Iterable[dict[str, Any]]) -> int:
    kinds = {fault["kind"] for fault in faults}
    return sum(outcome.strikes[kind] for outcome in outcomes for kind in kinds)


def _line(name: str, outcomes: list[Outcome]) -> str:
    if not outcomes:
        return f"| {name} | 0 |" + " |" * 11
    used = sorted(outcome.found.utilisation for outcome in outcomes if outcome.found.utilisation)
    waits = [outcome.said("wait", "wait cut") for outcome in outcomes]
    seconds = [outcome.seconds for outcome in outcomes]
    cells = [
        name,
        len(outcomes),
        sum(len(t.texts) for o in outcomes for t in o.scenario.tables),
        sum(outcome.kills for outcome in outcomes),
        sum(outcome.found.batches for outcome in outcomes),
        " / ".join(str(sum(o.codes.count(code) for o in outcomes)) for code in ENDINGS),
        f"{median(used):.1%}, {used[len(used) // 10]:.1%}, {used[0]:.1%}" if used else "",
        f"{median(waits):.0f}, {sorted(waits)[len(waits) * 9 // 10]}, {max(waits)}",
        sum(outcome.said("send cut", "wait cut", "aside cut") for outcome in outcomes),
        f"{fmean(seconds):.2f}, {max(seconds):.2f}",
        f"{_struck(outcomes, AFTER)} / {_struck(outcomes, BEFORE)}",
        sum(outcome.found.decided for outcome in outcomes),
        sum(bool(outcome.found.problems) for outcome in outcomes),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
