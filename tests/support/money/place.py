"""The place of a scenario: an emulator, a launcher, folders, and a dataset with its spec.

The limits of the spec can change.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import ExitStack, closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import orjson
import pyarrow.parquet as pq

from batchata_tasks.emulator import EmulatorProcess
from batchata_tasks.planning.prepare import prepare
from batchata_tasks.pricing.price_file import CustomPrices
from batchata_tasks.providers import provider_type
from batchata_tasks.spec.loading import parse_spec
from tests.support.built import request_of
from tests.support.launcher import ROOT, Launcher, Run
from tests.support.money.draw import SCHEMA, Scenario, Table
from tests.support.money.verdicts import VERDICTS
from tests.support.request_files import sent_bodies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GRACE = 0.3
PICO = Decimal(10) ** -12


class Station:
    """An emulator and a launcher, for one scenario at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._stack = folder, ExitStack()
        self.emulator, self._launcher = EmulatorProcess(anonymous=True), Launcher()

    def __enter__(self) -> Self:
        for process in (self.emulator, self._launcher):
            self._stack.enter_context(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def set_up(self, scenario: Scenario) -> None:
        """Empty the emulator and give it the scenario's answers and faults."""
        control, setting = self.emulator.control, scenario.lengths
        control.reset()
        control.progress("seconds", scenario.seconds)
        if setting.lengths == "lognormal":
            control.answers(
                "lognormal",
                mean=setting.mean,
                sigma=setting.sigma,
                seed=setting.seed,
                language=setting.language,
            )
        elif setting.lengths == "pareto":
            control.answers(
                "pareto",
                mean=setting.mean,
                alpha=setting.alpha,
                seed=setting.seed,
                language=setting.language,
            )
        for fault in scenario.faults:
            control.faults(**fault)

    def start(self, home: Path, log: Path, arguments: list[str], env: Mapping[str, str]) -> Run:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "BATCHATA_POLL_INTERVAL": "0.03",
            "BATCHATA_UNCLEAR_GRACE": str(GRACE),
            VERDICTS: str(home / "verdicts"),
            **self.emulator.env(),
            **env,
        }
        return self._launcher.start(arguments, environment, home, log)


class Data:
    """A dataset: its table, its spec and its rows. `home` holds the ledger."""

    def __init__(
        self, station: Station, scenario: Scenario, table: Table, home: Path, name: str
    ) -> None:
        self.scenario = scenario
        self.table = table
        self.home = home
        self.name = name
        self.folder, self.output = home / name, home / name / "out"
        self.station, self._starts = station, 0
        self.keys = [f"row-{number:04}" for number in range(len(table.texts))]
        self.folder.mkdir(parents=True)
        with (self.folder / "table.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "text"])
            writer.writerows(zip(self.keys, table.texts, strict=True))
        self.spec: dict[str, Any] = {
            "spec_version": 1,
            "name": name,
            "source": str(self.folder / "table.csv"),
            "key": "id",
            "model": scenario.model,
            "prompt": f"{{{{ id }}}} {name}: {{{{ text }}}}",
            "max_tokens": table.max_tokens,
            "output": str(self.output),
            "pilot": False,
            "items_per_batch": table.items_per_batch,
            "max_parallel_batches": table.parallel,
        } | ({"response_schema": SCHEMA} if table.schema else {})
        self.bodies, self.bounds = self._priced()

    def _priced(self) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        """Return the request body of each key, and its bound in picodollars by the limit."""
        spec = parse_spec(self.spec, "a scenario")
        builder = prepare(
            spec,
            {to: provider_type(to.provider, to.endpoint)() for to in spec.destinations()},
            self.output,
            [],
            CustomPrices(),
        ).builder
        rows = zip(self.keys, self.table.texts, strict=True)
        requests = {key: request_of(builder, {"id": key, "text": text}) for key, text in rows}
        bodies = {key: orjson.loads(request.body) for key, request in requests.items()}
        (route,) = builder.routes
        bounds = {key: route.bound(one.body, one.shape) for key, one in requests.items()}
        return bodies, bounds

    @property
    def bound(self) -> int:
        """The sum of all rows' bounds, in picodollars."""
        return sum(self.bounds.values())

    def write(self, **changes: Any) -> None:
        """Write the spec with these further keys; one that is None is left out."""
        self.spec = {
            name: value for name, value in {**self.spec, **changes}.items() if value is not None
        }
        (self.folder / "spec.json").write_text(json.dumps(self.spec), encoding="utf-8")

    def start(self, **env: str) -> Run:
        """Start a run."""
        return self.batchata("run", str(self.folder / "spec.json"), "--json", "--direct", **env)

    def batchata(self, *words: str, **env: str) -> Run:
        """Start a command."""
        self._starts += 1
        log = self.folder / f"run-{self._starts}.log"
        url = f"sqlite:///{self.home / 'ledger.db'}"
        return self.station.start(self.home, log, list(words), {"BATCHATA_LEDGER_URL": url, **env})

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset's rows."""
        system = ("_status", "_attempts", "_response", "_cost_usd", "_custom_id", "_run_id")
        columns = ["id", *system]
        parts = sorted((self.output / "data").glob("*.parquet"))
        return [
            row for path in parts for row in pq.ParquetFile(path).read(columns=columns).to_pylist()
        ]

    def sent(self) -> dict[str, dict[str, Any]]:
        """Return the request bodies that may have gone out, by custom_id."""
        return sent_bodies(self.output)


def ask(home: Path, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query to the ledger."""
    with closing(sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]
