"""Files of earlier runs are packed: what needs them finds them, and nothing is sent again."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import StorageError, WrongLedgerError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset import merging
from batchata_tasks.dataset.packing import Packing
from batchata_tasks.dataset.packs import kept_files
from batchata_tasks.execution import earlier_files
from batchata_tasks.operations.compact import compact
from batchata_tasks.operations.rebuild import rebuild
from batchata_tasks.operations.rename import rename
from batchata_tasks.operations.revalidate import revalidate
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.types.ids import TOKEN_CHARS
from tests.support.books import check_money
from tests.support.request_files import lying_twice
from tests.support.stuck import add_rows
from tests.support.table import APIS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

pytestmark = pytest.mark.in_turn

PLACES = ("intents", "commits", "requests", "responses", "specs")


@pytest.fixture(params=APIS)
def table(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table after three nights, all files of which are packed."""
    table = Table(tmp_path, emulator, request.param, rows=4)
    for _ in range(3):
        table.run(items_per_batch=2)
        add_rows(table, 1)
        table.values[0]["text"] += ", told anew"
        table.write()
    table.run(items_per_batch=2)
    done = compact(table.spec(), Settings())
    assert done.beside_before > 30 > done.beside_after
    assert not loose(table)
    return table


def loose(table: Table) -> list[Path]:
    """Return the files of runs that are not packed."""
    own = table.output / "_batchata"
    return [path for place in PLACES for path in (own / place).iterdir()]


def packs(table: Table) -> list[Path]:
    return sorted((table.output / "_batchata/packs").iterdir())


def check_nothing_is_sent(table: Table) -> None:
    """The dataset is whole: a run has nothing to do, and the money adds up."""
    rows = table.rows()
    receipt = table.run(items_per_batch=2)
    assert (receipt.plan["requests"], receipt.exit_code) == (0, 0)
    assert table.rows() == rows
    table.check_answers()
    check_money(table)
    assert not lying_twice(table.output)


def test_the_next_night_sends_what_is_new(table: Table) -> None:
    """And nothing of the nights before, of which no file comes back."""
    check_nothing_is_sent(table)
    add_rows(table, 1)
    assert table.run().plan["requests"] == 1
    newest = max(table.rows(), key=lambda row: row["_enriched_at"])["_custom_id"][:TOKEN_CHARS]
    assert {path.name[:TOKEN_CHARS] for path in loose(table) if path.parent.name != "specs"} == {
        newest
    }


def test_a_request_of_an_early_night_is_shown(table: Table) -> None:
    """As it was sent."""
    prompt = one_row(table.spec(), ["k2"]).to_json()["prompt"]
    assert (prompt["is"], prompt["turns"][-1]["text"]) == ("sent", "text of row 2")


def test_a_lost_part_lands_again_from_packed_results(table: Table) -> None:
    """All rows are there again; nothing is asked of the provider."""
    before = table.rows()
    for path in (table.output / "data").iterdir():
        path.unlink()
    assert table.run().plan["requests"] == 0
    assert table.rows() == before
    check_nothing_is_sent(table)


