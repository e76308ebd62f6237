"""A table that is enriched while its runs are killed, and what must hold afterwards."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq

from batchata_tasks.emulator import EmulatorProcess, answer_text
from tests.support.launcher import ROOT, Launcher, Run
from tests.support.ledger_look import LedgerLook
from tests.support.pdfs import pdf
from tests.support.request_files import sent_bodies
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping
    from pathlib import Path

Provider = Literal["anthropic", "openai"]
MODELS: dict[Provider, str] = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
GRACE = 1.2
LEASE = 2.0
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["x", "y", "z"]}, "score": {"type": "number"}},
    "required": ["label", "score"],
}
# of which a document says the two fields, each in a line with its name
CITED_SCHEMA = {
    "type": "object",
    "properties": {"order_number": {"type": "string"}, "grand_total": {"type": "number"}},
    "required": ["order_number", "grand_total"],
}
CITED = pdf("Order number: 2026-0417", "Grand total: 29.16")
PASSAGES = [
    ("order_number", 1, "Order number: 2026-0417", "high"),
    ("grand_total", 2, "Grand total: 29.16", "high"),
]
UNPAID = ("request_error", "request_expired")  # faults of single requests that cost nothing
PICO = Decimal(10) ** -12
_OPEN = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'batchata' AND state LIKE 'idle in transaction%%'"
)
_TICK = 0.004
_HALTED = 0.02  # until every thread of a stopped process stands


@dataclass
class Findings:
    """Differences between a dataset, a ledger and the provider's books."""

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
        counts = {
            "contents accepted twice": self.accepted_twice,
            "keys with two rows": self.doubled,
            "keys without a row": self.lost,
            "rows with a wrong answer": self.wrong,
            "unsettled reservations": self.unsettled,
            "money": self.money,
            "files in data/ that are no parts": self.strangers,
        }
        return [
            f"{what}: {value if isinstance(value, int) else value[:5]}"
            for what, value in counts.items()
            if value
        ]


