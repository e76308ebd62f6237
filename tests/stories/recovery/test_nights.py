"""A dataset that is enriched night after night: its small parts are merged, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchata_tasks.common.errors import BatchataError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset import merging
from batchata_tasks.emulator import answer_text
from batchata_tasks.execution import earlier_files
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.planning.prepare import prepare_run
from tests.support.books import check_money
from tests.support.recovery.trace import Event, Trace, recorded
from tests.support.request_files import lying_twice
from tests.support.stuck import add_rows
from tests.support.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.recovery.trace import Kind

FULL = 3  # parts of a tier, so that a few nights fill some
FILES = ("fsync", "rename", "unlink", "folder")


class Watched(Trace):
    """Lets a reader look before each change of the dataset.

    From the step `death` on the storage refuses everything, as if the run was dead.
    """

    def __init__(self, nights: Nights, death: int | None) -> None:
        super().__init__()
        self._nights = nights
        self._steps_left = death

    def add(self, kind: Kind, what: object, **more: Any) -> Event:
        if kind in FILES:
            if "/data/" in str(what):
                self._nights.read()
            if self._steps_left is not None:
                self._steps_left -= 1
                if self._steps_left < 0:
                    raise OSError(errno.EIO, "the run is dead", str(what))
        return super().add(kind, what, **more)


class Nights(RuleBasedStateMachine):
    """Nights with new, changed and removed rows; some die, files and ledgers are lost."""

    emulator: Emulator
    folder: Path
    examples = 0
    merges = 0
    packs = 0

    @initialize()
    def begin(self) -> None:
        Nights.examples += 1
        self.ledgers = 0
        self.root = self.folder / str(self.examples)
        self.root.mkdir()
        self.use_ledger()
        self.emulator.control.reset()
        self.table = Table(self.root, self.emulator, "anthropic", rows=2)
        self.data = self.table.output / "data"
        self.made = 0  # rows that the source ever had beyond the first
        self.known = set[str]()  # keys that a reader has seen
        self.at_rest = self.died = False
        for new in (0, *[1] * (FULL - 1)):  # so many quiet nights that parts are merged
            self.night(new, None, None, removed=False, death=None)

    def use_ledger(self) -> None:
        self.ledgers += 1
        os.environ["BATCHATA_LEDGER_URL"] = f"sqlite:///{self.root / f'{self.ledgers}.db'}"

    def read(self) -> None:
        """Read as anybody may, at any moment: each key is there, once or twice."""
        paths = list(self.data.glob("*.parquet"))
        times = Counter(
            key for path in paths for key in pq.read_table(path, columns=["id"])["id"].to_pylist()
        )
        assert self.known <= times.keys()
        assert max(times.values(), default=0) <= 2
        self.known = set(times)

    @rule(
        new=st.integers(0, 2),
        text=st.none() | st.integers(0, 30),
        note=st.none() | st.integers(0, 30),
        removed=st.booleans(),
        death=st.none() | st.integers(0, 90),
    )
    def night(
        self, new: int, text: int | None, note: int | None, *, removed: bool, death: int | None
    ) -> None:
        """Change the source and enrich it; if the run dies, one tonight or later carries it on."""
        values = self.table.values
        if removed and len(values) > 2:
            del values[0]
        for _ in range(new):
            self.made += 1
            values.append({"id": f"n{self.made}", "text": f"new text {self.made}", "note": "new"})
        for column, place in (("text", text), ("note", note)):
            if place is not None:
                row = values[place % len(values)]
                row[column] += "'"
        self.table.write()
        with recorded(Watched(self, death)) as trace:
            try:
                if not self.at_rest:  # what a dead run had planned comes first
                    self.table.run(items_per_batch=2)
                self.table.run(items_per_batch=2)
                self.at_rest = death is None
            except (BatchataError, OSError):
                assert death is not None
                self.at_rest, self.died = False, True
        self.read()
        merged = {e.what for e in trace.events if e.kind == "rename" and "/data/merged" in e.what}
        Nights.merges += len(merged)
        Nights.packs += sum(e.kind == "rename" and "/packs/" in e.what for e in trace.events)
        if self.at_rest:
            self.check()

    def check(self) -> None:
        rows, bodies = {row["id"]: row for row in self.table.rows()}, self.table.bodies()
        for one in self.table.values:
            row = rows[one["id"]]
            assert (row["_status"], row["note"]) == ("succeeded", one["note"])
            assert orjson.dumps(one["text"]) in orjson.dumps(bodies[row["_custom_id"]])
        for row in rows.values():  # those of removed rows, too
            assert row["_response"] == answer_text("anthropic", bodies[row["_custom_id"]])
        check_money(self.table)
        assert self.table.ledger()["accepted_twice"]["number"] == 0
        assert len(list(self.data.iterdir())) <= 2 * (FULL - 1)
        assert self.died or not lying_twice(self.table.output)

    @precondition(lambda self: self.at_rest and self.known)
    @rule(place=st.integers(0, 30))
    def lose_a_part(self, place: int) -> None:
        """A person deletes a file; its rows come back from the results on disk."""
        paths = sorted(self.data.iterdir())
        paths[place % len(paths)].unlink()
        self.known = set()

    @rule()
    def lose_the_ledger(self) -> None:
        """A new ledger is made from what lies beside the dataset."""
        self.use_ledger()
        rebuild(prepare_run(self.table.spec(items_per_batch=2), Settings()), Settings())


@pytest.mark.parametrize(
    "examples", [4, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.nights])]
)
def test_nights_lose_nothing_whatever_dies(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    """Each key has one row with the answer to its own text, paid once, in a few files.

    A reader sees each key at every step, and each run may end at any step.
    """
    monkeypatch.setattr(merging, "FULL", FULL)
    monkeypatch.setattr(earlier_files, "FEWEST", 6)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", "")  # so that it is put back in the end
    Nights.emulator, Nights.folder = emulator, tmp_path
    run_state_machine_as_test(
        Nights,
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            phases=(Phase.generate,),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Nights.merges
    assert Nights.packs


def test_a_night_reads_no_record_of_the_nights_before(emulator: Emulator, tmp_path: Path) -> None:
    """Which batches are open is asked of the ledger, so a start costs the same after years.

    Records of batches that landed may even be damaged.
    """
    table = Table(tmp_path, emulator, "anthropic", rows=4)
    table.run(items_per_batch=2)
    for folder in ("intents", "commits", "requests", "responses"):
        for path in (table.output / "_batchata" / folder).iterdir():
            path.write_bytes(b"damaged")
    add_rows(table, 1)
    assert table.run().outcomes == {"succeeded": 1}
