"""A table that is enriched while its runs are killed, and what must hold afterwards.

By hand, for as long as you like: `python -m tests.recovery.harness --provider anthropic --kills 30 --seed 1`
(from the project folder). Each scenario is a table, enriched once and then again under another
prompt and other chunk sizes, with faults at the provider and a reader that looks all the time.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batchata_tasks.emulator import EmulatorProcess, answer_text
from tests.recovery.launcher import ROOT, Launcher, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Provider = Literal["anthropic", "openai"]
MODELS: dict[Provider, str] = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
GRACE = 1.2
LEASE = 2.0
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["x", "y", "z"]}, "score": {"type": "number"}},
    "required": ["label", "score"],
}
PICO = Decimal(10) ** -12
_TICK = 0.004


@dataclass
class Findings:
    """What a dataset, a ledger and the provider's books say of each other."""

    rows: int = 0
    accepted: int = 0  # contents that the provider accepted
    accepted_twice: int = 0
    doubled: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])  # another row's answer, or none
    unsettled: int = 0
    money: list[str] = field(default_factory=list[str])
    strangers: list[str] = field(default_factory=list[str])  # files in data/ that are no parts
    litter: list[str] = field(default_factory=list[str])  # left by killed runs, used by nobody

    def problems(self) -> list[str]:
        found = {
            "contents accepted twice": self.accepted_twice, "keys with two rows": self.doubled, "keys without a row": self.lost,
            "rows with a wrong answer": self.wrong, "unsettled reservations": self.unsettled, "money": self.money,
            "files in data/ that are no parts": self.strangers,
        }
        return [f"{what}: {value if isinstance(value, int) else value[:5]}" for what, value in found.items() if value]