class Place(LedgerLook):
    """One table with its spec, its dataset and its ledger, and the provider's books on it.

    The emulator is emptied, so one place at a time may use it.
    """

    def __init__(
        self,
        folder: Path,
        provider: Provider,
        emulator: EmulatorProcess,
        launcher: Launcher,
        *,
        rows: int = 240,
        per_batch: int = 40,
        seconds: float = 0.3,
        schema: bool = False,
        documents: bool = False,
        ledger_url: str | None = None,
        prefect: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.provider = provider
        self.emulator = emulator
        self._launcher = launcher
        self.texts = {f"row-{n:05}": f"fact {n * 7919 % 10007}" for n in range(rows)}
        self._edits = 0
        self.database, self.spec = folder / "ledger.db", folder / "spec.json"
        # another ledger may hold other places too
        super().__init__(ledger_url or f"sqlite:///{self.database}", folder / "out")
        self._per_batch = per_batch
        self._schema, self._documents = schema, documents
        self._starts = 0
        self._prefect = prefect or {}  # the environment of runs that are flows
        folder.mkdir(parents=True, exist_ok=True)
        self._write()
        if documents:
            (folder / "order.pdf").write_bytes(CITED)
        emulator.control.reset()
        emulator.control.progress("seconds", seconds)
        self.version = ""
        self.ask("v1")

    @property
    def keys(self) -> list[str]:
        """The keys of the source's rows."""
        return list(self.texts)

    def _write(self) -> None:
        lines = [f"{key},{text}" for key, text in self.texts.items()]
        # at once: a run may be reading it
        new = self.folder / "table.new"
        new.write_text("\n".join(["id,text", *lines, ""]), encoding="utf-8")
        new.replace(self.folder / "table.csv")

    def edit(self, rng: random.Random) -> None:
        """Correct some rows of the source, take some out, and add some."""
        self._edits += 1
        for key in rng.sample(self.keys, 12):
            if rng.random() < 0.3:
                del self.texts[key]
            else:
                self.texts[key] = f"corrected {self._edits}"
        new = range(rng.randint(0, 5))
        self.texts |= {f"new-{self._edits}-{n}": f"new fact {n}" for n in new}
        self._write()

    def ask(self, version: str, **changes: Any) -> None:
        """Write the spec; `version` is part of the prompt."""
        self.version = version
        spec: dict[str, Any] = {
            "spec_version": 1,
            "name": "killed",
            "source": str(self.folder / "table.csv"),
            "key": "id",
            "model": MODELS[self.provider],
            "prompt": f"{{{{ id }}}} {version}: {{{{ text }}}}",
            "max_tokens": 100,
            "output": str(self.output),
            "pilot": False,
            "columns": ["text"],
            "items_per_batch": self._per_batch,
            "max_parallel_batches": 3,
        }
        if self._schema:
            spec["response_schema"] = SCHEMA
        if self._documents:
            cited = {"file": "order.pdf", "enable_citations": True, "max_tokens": 600}
            spec |= {"response_schema": CITED_SCHEMA, **cited}
        self.spec.write_text(json.dumps({**spec, **changes}), encoding="utf-8")

    def start(self, *, command: bool = False, flow: bool = False, **env: str) -> Run:
        """Start the command line.

        A `flow` runs on the Prefect server, always as the real command.
        """
        arguments = ["run", str(self.spec), "--json", *(() if flow else ("--direct",))]
        environment = {**(self._prefect if flow else {}), **env}
        return self._started(arguments, environment, command=command or flow)

    def batchata(self, *words: str, **env: str) -> Run:
        """Start another command."""
        return self._started(list(words), env, command=False)

    def _started(self, words: list[str], env: Mapping[str, str], *, command: bool) -> Run:
        self._starts += 1
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "BATCHATA_POLL_INTERVAL": "0.1",
            "BATCHATA_LEDGER_URL": self.ledger_url,
            "BATCHATA_UNCLEAR_GRACE": str(GRACE),
            **self.emulator.env(),
            **env,
        }
        log = self.folder / f"run-{self._starts}.log"
        return self._launcher.start(words, environment, self.folder, log, command=command)

    def finish(self, **env: str) -> Run:
        """Start the command line and let it end; it must end well."""
        run = self.start(**env)
        code = run.wait()
        assert code == 0, f"exit code {code}:\n{run.text()}"
        return run

    def take_over(self, **env: str) -> Run:
        """Start runs until one gets the lease that a stopped run lets expire."""
        deadline = time.monotonic() + PATIENCE
        while True:
            run = self.start(**env)
            if self.until(lambda run=run: self.held_by(run), run):
                return run
            assert run.poll() == 1, run.text()
            assert "another run holds this dataset" in run.text(), run.text()
            assert time.monotonic() < deadline, run.text()
            time.sleep(0.2)

    # --- the ledger, as another process sees it ------------------------------------------------

    def held_by(self, run: Run) -> bool:
        holders = self.ask_ledger("SELECT holder FROM datasets WHERE id IN {datasets}")
        return any(str(holder).startswith(f"process {run.pid} ") for (holder,) in holders)

    def halt(self, run: Run) -> None:
        """Suspend a run, but not within a transaction.

        Everyone else would wait for it, on Postgres for a minute.
        """
        run.halt()
        time.sleep(_HALTED)
        while self.is_locked():
            run.go_on()
            time.sleep(_TICK)
            run.halt()
            time.sleep(_HALTED)

    def is_locked(self) -> bool:
        """Whether a process is in the middle of a transaction."""
        if not self.ledger_url.startswith("sqlite"):
            return self.ask_ledger(_OPEN)[0][0] > 0
        with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("PRAGMA journal_mode=WAL")  # what every run begins with
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False

    def until(
        self, condition: Callable[[], object], run: Run | None = None, timeout: float = PATIENCE
    ) -> bool:
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
        """Return the request bodies that ask what source and spec ask now, by key."""
        prompts = {key: f"{key} {self.version}: {text}" for key, text in self.texts.items()}
        requests: dict[str, dict[str, Any]] = {}
        for body in sent_bodies(self.output).values():
            text = body["messages"][-1]["content"]
            if not isinstance(text, str):  # its document comes before the text
                text = text[-1]["text"]
            key = text.split(" ")[0]
            if prompts.get(key) == text:
                requests[key] = body
        return requests

    def check(self) -> Findings:
        """Compare dataset, ledger, request files and the provider's books."""
        book = self.book()
        columns = ["id", "_status", "_response", "_cost_usd", "_citations"]
        parts = sorted((self.output / "data").glob("*.parquet"))
        rows = [
            row for path in parts for row in pq.ParquetFile(path).read(columns=columns).to_pylist()
        ]
        times = Counter(row["id"] for row in rows)
        # a request that ended in an error, or never ran, is sent again, once each time
        again = sum(
            rule["strikes"]
            for rule in self.emulator.control.list_faults()
            if rule["kind"] in UNPAID
        )
        findings = Findings(
            rows=len(rows),
            accepted=len(book["contents"]),
            doubled=[key for key, number in times.items() if number > 1],
            lost=[key for key in self.keys if key not in times],
        )
        repeats = sum(content["accepted"] - 1 for content in book["contents"].values())
        findings.accepted_twice = max(repeats - again, book["billed_twice"]["number"])
        bodies = self.bodies()
        for row in [row for row in rows if row["id"] in self.texts]:
            right = answer_text(self.provider, bodies[row["id"]]) if row["id"] in bodies else None
            if row["_status"] != "succeeded" or row["_response"] != right:
                findings.wrong.append(
                    f"{row['id']} {row['_status']}: {row['_response']!r}, not {right!r}"
                )
            elif self._documents and _passages_of(row) != PASSAGES:
                findings.wrong.append(f"{row['id']}: {row['_citations']}")
        self._check_money(findings, sum((row["_cost_usd"] for row in rows), Decimal(0)), book)
        findings.strangers = [
            path.name for path in (self.output / "data").iterdir() if path.suffix != ".parquet"
        ]
        own = self.output / "_batchata"
        litter = [*own.rglob("*.tmp"), *(own / "runs").iterdir()]
        findings.litter = sorted(str(path.relative_to(own)) for path in litter)
        return findings

    def _check_money(self, found: Findings, dataset: Decimal, book: dict[str, Any]) -> None:
        (sums,) = self.ask_ledger(
            "SELECT SUM(settled), SUM(superseded), SUM(overhead),"
            " SUM(CASE WHEN settled IS NULL THEN 1 ELSE 0 END)"
            " FROM reservations WHERE run_id IN {runs}"
        )
        settled, superseded, overhead, found.unsettled = (value or 0 for value in sums)
        if settled * PICO != dataset + (superseded + overhead) * PICO:
            found.money.append(
                f"settled {settled}, dataset {dataset}, "
                f"superseded {superseded}, overhead {overhead}"
            )
        (tokens,) = self.ask_ledger(
            "SELECT SUM(input_tokens), SUM(output_tokens), SUM(CASE WHEN cost > 0 THEN rows "
            "ELSE 0 END) FROM outcomes WHERE run_id IN {runs}"
        )
        billed = (
            book["input_tokens_billed"],
            book["output_tokens_billed"],
            book["requests_billed"],
        )
        if tokens != billed:
            found.money.append(f"ledger has {tokens} tokens and rows, the provider billed {billed}")


def _passages_of(row: dict[str, Any]) -> list[tuple[str, int, str, str]]:
    names = ("field", "page_start", "cited_text", "grade")
    return [tuple(one[name] for name in names) for one in row["_citations"] or ()]
