"""The columns of answers stand in the order of the response model, whatever wrote their files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from batchata_tasks import Batch
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import LettingGo, SuspendedRunError, hold_dataset
from batchata_tasks.operations.watch import watch
from batchata_tasks.pipeline.enrich import run_prepared
from batchata_tasks.planning.prepare import prepare_run
from tests.support.books import run_with, stopping_at
from tests.support.table import MODELS, Table, open_batches
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def model(**fields: dict[str, Any]) -> dict[str, Any]:
    """Return a response model of these fields, as JSON Schema."""
    return {"type": "object", "properties": fields, "required": [*fields]}


# no order of these is that of the alphabet
WHERE = model(page=NUMBER, line=NUMBER)
FIRST = model(category=TEXT, summary=TEXT, confidence=NUMBER, where=WHERE)
MORE = model(reason=TEXT, category=TEXT, where=WHERE, summary=TEXT, amount=NUMBER)
ANOTHER = model(where=WHERE, summary=TEXT, confidence=NUMBER, category=TEXT)  # the same fields


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table of one provider: none has a say in this."""
    return Table(tmp_path, emulator, "anthropic", rows=6)


def in_order_of(table: Table, schema: dict[str, Any]) -> bool:
    """Whether each part has the columns of a response model in its order, nested ones as well."""
    schemas = [pq.read_schema(path) for path in (table.output / "data").iterdir()]
    answers = [
        [name for name in one.names if name in schema["properties"] and name != "id"]
        for one in schemas
    ]
    nested = [[field.name for field in one.field("where").type] for one in schemas]
    fields, inner = [*schema["properties"]], [*WHERE["properties"]]
    return bool(schemas) and all(
        (one, parts) == (fields, inner) for one, parts in zip(answers, nested, strict=True)
    )


def suspended(table: Table, **changes: Any) -> None:
    """Send what there is to send, and let go while the batch is open."""
    ready = prepare_run(table.spec(**changes), Settings())
    with open_batches(table.emulator), pytest.raises(SuspendedRunError):
        run_prepared(ready, letting_go=LettingGo(0))


def test_what_watch_lands_is_in_order(table: Table) -> None:
    """It has the response model from the ledger alone, and writes as the run itself would."""
    table.run(response_schema=FIRST, limit=2)
    suspended(table, response_schema=FIRST)
    assert len(watch(Settings(), gathered=0).landed) == 1
    assert len(table.rows()) == 6
    assert in_order_of(table, FIRST)
    before = {path.name for path in (table.output / "data").iterdir()}
    table.run(response_schema=FIRST)
    table.run(response_schema=FIRST)
    assert {path.name for path in (table.output / "data").iterdir()} == before  # none written anew


def test_a_ledger_of_an_older_version_knows_the_order(table: Table) -> None:
    """That sorted the response model's fields; what is required tells how they stood."""
    suspended(table, response_schema=FIRST)
    with hold_dataset(str(table.output), Settings()) as held:
        run = held.ledger.open_run(held.lease.dataset_id)
        assert run is not None
        text = json.dumps(json.loads(run.spec), sort_keys=True)
        held.ledger.set_spec(held.lease, run.id, text)
    watch(Settings(), gathered=0)
    assert in_order_of(table, FIRST)


@pytest.mark.parametrize("then", [MORE, ANOTHER], ids=["other fields", "another order"])
def test_a_model_that_changed_gives_the_order(table: Table, then: dict[str, Any]) -> None:
    """What landed before, what is in flight, and what lands later: all are in today's order."""
    table.run(response_schema=FIRST, limit=2)
    suspended(table, response_schema=FIRST)
    table.run(response_schema=then)  # which lands that first
    table.run(response_schema=then)
    assert len(table.rows()) == 6
    assert in_order_of(table, then)
    suspended(table, response_schema=then, prompt="Anew: {{ text }}")
    watch(Settings(), gathered=0)
    assert in_order_of(table, then)


def test_a_batch_that_is_carried_on_by_its_state_keeps_the_order(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Its jobs and their response model come from the ledger then."""
    state, table = str(tmp_path / "state.json"), Table(tmp_path, emulator, "anthropic")
    batch = Batch(str(table.output), items_per_batch=2).set_state(state)
    batch.set_default_params(model=MODELS["anthropic"], max_tokens=200)
    for name in "abcd":
        batch.add_job(id=name, prompt=f"job {name}", response_model=FIRST)
    with open_batches(emulator):
        run = batch.run(wait=False)
        until(lambda: run.status()["batches"].get("submitted") == 2)
        run.shutdown(wait_for_active=False)
    assert len(Batch().set_state(state).run().results()) == 4
    assert in_order_of(table, FIRST)


def test_a_run_that_died_is_landed_in_order(table: Table) -> None:
    """Another text of the spec lands it, in the order of its own model, and then goes on."""
    steps = stopping_at("submit", lambda _: True, KeyboardInterrupt(), after=True)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, steps, response_schema=FIRST, limit=3)
    table.run(response_schema=ANOTHER)
    assert len(table.rows()) == 6
    assert in_order_of(table, ANOTHER)
