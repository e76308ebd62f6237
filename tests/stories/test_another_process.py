"""A run whose chunks are done in other processes than the one that holds the dataset."""

from __future__ import annotations

import errno
import json
import os
import pickle
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, field_validator

from batchata_tasks.common.errors import (
    LeaseError,
    LedgerError,
    SpecError,
    StorageError,
    WrongLedgerError,
)
from batchata_tasks.common.files import read_json
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution import land
from batchata_tasks.execution.contexts import active, context_of
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.execution.run_context import RunContext
from batchata_tasks.ledger import ChunkState, Ledger, StopReason
from batchata_tasks.ledger.store import Store
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps, part_step
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.schema.response import ResponseSchema
from tests.support.books import check_money, run_with
from tests.support.table import SCHEMA, Table, open_batches
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import PartOrder, RunRef

pytestmark = pytest.mark.in_turn

STEPS = ("chunk", "submit", "poll", "collect")
OURS = ("ANTHROPIC_", "OPENAI_", "BATCHATA_")
CODE = """
from typing import Literal

from pydantic import BaseModel, field_validator


class Label(BaseModel):
    label: Literal["x", "y", "z"]

    @field_validator("label")
    @classmethod
    def _no_x(cls, value: str) -> str:
        if value == "x":
            raise ValueError("x is out of use")
        return value
"""