class Place:
    """One table with its spec, its dataset and its ledger, and the provider's books on it.

    The emulator is emptied, so one place at a time may use it.
    """

    def __init__(
        self, folder: Path, provider: Provider, emulator: EmulatorProcess, launcher: Launcher,
        *, rows: int = 240, per_batch: int = 40, seconds: float = 0.3, schema: bool = False,
    ) -> None:
        self.folder, self.provider, self.emulator, self._launcher = folder, provider, emulator, launcher
        self.keys = [f"row-{number:05}" for number in range(rows)]
        self.database, self.output, self.spec = folder / "ledger.db", folder / "out", folder / "spec.json"
        self._per_batch, self._schema, self._starts = per_batch, schema, 0
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key},fact {number * 7919 % 10007}" for number, key in enumerate(self.keys)]
        (folder / "table.csv").write_text("\n".join(["id,text", *lines, ""]), encoding="utf-8")
        emulator.control.reset()
        emulator.control.progress("seconds", seconds)
        self.version = ""
        self.ask("v1")

    def ask(self, version: str, **changes: Any) -> None:
        """Write the spec; `version` stands in the prompt."""
        self.version = version
        spec: dict[str, Any] = {
            "spec_version": 1, "name": "killed", "source": str(self.folder / "table.csv"), "key": "id",
            "model": MODELS[self.provider], "prompt": f"{{{{ id }}}} {version}: {{{{ text }}}}", "max_tokens": 100,
            "output": str(self.output), "columns": ["text"], "items_per_batch": self._per_batch, "max_parallel_batches": 3,
        }
        if self._schema:
            spec["response_schema"] = SCHEMA
        self.spec.write_text(json.dumps({**spec, **changes}), encoding="utf-8")

    def start(self, *, command: bool = False, **env: str) -> Run:
        """Start the command line."""
        self._starts += 1
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(ROOT), "BATCHATA_POLL_INTERVAL": "0.1",
            "BATCHATA_LEDGER_URL": f"sqlite:///{self.database}", "BATCHATA_UNCLEAR_GRACE": str(GRACE),
            **self.emulator.env(), **env,
        }
        arguments = ["run", str(self.spec), "--direct", "--json"]
        log = self.folder / f"run-{self._starts}.log"
        return self._launcher.start(arguments, environment, self.folder, log, command=command)

    def finish(self, **env: str) -> Run:
        """Start the command line and let it end; it must end well."""
        run = self.start(**env)
        code = run.wait()
        assert code == 0, f"exit code {code}:\n{run.text()}"
        return run

    def take_over(self, **env: str) -> Run:
        """Start runs until one gets the lease that a stopped run lets expire."""
        deadline = time.monotonic() + 6 * LEASE
        while True:
            run = self.start(**env)
            if self.until(lambda run=run: self.held_by(run), run):
                return run
            assert run.poll() == 1, run.text()
            assert "another run holds this dataset" in run.text(), run.text()
            assert time.monotonic() < deadline, run.text()
            time.sleep(0.2)

    # --- the ledger, as another process sees it ------------------------------------------------

    def ask_ledger(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none before the ledger exists."""
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def held_by(self, run: Run) -> bool:
        holders = self.ask_ledger("SELECT holder FROM datasets")
        return any(str(holder).startswith(f"process {run.pid} ") for (holder,) in holders)

    def stages(self) -> Counter[str]:
        """Return what the newest run is doing: how many chunks are in which stage."""
        chunks = self.ask_ledger(
            "SELECT u.state, c.state, r.chunk_id IS NOT NULL, b.ended_at IS NOT NULL"
            " FROM (SELECT id, state FROM runs ORDER BY started_at DESC LIMIT 1) u LEFT JOIN chunks c ON c.run_id = u.id"
            " LEFT JOIN reservations r ON r.chunk_id = c.id LEFT JOIN batches b ON b.chunk_id = c.id"
        )
        if not chunks or chunks[0][0] != "open":
            return Counter({"starting" if not chunks else "planning" if chunks[0][0] == "planning" else "ended": 1})
        names = {
            ("planned", 1, 0): "writing", ("unclear", 1, 0): "sending", ("submitted", 1, 0): "polling",
            ("submitted", 1, 1): "downloading", ("collected", 1, 1): "landing",
        }
        return Counter(names[chunk[1:]] for chunk in chunks if chunk[1:] in names) or Counter({"between": 1})

    def is_locked(self) -> bool:
        """Whether a process is in the middle of a transaction."""
        with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("PRAGMA journal_mode=WAL")  # what every run begins with
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False

    def until(self, condition: Callable[[], object], run: Run | None = None, timeout: float = 30.0) -> bool:
        """Wait until a condition holds; False when the run ended first."""
        deadline = time.monotonic() + timeout
        while not condition():
            if run is not None and run.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"not within {timeout} s: {self.stages()}"
            time.sleep(_TICK)
        return True

    # --- what must hold ------------------------------------------------------------------------

    def book(self) -> dict[str, Any]:
        """Return what the provider accepted and billed."""
        return self.emulator.control.ledger(detail=True)[self.provider]

    def bodies(self) -> dict[str, dict[str, Any]]:
        """Return the request bodies of the present version, by the key that their prompt begins with."""
        found: dict[str, dict[str, Any]] = {}
        for path in (self.output / "_batchata/requests").glob("*.jsonl"):
            if self.provider == "anthropic":
                bodies = [item["params"] for item in orjson.loads(path.read_bytes())["requests"]]
            else:
                bodies = [orjson.loads(line)["body"] for line in path.read_bytes().splitlines()]
            for body in bodies:
                key, version = body["messages"][-1]["content"].split(":")[0].split(" ")
                if version == self.version:
                    found[key] = body
        return found

    def check(self) -> Findings:
        """Compare dataset, ledger, request files and the provider's books."""
        book = self.book()
        table = pa.concat_tables([pq.ParquetFile(path).read() for path in sorted((self.output / "data").glob("*.parquet"))])
        rows = table.select(["id", "_status", "_response", "_cost_usd"]).to_pylist()
        times = Counter(row["id"] for row in rows)
        found = Findings(
            rows=len(rows), accepted=len(book["contents"]), accepted_twice=book["accepted_twice"]["number"],
            doubled=[key for key, number in times.items() if number > 1],
            lost=[key for key in self.keys if key not in times],
        )
        repeats = [content for content in book["contents"].values() if content["accepted"] > 1]
        found.accepted_twice = max(found.accepted_twice, len(repeats))
        bodies = self.bodies()
        for row in rows:
            right = answer_text(self.provider, bodies[row["id"]]) if row["id"] in bodies else None
            if row["_status"] != "succeeded" or row["_response"] != right:
                found.wrong.append(f"{row['id']} {row['_status']}: {row['_response']!r}, not {right!r}")
        self._check_money(found, sum((row["_cost_usd"] for row in rows), Decimal(0)), book)
        found.strangers = [path.name for path in (self.output / "data").iterdir() if path.suffix != ".parquet"]
        own = self.output / "_batchata"
        litter = [*own.rglob("*.tmp"), *(own / "runs").iterdir()]
        found.litter = sorted(str(path.relative_to(own)) for path in litter)
        return found

    def _check_money(self, found: Findings, dataset: Decimal, book: dict[str, Any]) -> None:
        (sums,) = self.ask_ledger(
            "SELECT SUM(settled), SUM(superseded), SUM(overhead), SUM(settled IS NULL) FROM reservations"
        )
        settled, superseded, overhead, found.unsettled = (value or 0 for value in sums)
        if settled * PICO != dataset + (superseded + overhead) * PICO:
            found.money.append(f"settled {settled}, dataset {dataset}, superseded {superseded}, overhead {overhead}")
        (tokens,) = self.ask_ledger("SELECT SUM(input_tokens), SUM(output_tokens), SUM(rows) FROM outcomes")
        billed = (book["input_tokens_billed"], book["output_tokens_billed"], book["requests_billed"])
        if tokens != billed:
            found.money.append(f"ledger has {tokens} tokens and rows, the provider billed {billed}")


class Reader(threading.Thread):
    """Reads the whole dataset over and over: a key that was there once must not vanish.

    A reader lists the parts, then opens them. When parts changed in between, it has read two
    states mixed (`torn`), which no folder of files can prevent; such a read is counted apart.
    """

    def __init__(self, data: Path) -> None:
        super().__init__(name="reader", daemon=True)
        self._data, self._done, self._known = data, threading.Event(), set[str]()
        self.reads = self.repeats = self.torn = self.torn_vanished = 0
        self.vanished: list[str] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        try:
            while not self._done.wait(0.01):
                self._read()
        except BaseException as error:  # noqa: BLE001 - told by __exit__
            self.error = error

    def _listing(self) -> dict[str, tuple[int, int]]:
        paths = self._data.glob("*.parquet")
        return {path.name: ((stat := path.stat()).st_ino, stat.st_mtime_ns) for path in paths}

    def _read(self) -> None:
        try:
            before = self._listing()
            keys: list[str] = []
            for name in before:
                with pq.ParquetFile(self._data / name) as part:
                    keys += part.read(columns=["id"])["id"].to_pylist()
            after = self._listing()
        except FileNotFoundError:
            self.repeats += 1  # a part was superseded as a whole: readers start over
            return
        self.reads += 1
        gone = self._known - set(keys)
        if before != after:
            self.torn += 1
            self.torn_vanished += bool(gone)
        elif gone:
            self.vanished += sorted(gone)
        if any(number > 2 for number in Counter(keys).values()):
            self.vanished.append("a key has more than two rows")
        self._known |= set(keys)


AIMS = ("moment", "moment", "early", "planning", "writing", "sending", "polling", "downloading", "landing", "landing")


@dataclass
class Tally:
    """What a number of scenarios came to."""

    stop_share: float = 0.0  # this share of runs is stopped past its lease instead of killed
    kills: int = 0
    stops: int = 0
    woken: Counter[str] = field(default_factory=Counter[str])  # how stopped runs ended
    late: int = 0  # meant to be killed, but ended before
    starts: int = 0
    scenarios: int = 0
    stages: Counter[str] = field(default_factory=Counter[str])
    strikes: Counter[str] = field(default_factory=Counter[str])
    reads: int = 0
    torn: int = 0
    torn_vanished: int = 0
    rows: int = 0
    accepted: int = 0
    litter: int = 0
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def add_faults(place: Place, rng: random.Random) -> None:
    """Let each kind of fault of a provider strike now and then."""
    shares: dict[str, tuple[float, dict[str, Any]]] = {
        "http_500_after": (0.12, {}), "drop_after": (0.12, {}), "drop_before": (0.07, {}), "http_500_before": (0.07, {}),
        "http_429": (0.10, {"route": "create", "retry_after": 0.2}), "cut_download": (0.2, {"after_bytes": 1500}),
        "list_lag": (0.15, {"seconds": GRACE / 3}), "accept_delay": (0.08, {"seconds": GRACE / 3}),
        "slow": (0.15, {"route": "create", "seconds": 0.3}),
    }
    for kind, (probability, knobs) in shares.items():
        place.emulator.control.faults(kind=kind, probability=probability, seed=rng.randrange(1 << 30), **knobs)


def measure(place: Place) -> float:
    """Return how long an undisturbed run works, its start left out."""
    run = place.start()
    place.until(lambda: place.held_by(run), run)
    began = time.monotonic()
    assert run.wait() == 0, run.text()
    return time.monotonic() - began


def disturb(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Start a run and kill (or stop) it at a drawn moment; True when the table was finished by then."""
    if rng.random() < tally.stop_share:
        return stop_one(place, rng, duration, tally)
    return kill_one(place, rng, duration, tally)


def aim_at(place: Place, run: Run, rng: random.Random, duration: float) -> None:
    """Wait for a drawn moment of a run, or until it ends."""
    aim = rng.choice(AIMS)
    if aim == "early":
        time.sleep(rng.uniform(0, 0.1))
    elif place.until(lambda: place.held_by(run), run):
        if aim == "moment":
            moment = time.monotonic() + rng.uniform(0, duration)
            place.until(lambda: time.monotonic() >= moment, run)
        else:
            place.until(lambda: aim in place.stages(), run)
            time.sleep(rng.uniform(0, 0.01))


def stop_one(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Stop a run at a drawn moment, let another take over and finish, wake the first up."""
    short = {"BATCHATA_LEASE_SECONDS": str(LEASE)}
    run = place.start(**short)
    place.until(lambda: place.held_by(run), run)
    aim_at(place, run, rng, duration)
    run.halt()
    time.sleep(0.02)  # until every thread of it stands
    while place.is_locked():  # a stopped run that holds the database makes everyone else wait for it
        run.go_on()
        time.sleep(0.005)
        run.halt()
        time.sleep(0.02)
    if run.poll() is not None:
        tally.late += 1
        return run.poll() == 0
    tally.stops += 1
    tally.stages.update(f"{stage} (stopped)" for stage in place.stages())
    other = place.take_over(**short)
    code = other.wait(120)
    tally.starts += 2
    if code != 0:
        tally.problems.append(f"a run that took over ended with exit code {code}:\n{other.text()}")
    run.go_on()
    if (code := run.wait()) not in (0, 1):
        tally.problems.append(f"a run that woke up ended with exit code {code}:\n{run.text()}")
    tally.woken[f"{code}: {run.text().strip().splitlines()[-1][:90]}"] += 1
    return True


def kill_one(place: Place, rng: random.Random, duration: float, tally: Tally) -> bool:
    """Start a run and kill it at a drawn moment; True when it had ended well before that."""
    run = place.start()
    tally.starts += 1
    aim_at(place, run, rng, duration)
    code = run.kill()
    if code == -9:
        tally.kills += 1
        tally.stages.update(place.stages().keys())
        return False
    tally.late += 1
    if code != 0:
        tally.problems.append(f"a run ended by itself with exit code {code}:\n{run.text()}")
    return code == 0


def scenario(place: Place, rng: random.Random, kills: int, duration: float, tally: Tally, *, midway: bool = False) -> None:
    """Enrich a table with `kills` kills, then again under another prompt with as many.

    `midway`: the spec changes while the first run is still open.
    """
    began = time.monotonic()
    add_faults(place, rng)
    with Reader(place.output / "data") as reader:
        for version, per_batch in (("v1", 40), ("v2", 55)):
            place.ask(version, items_per_batch=per_batch)
            for _ in range(kills):
                if disturb(place, rng, duration, tally):
                    break
            if version == "v1" and midway:
                continue
            run = place.start()
            tally.starts += 1
            if (code := run.wait(120)) != 0:
                tally.problems.append(f"a run that was left alone ended with exit code {code}:\n{run.text()}")
    for rule in place.emulator.control.list_faults():
        tally.strikes[rule["kind"]] += rule["strikes"]
    found = place.check()
    expected = range(len(place.keys), 2 * len(place.keys) + 1) if midway else (2 * len(place.keys),)
    problems = found.problems()
    if found.accepted not in expected:
        problems.append(f"{found.accepted} contents were accepted for {len(place.keys)} rows under two prompts")
    if reader.vanished:
        problems.append(f"keys that vanished: {reader.vanished[:5]}")
    tally.problems += [f"{place.folder}: {problem}" for problem in problems]
    if problems:
        books = json.dumps(place.emulator.control.ledger(detail=True), indent=1)
        (place.folder / "provider.json").write_text(books, encoding="utf-8")
    tally.scenarios += 1
    tally.reads, tally.torn = tally.reads + reader.reads, tally.torn + reader.torn
    tally.torn_vanished += reader.torn_vanished
    tally.rows, tally.accepted = tally.rows + found.rows, tally.accepted + found.accepted
    tally.litter += len(found.litter)
    tally.seconds += time.monotonic() - began


def main(arguments: Iterable[str] | None = None) -> int:
    """Kill runs of many scenarios until there were enough kills; print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery.harness", description=main.__doc__)
    parser.add_argument("--provider", choices=list(MODELS), default="anthropic")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--stops", type=float, default=0.0, help="share of runs that are stopped, not killed")
    given = parser.parse_args(None if arguments is None else list(arguments))
    tally, number = Tally(given.stops), 0
    folder = Path(tempfile.mkdtemp(prefix="batchata-kills-"))
    with EmulatorProcess() as emulator, Launcher() as launcher:
        duration = measure(Place(folder / "clean", given.provider, emulator, launcher, rows=given.rows))
        while tally.kills + tally.stops < given.kills:
            rng = random.Random(f"{given.seed} {number}")
            schema, midway = number % 2 == 1, number % 3 == 2
            place = Place(folder / str(number), given.provider, emulator, launcher, rows=given.rows, schema=schema)
            scenario(place, rng, rng.randint(3, 6), duration, tally, midway=midway)
            sys.stderr.write(f"scenario {number}: {tally.kills} kills, {tally.stops} stops, {len(tally.problems)} problems\n")
            number += 1
    sys.stdout.write(f"a clean run works {duration:.1f} s; folders: {folder}\n{tally}\n")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