def test_a_lost_ledger_is_rebuilt_from_packs(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all batches and their money."""
    money = check_money(table)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'new.db'}")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    assert check_money(table) == money
    check_nothing_is_sent(table)


def test_a_ledger_from_a_backup_is_noticed(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lacks batches of which the packs tell sends nothing."""
    ledger = table.folder / "empty.db"
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{ledger}")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    backup = table.folder / "backup.db"
    shutil.copyfile(ledger, backup)
    add_rows(table, 1)
    table.run()
    compact(table.spec(), Settings())
    assert not loose(table)
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{backup}")
    with pytest.raises(WrongLedgerError, match="does not know of 1 batch that was sent"):
        table.run()


def test_lost_packs_are_like_lost_files(table: Table) -> None:
    """What was paid for stays; nothing is sent again."""
    shutil.rmtree(table.output / "_batchata/packs")
    rows = table.rows()
    assert table.run().plan["requests"] == 0
    assert table.rows() == rows


def test_a_damaged_pack_stops_the_run(table: Table) -> None:
    """It may tell of batches that were sent; the sentence names it."""
    (pack,) = packs(table)
    pack.write_bytes(pack.read_bytes()[:-30])
    add_rows(table, 1)
    with pytest.raises(StorageError, match=f"{pack} is damaged"):
        table.run()


def test_a_column_is_renamed_and_lost_parts_come_back_under_its_new_name(table: Table) -> None:
    """Also in the manifests that were packed."""
    text = table.source.read_text().replace("id,text,note", "id,text,remark")
    table.source.write_text(text)
    spec = table.spec(columns=["remark"])
    rename(spec, ["note=remark"], Settings())
    before = table.rows()
    assert "remark" in before[0]
    for path in (table.output / "data").iterdir():
        path.unlink()
    assert not lying_twice(table.output)
    assert table.run(columns=["remark"]).plan["requests"] == 0
    assert table.rows() == before


def test_answers_are_read_anew(table: Table) -> None:
    """By a mended model, and a rebuilt ledger knows it."""
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    revalidate(table.spec(response_schema=schema), Settings())
    assert not lying_twice(table.output)
    assert table.run(response_schema=schema).plan["requests"] == 0


@pytest.mark.parametrize("lost", ["commits", "intents"])
def test_a_pack_holds_no_outdated_file(table: Table, lost: str) -> None:
    """If what was written since is lost, nothing older takes its place: no row is sent again."""
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    revalidate(table.spec(response_schema=schema), Settings())
    before = table.rows()
    shutil.rmtree(table.output / "data")
    shutil.rmtree(table.output / "_batchata" / lost)
    receipt = table.run(response_schema=schema)
    assert receipt.plan["requests"] == 0
    assert [row["label"] for row in table.rows()] == [row["label"] for row in before]


def test_old_request_and_response_files_leave_the_packs(table: Table) -> None:
    """Those that are older than `retention`, by the time at which they were written."""
    own = table.output / "_batchata"
    raw = [path for place in ("requests", "responses") for path in kept_files(own / place, "*")]
    assert not table.run(retention="30d").deleted_files
    age(table, raw)
    receipt = table.run(retention="30d")
    assert receipt.deleted_files == len(raw)
    assert not any(kept_files(own / place, "*") for place in ("requests", "responses"))
    assert kept_files(own / "commits", "*")
    check_money(table)


def age(table: Table, paths: list[Path]) -> None:
    """Let files be 31 days old, and packed again."""
    moment = time.time() - 31 * 86400
    packing = Packing(table.output / "_batchata/packs", lambda: None)
    packing.unpack(paths)
    for path in paths:
        os.utime(path, (moment, moment))
    packing.pack(paths)


def test_many_nights_stay_in_tens_of_files(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the newest run stay as they are, all others are packed when they are many."""
    monkeypatch.setattr(earlier_files, "FEWEST", 12)
    monkeypatch.setattr(merging, "FULL", 3)
    table = Table(tmp_path, emulator, "anthropic", rows=1)
    most = 0
    for _ in range(14):
        table.run()
        add_rows(table, 1)
        most = max(most, sum(path.is_file() for path in table.output.rglob("*")))
    assert most < 40
    own = table.output / "_batchata"
    assert len(kept_files(own / "commits", "*")) == 14
    newest = max(table.rows(), key=lambda row: row["_enriched_at"])["_custom_id"][:TOKEN_CHARS]
    assert (own / f"requests/{newest}.jsonl").exists()
    table.check_answers()
    check_money(table)


def test_a_run_ends_well_if_its_files_cannot_be_packed(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is told, and all rows are there; the files stay as they are."""
    monkeypatch.setattr(earlier_files, "FEWEST", 1)
    table = Table(tmp_path, emulator, "anthropic", rows=2)
    table.run()
    (table.output / "_batchata/packs").write_text("no folder")
    before, notes = loose(table), list[str]()
    add_rows(table, 1)
    receipt = enrich(table.spec(), progress=LineProgress(notes.append))
    assert receipt.outcomes == {"succeeded": 1}
    assert any("were not merged: packing files of earlier runs: " in note for note in notes)
    assert set(before) <= set(loose(table))
    check_nothing_is_sent(table)


def test_rows_outlive_their_packs_the_ledger_and_the_folder(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other is lost, with a run after each: nothing is sent again."""
    sent, rows = table.ledger()["requests_accepted"], len(table.rows())
    shutil.rmtree(table.output / "_batchata/packs")
    table.run()
    monkeypatch.setenv("BATCHATA_LEDGER_URL", f"sqlite:///{table.folder / 'new.db'}")
    rebuild(prepare_run(table.spec(), Settings()), Settings())
    table.run()
    shutil.rmtree(table.output)
    table.run()
    assert table.ledger()["requests_accepted"] == sent
    assert len(table.rows()) == rows