def do(step: str, ref: bytes, chunk_id: str, env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Do a step, with an environment; return the process and what the step returned."""
    os.environ.update(env)
    return os.getpid(), getattr(Steps(), step)(pickle.loads(ref), chunk_id)


def do_part(ref: bytes, order: bytes, env: dict[str, str]) -> tuple[int, dict[str, Any] | None]:
    """Make a part, with an environment; return the process and what says how it was made."""
    os.environ.update(env)
    return os.getpid(), part_step(pickle.loads(ref), pickle.loads(order))


def do_part_on_path(
    ref: bytes, order: bytes, env: dict[str, str]
) -> tuple[int, dict[str, Any] | None]:
    """Make a part in a process that has the model's folder on Python's path, as Dask's have."""
    if env["BATCHATA_CODE_ROOTS"] not in sys.path:
        sys.path.insert(0, env["BATCHATA_CODE_ROOTS"])
    return do_part(ref, order, env)


def do_as_the_lease_goes(
    step: str, ref: bytes, chunk_id: str, env: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Do a step of a run that loses its lease between an intent and the create."""
    real = Ledger.record_intent

    def recorded(ledger: Ledger, lease: Any, intent: Any, *, named: bool) -> bool:
        written = real(ledger, lease, intent, named=named)
        ledger.release_lease(lease)
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "record_intent", recorded)
        return do(step, ref, chunk_id, env)


def no_locks(*_: object) -> None:
    """Do as a file system without locks does."""
    raise OSError(errno.ENOLCK, "No locks available")


def do_without_locks(
    step: str, ref: bytes, chunk_id: str, env: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Do a step on a file system without locks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcntl.flock", no_locks)
        return do(step, ref, chunk_id, env)


@dataclass
class Elsewhere:
    """Steps that are done in other processes, and which process did what."""

    pool: ProcessPoolExecutor
    before: Callable[[str, RunRef, str], None] = lambda _step, _ref, _chunk: None
    work: Callable[..., tuple[int, dict[str, Any]]] = do
    part_work: Callable[..., tuple[int, dict[str, Any] | None]] = do_part
    env: dict[str, str] = field(default_factory=dict[str, str])
    processes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def step(self, name: str, ref: RunRef, chunk_id: str) -> dict[str, Any]:
        self.before(name, ref, chunk_id)
        env = {k: v for k, v in os.environ.items() if k.startswith(OURS)} | self.env
        process, value = self.pool.submit(
            self.work, name, pickle.dumps(ref), chunk_id, env
        ).result()
        self.processes[name].add(process)
        return value

    def part(self, ref: RunRef, order: PartOrder) -> dict[str, Any] | None:
        """Make a part, the name of which step is `read`."""
        self.before("read", ref, order.chunk_id)
        env = {k: v for k, v in os.environ.items() if k.startswith(OURS)} | self.env
        given = pickle.dumps(ref), pickle.dumps(order)
        process, value = self.pool.submit(self.part_work, *given, env).result()
        self.processes["read"].add(process)
        return None if value is None else json.loads(json.dumps(value))

    def steps(self) -> Steps:
        return replace(Steps(), **{name: partial(self.step, name) for name in STEPS})

    def heavy_steps(self) -> Steps:
        """Return steps of which only those are done elsewhere that workers of a flow run do."""
        return replace(Steps(), chunk=partial(self.step, "chunk"), makes_parts=self.part)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Return two processes that live for all of the tests, as those of a task runner do.

    What they need is imported once for both.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "anthropic", "openai"])
    with pytest.MonkeyPatch.context() as patch:
        # a fork copies no threads, which these would start when they are imported
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.setenv("JE_ARROW_MALLOC_CONF", "background_thread:false")
        with ProcessPoolExecutor(2, context) as made:
            made.submit(os.getpid).result()
            yield made


@pytest.fixture
def one(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of a few rows for one provider: what is tested knows none."""
    return Table(tmp_path, emulator, "anthropic", rows=4)


def accepted(table: Table) -> tuple[int, int]:
    """Return how many requests the provider accepted, and how many of them twice."""
    ledger = table.ledger()
    return ledger["requests_accepted"], ledger["accepted_twice"]["number"]


def test_a_whole_run_is_done_elsewhere(table: Table, pool: ProcessPoolExecutor) -> None:
    """Every row gets its own answer, nothing is sent twice, and the money adds up.

    A second run with changed rows rewrites what the first one landed.
    """
    elsewhere = Elsewhere(pool)
    receipt = run_with(table, elsewhere.steps(), items_per_batch=3, cost_limit_usd=1)
    assert receipt.outcomes == {"succeeded": 20}
    table.check_answers()
    assert accepted(table) == (20, 0)
    for value in table.values[::2]:
        value["text"] += ", changed"
    table.write()
    receipt = run_with(table, elsewhere.steps(), items_per_batch=3, cost_limit_usd=1)
    assert receipt.plan["reasons"] == {"input": 10}
    assert len(table.rows()) == 20
    table.check_answers()
    assert accepted(table) == (30, 0)
    check_money(table)
    assert set(elsewhere.processes) == set(STEPS)
    assert all(os.getpid() not in done_by for done_by in elsewhere.processes.values())
    assert len(set[int]().union(*elsewhere.processes.values())) == 2
    assert not list((table.output / "_batchata").glob(".landing*"))


def test_results_are_read_elsewhere_and_land_here(table: Table, pool: ProcessPoolExecutor) -> None:
    """Every row gets its own answer, also those that replace older ones, and the money adds up.

    No other process than this one knows the provider's key, and nothing half-made is left.
    """
    keys = {name: "" for name in os.environ if name.endswith("_KEY")}
    elsewhere = Elsewhere(pool, env=keys)
    steps, changes = elsewhere.heavy_steps(), {"items_per_batch": 3, "cost_limit_usd": 1}
    assert run_with(table, steps, **changes).outcomes == {"succeeded": 20}
    for value in table.values[::2]:
        value["text"] += ", changed"
    table.write()
    assert run_with(table, steps, **changes).plan["reasons"] == {"input": 10}
    assert len(table.rows()) == 20
    table.check_answers()
    assert accepted(table) == (30, 0)
    check_money(table)
    assert set(elsewhere.processes) == {"chunk", "read"}
    assert all(os.getpid() not in done_by for done_by in elsewhere.processes.values())
    assert not list((table.output / "_batchata").rglob(".*.tmp"))


def test_what_is_read_elsewhere_has_its_columns_in_order(
    one: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the fields of the response model are not in that of the alphabet: it is used."""
    monkeypatch.delattr(land, "make_part")  # this process reads nothing
    schema = {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}
    schema["required"] = [*schema["properties"]]
    receipt = run_with(one, Elsewhere(pool).heavy_steps(), response_schema=schema)
    assert receipt.outcomes == {"succeeded": 4}
    (part,) = (one.output / "data").iterdir()
    columns = pq.read_schema(part).names
    assert [name for name in columns if name in SCHEMA["properties"]] == schema["required"]


@pytest.mark.parametrize("fault", ["request_refusal", "request_broken_line", "request_missing"])
def test_what_is_read_elsewhere_is_as_if_it_were_read_here(
    table: Table, pool: ProcessPoolExecutor, fault: str
) -> None:
    """Outcomes, errors, retries and money are the same, whichever process reads results."""
    ends = list[Any]()
    for steps in (Steps(), Elsewhere(pool).heavy_steps()):
        table.output = table.folder / f"out{len(ends)}"
        table.emulator.control.faults(kind=fault, contains="row 7", times=1)
        run_with(table, steps, items_per_batch=10)
        commits = [read_json(path) or {} for path in table.output.glob("_batchata/commits/*.json")]
        commits.sort(key=lambda commit: (len(commit["retried"]), str(commit["outcomes"])))
        facts = ["outcomes", "retried", "kept", "read_lines"]
        facts += ["settled_picodollars", "overhead_picodollars"]
        ends.append([{name: commit[name] for name in facts} for commit in commits])
        errors = [[*commit["errors"].values(), *commit["errors_before"]] for commit in commits]
        ends[-1].append([len(texts) for texts in errors])  # some name a request, or its run
        ends[-1].append([(row["id"], row["_status"], row["_attempts"]) for row in table.rows()])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("lost", ["no file", "nothing"])
def test_a_part_that_a_lost_process_has_not_made_is_made_here(
    one: Table, pool: ProcessPoolExecutor, lost: str
) -> None:
    """Whatever became of the other process, its rows land, once."""
    elsewhere = Elsewhere(pool)

    def part(ref: RunRef, order: PartOrder) -> dict[str, Any] | None:
        if lost == "nothing":
            return None
        made = elsewhere.part(ref, order)
        assert made is not None
        (one.output / "_batchata" / made["file"]).unlink()
        return made

    assert run_with(one, replace(Steps(), makes_parts=part)).outcomes == {"succeeded": 4}
    one.check_answers()
    assert accepted(one) == (4, 0)


def test_other_code_of_the_response_model_reads_nothing(
    one: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has other validators than the one that lands refuses; the next run carries on.

    A class that no file names is asked in the process that has it alone.
    """
    path = one.folder / "models.py"
    path.write_text(CODE)
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(one.folder))
    model: dict[str, Any] = {"response_schema": None, "response_model": f"{path}:Label"}

    def older(_step: str, _ref: RunRef, _chunk: str) -> None:
        # of another size: Python takes a compiled file for that of a text from the same second
        path.write_text(CODE.replace('value == "x"', 'value in ("y",)'))

    elsewhere = Elsewhere(pool, older)
    with pytest.raises(SpecError, match="another version of"):
        run_with(one, elsewhere.heavy_steps(), **model)
    assert not list((one.output / "data").glob("*.parquet"))
    path.write_text(CODE)
    receipt = run_with(one, Elsewhere(pool).heavy_steps(), **model)
    assert receipt.continued
    assert accepted(one)[1] == 0


HELPED = """
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel
from rules_of_workers import check


class Label(BaseModel):
    label: Annotated[Literal["x", "y", "z"], AfterValidator(check)]
"""
RULES = """
def check(value):
    if {refused}:
        raise ValueError("out of use")
    return value
"""


def test_a_process_that_outlives_a_run_checks_the_next_ones_answers_by_its_code(
    one: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has imported a helper of the response model, which has changed since."""
    (one.folder / "models.py").write_text(HELPED)
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(one.folder))
    named = f"{one.folder / 'models.py'}:Label"
    model = {"response_schema": None, "response_model": named, "max_attempts": 1}
    ends = list[Any]()
    for refused in ("False", "value in 'xyz'"):
        (one.folder / "rules_of_workers.py").write_text(RULES.format(refused=refused))
        one.output = one.folder / f"out{len(ends)}"
        elsewhere = Elsewhere(pool, part_work=do_part_on_path)
        # each of the two processes reads a batch
        ends.append(run_with(one, elsewhere.heavy_steps(), items_per_batch=1, **model).outcomes)
        assert "read" in elsewhere.processes
    assert ends == [{"succeeded": 4}, {"invalid": 4}]


def test_a_class_that_no_file_names_is_asked_in_the_process_that_has_it(
    one: Table, pool: ProcessPoolExecutor
) -> None:
    """Its validators exist there alone, so results are read there."""

    class Label(BaseModel):
        label: Literal["x", "y", "z"]

        @field_validator("label")
        @classmethod
        def _none(cls, _value: str) -> str:
            text = "out of use"
            raise ValueError(text)

    schema = ResponseSchema.from_model(Label, "response_model").stored
    spec = one.spec(response_schema=schema, max_attempts=1).with_model(Label)
    elsewhere = Elsewhere(pool)
    receipt = enrich(spec, steps=elsewhere.heavy_steps())
    assert receipt.outcomes == {"invalid": 4}
    assert set(elsewhere.processes) == {"chunk"}


def test_a_part_is_given_up_if_the_run_has_left_its_dataset(
    one: Table, pool: ProcessPoolExecutor
) -> None:
    """The other process reads that in the ledger between blocks of rows, and leaves no file."""

    def lost(step: str, ref: RunRef, _chunk: str) -> None:
        if step == "read":
            given_back(ref)

    with pytest.raises(LeaseError):
        run_with(one, Elsewhere(pool, lost).heavy_steps())
    assert not list((one.output / "_batchata").glob(".part-*.tmp"))
    assert run_with(one, Elsewhere(pool).heavy_steps()).outcomes == {"succeeded": 4}
    assert accepted(one) == (4, 0)


def test_a_late_process_does_not_overwrite_the_requests_of_a_chunk_that_has_moved_on(
    one: Table,
) -> None:
    """A process that was given up, and wakes up, leaves the files as they are."""
    files = list[bytes]()

    def chunk(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        run = context_of(ref)
        real = run.ledger.chunk

        def moved_on(name: str) -> Any:
            monkeypatch.setattr(run.ledger, "chunk", lambda one: replace(real(one), stop=1))
            return real(name)

        value = Steps().chunk(ref, chunk_id)
        files.append(run.request_file(real(chunk_id)).read_bytes())
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(run.ledger, "chunk", moved_on)
            with pytest.raises(LedgerError, match="has changed since"):
                Steps().chunk(ref, chunk_id)
        files.append(run.request_file(real(chunk_id)).read_bytes())
        return value

    assert run_with(one, replace(Steps(), chunk=chunk)).outcomes == {"succeeded": 4}
    assert files[0] == files[1]


def test_validators_of_the_response_model_check_elsewhere_too(
    one: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that the class refuses are invalid, whichever process checks them.

    A process that has other code refuses to work.
    """
    path = one.folder / "models.py"
    path.write_text(CODE)
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(one.folder))
    model: dict[str, Any] = {
        "response_schema": None,
        "response_model": f"{path}:Label",
        "max_attempts": 1,
    }
    run_with(one, Elsewhere(pool).steps(), **model)
    labels = {row["label"] or row["_error"] for row in one.rows()}
    assert labels <= {"y", "z", "response: label: Value error, x is out of use"}
    one.values[0]["text"] += ", changed"
    one.write()

    def deployed(_step: str, _ref: RunRef, _chunk: str) -> None:
        path.write_text(CODE.replace('"z"', '"z", "zz"'))

    before = accepted(one)
    with pytest.raises(SpecError, match="another version of"):
        run_with(one, Elsewhere(pool, deployed).steps(), **model)
    assert accepted(one) == before


def given_back(ref: RunRef) -> None:
    context_of(ref).ledger.release_lease(ref.lease)


def run_out(ref: RunRef) -> None:
    context_of(ref).ledger.renew_lease(ref.lease, 0)


def taken_over(ref: RunRef) -> None:
    ledger = context_of(ref).ledger
    ledger.release_lease(ref.lease)
    ledger.acquire_lease(ref.lease.dataset_id, 1)


@pytest.mark.parametrize("gone", [given_back, run_out, taken_over])
@pytest.mark.parametrize("at", ["submit", "collect"])
def test_without_the_lease_nothing_is_sent_or_landed_elsewhere(
    one: Table, pool: ProcessPoolExecutor, gone: Callable[[RunRef], None], at: str
) -> None:
    """The process that does the step reads in the ledger that the lease is gone.

    The next run does what was left, once.
    """

    def lost(step: str, ref: RunRef, _chunk: str) -> None:
        if step == at:
            gone(ref)

    with pytest.raises(LeaseError):
        run_with(one, Elsewhere(pool, lost).steps())
    assert accepted(one) == ((4, 0) if at == "collect" else (0, 0))
    assert not list((one.output / "data").glob("*.parquet"))
    time.sleep(1)
    assert run_with(one, Elsewhere(pool).steps()).outcomes == {"succeeded": 4}
    assert accepted(one) == (4, 0)
    one.check_answers()


def test_a_lease_that_goes_before_the_first_byte_stops_the_create(
    table: Table, pool: ProcessPoolExecutor
) -> None:
    """A create is not sent if the lease is given back after its intent was written.

    The next run proves its absence and sends it once.
    """
    with pytest.raises(LeaseError):
        run_with(table, Elsewhere(pool, work=do_as_the_lease_goes).steps())
    assert accepted(table) == (0, 0)
    assert run_with(table, Elsewhere(pool).steps()).outcomes == {"succeeded": 20}
    assert accepted(table) == (20, 0)


def test_without_file_locks_only_the_holder_lands(
    table: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without locks another process refuses to land; the run itself lands all."""
    with pytest.raises(StorageError, match="has no file locks"):
        run_with(table, Elsewhere(pool, work=do_without_locks).steps(), items_per_batch=3)
    assert not list((table.output / "data").glob("*.parquet"))
    monkeypatch.setattr("fcntl.flock", no_locks)
    receipt = table.run(items_per_batch=3)
    assert (receipt.outcomes, receipt.continued) == ({"succeeded": 20}, True)
    assert accepted(table) == (20, 0)
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("slow", [0, 0.5], ids=["at once", "while the first is answered"])
def test_a_chunk_that_two_processes_send_at_once_is_sent_once(
    table: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    """An engine may start a step again while the first try is alive: one create goes out.

    The second try ends soon after the first one, however long an absence takes to prove.
    """
    monkeypatch.setenv("BATCHATA_UNCLEAR_GRACE", "3600")
    elsewhere = Elsewhere(pool)
    if slow:
        table.emulator.control.faults(kind="slow", route="create", seconds=slow)

    def is_being_sent(ref: RunRef, chunk_id: str) -> bool:
        return context_of(ref).ledger.chunk(chunk_id).state != ChunkState.PLANNED

    def submit(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(elsewhere.step, "submit", ref, chunk_id)
            if slow:
                until(lambda: is_being_sent(ref, chunk_id))
            tries = [first, threads.submit(elsewhere.step, "submit", ref, chunk_id)]
        errors = [error for attempt in tries if (error := attempt.exception()) is not None]
        assert all(isinstance(error, LedgerError) for error in errors), errors
        return next(attempt.result() for attempt in tries if attempt.exception() is None)

    steps = replace(elsewhere.steps(), submit=submit)
    receipt = run_with(table, steps, items_per_batch=7, max_parallel_batches=1)
    assert receipt.outcomes == {"succeeded": 20}
    assert accepted(table) == (20, 0)
    table.check_answers()


def test_a_step_elsewhere_ends_when_the_run_is_left(
    one: Table, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that polls for a run that nobody holds any more stops polling soon."""
    monkeypatch.setenv("BATCHATA_LEASE_SECONDS", "2")
    polled = threading.Event()
    elsewhere = Elsewhere(pool)

    def poll(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        threading.Timer(1, context_of(ref).held.stop.set).start()
        try:
            return elsewhere.step("poll", ref, chunk_id)
        except LeaseError:
            polled.set()
            raise

    with open_batches(one.emulator), pytest.raises(LeaseError):
        run_with(one, replace(elsewhere.steps(), poll=poll))
    assert polled.wait(PATIENCE)
    assert run_with(one, elsewhere.steps()).outcomes == {"succeeded": 4}
    assert accepted(one) == (4, 0)


@pytest.mark.parametrize("at", ["chunk", "submit", "poll"])
def test_a_request_to_stop_reaches_every_process(
    one: Table, pool: ProcessPoolExecutor, at: str
) -> None:
    """It comes through the ledger: no chunk is sent, an open batch is cancelled and lands."""

    def stopped(step: str, ref: RunRef, _chunk: str) -> None:
        if step == at:
            context_of(ref).ledger.request_stop(ref.run_id, StopReason.CANCEL)

    with open_batches(one.emulator):
        receipt = run_with(one, Elsewhere(pool, stopped).steps())
    assert receipt.result == "cancelled"
    assert receipt.outcomes == ({"canceled": 4} if at == "poll" else {})
    assert accepted(one) == ((4, 0) if at == "poll" else (0, 0))


@pytest.mark.parametrize("made", [False, True], ids=["no ledger", "another ledger"])
def test_a_process_with_another_ledger_refuses(
    one: Table, pool: ProcessPoolExecutor, tmp_path: Path, made: bool
) -> None:
    """One sentence names both; nothing is sent, and no ledger is made."""
    other = tmp_path / "other.db"
    if made:
        Ledger(f"sqlite:///{other}").close()
    env = {"BATCHATA_LEDGER_URL": f"sqlite:///{other}"}
    with pytest.raises(
        WrongLedgerError, match=r"the run is in the ledger .*ledger\.db, .*other\.db"
    ):
        run_with(one, Elsewhere(pool, env=env).steps())
    assert accepted(one) == (0, 0)
    assert other.exists() == made


def test_planning_stays_in_the_process_that_holds_the_dataset(
    one: Table, pool: ProcessPoolExecutor
) -> None:
    """Another process refuses to plan, in a sentence that says which steps it can do."""

    def plan(ref: RunRef) -> dict[str, Any]:
        env = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
        return pool.submit(do_plan, pickle.dumps(ref), env).result()

    with pytest.raises(SpecError, match="only chunk, submit, poll and collect"):
        run_with(one, replace(Steps(), plan=plan))


def do_plan(ref: bytes, env: dict[str, str]) -> dict[str, Any]:
    os.environ.update(env)
    return Steps().plan(pickle.loads(ref))


def test_a_ref_holds_no_password(one: Table) -> None:
    """Its text and its pickle show where the ledger is, without password and query."""
    url = (
        "postgresql://user:canary@db.example:6543/ledger?sslpassword=canary&application_name=canary"
    )
    assert Store(url).place == "db.example:6543/ledger"
    seen: list[str] = []

    def chunk(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        seen.extend((repr(ref), repr(pickle.dumps(ref))))
        assert pickle.loads(pickle.dumps(ref)) == ref
        return Steps().chunk(ref, chunk_id)

    run_with(one, replace(Steps(), chunk=chunk))
    keys = [value for name, value in os.environ.items() if name.endswith("_KEY")]
    assert keys
    assert not any(key in text for key in keys for text in seen)
    assert "ledger.db" in seen[0]


def test_runs_of_one_process_do_not_meet(one: Table, tmp_path: Path) -> None:
    """Runs of one id in two ledgers are two; an earlier run of an output is not the live one."""
    spec, answers = one.spec(), AnswerSchemas(None)
    with hold_dataset(str(one.output), Settings()) as held:
        first = RunContext(held, "run", spec, answers)
        elsewhere = Settings(ledger_url=f"sqlite:///{tmp_path / 'second.db'}")
        with hold_dataset(str(tmp_path / "second"), elsewhere) as other:
            second = RunContext(other, "run", spec, answers)
            with active(first), active(second):
                assert context_of(first.ref) is first
                assert context_of(second.ref) is second
    with hold_dataset(str(one.output), Settings()) as held:
        again = RunContext(held, "run", spec, answers)
        with active(again):
            assert first.ref != again.ref
            assert context_of(again.ref) is again
