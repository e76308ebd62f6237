"""Ten specs over one Postgres ledger, run by two machines, with little room at the provider."""

from __future__ import annotations

import json
import sys
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import pytest

from tests.support.queued import per_row
from tests.support.table import Table
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from tests.support.postgres import Server

SPECS, ROWS, EACH, AT_ONCE, ROOM = 10, 12, 3, 2, 5
# a machine: five specs at once, each in a thread, as a team's workers run them
_MACHINE = """
import json, sys, threading, time
from batchata_tasks.ledger import Ledger
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.spec.loading import parse_spec

ended, asked, specs, ask_room = {}, [], json.loads(sys.argv[1]), Ledger.ask_room

def noted(ledger, lease, chunk, *rest):
    began, room = time.time(), ask_room(ledger, lease, chunk, *rest)
    asked.append((time.time() if room.let_in else began, chunk.id, room.let_in))
    return room

Ledger.ask_room = noted

def run(spec):
    ended[spec["name"]] = enrich(parse_spec(spec)).outcomes

threads = [threading.Thread(target=run, args=(spec,)) for spec in specs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([ended, asked]))
"""


def machine(specs: list[dict[str, object]]) -> Popen[str]:
    """Start a machine that runs specs."""
    return Popen([sys.executable, "-c", _MACHINE, json.dumps(specs)], stdout=PIPE, text=True)


@pytest.mark.slow
@pytest.mark.nights
def test_ten_specs_of_two_machines_do_not_starve_each_other(
    emulator: Emulator, tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All complete, nothing is refused for want of room, and they take turns.

    While a batch waits, no more others are let in than may wait at once, and fit in beside it.
    """
    database = postgres.create()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", postgres.url(database))
    table = Table(tmp_path, emulator, "openai", ROWS)
    room = per_row(table) * EACH * ROOM
    emulator.control.limits(openai_enqueued_tokens=room)
    emulator.control.progress("reads", 3)
    (tmp_path / "queues.toml").write_text(
        f"[openai]\nenqueued_tokens = {room // 2}\n"  # a first batch's tokens are guessed
    )
    monkeypatch.setenv("BATCHATA_QUEUES", str(tmp_path / "queues.toml"))
    specs = [
        table.spec(
            name=f"spec-{number}",
            output=str(tmp_path / f"out-{number}"),
            items_per_batch=EACH,
            max_parallel_batches=AT_ONCE,
        ).model_dump(mode="json", exclude_defaults=True)
        for number in range(SPECS)
    ]
    machines = [machine(specs[:5]), machine(specs[5:])]
    answers = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in machines]
    ended = {name: rows for one, _ in answers for name, rows in one.items()}
    assert ended == {f"spec-{number}": {"succeeded": ROWS} for number in range(SPECS)}
    book = table.ledger()
    assert (book["batches_refused"], book["requests_accepted"]) == (0, SPECS * ROWS)
    events = sorted(event for _, asked in answers for event in asked)
    assert 0 < most_turns(events) <= SPECS * AT_ONCE + ROOM
    postgres.drop(database)


def most_turns(events: list[tuple[float, str, bool]]) -> int:
    """Return how many others were let in while one waited, at most."""
    first = dict[str, float]()
    for moment, chunk, _ in events:
        first.setdefault(chunk, moment)
    let_in = {chunk: moment for moment, chunk, in_ in reversed(events) if in_}
    return max(
        sum(first[chunk] < moment < let_in[chunk] for moment in let_in.values()) for chunk in let_in
    )
