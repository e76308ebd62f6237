"""What commands print: on any stream, whatever the texts say that sources and providers wrote."""

from __future__ import annotations

import json
import os
import signal
import sys
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from batchata_tasks.cli import console
from batchata_tasks.cli.main import main
from batchata_tasks.common.errors import SpecError, StorageError, TransientError
from batchata_tasks.common.text import encodable, printable
from batchata_tasks.operations.reconcile_report import ReconcileReport, UnclearChunk, UnknownBatch
from batchata_tasks.progress.console import for_console
from batchata_tasks.progress.layout import run_lines, sentence
from batchata_tasks.progress.output import print_on, write_text
from batchata_tasks.progress.snapshot import BatchView, Snapshot
from batchata_tasks.reports.printing import print_pairs, print_table, print_text
from batchata_tasks.reports.status import runs_table
from tests.support.table import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

HOSTILE = (
    "a\x1b[2J\x1b[1;1H\x9b31m\x1b]0;title\x07\x7f\x08\u202e\u2066\u200b\ufeff\r\n\u2028\x85"
    "[red]b[/red][link=http://127.0.0.1/]c[/link] :bug: [/] é → 漢"
)
MARKS = ("[red]b[/red]", "[link=http://127.0.0.1/]", ":bug:")
SPEC = {
    "name": "hostile",
    "key": "id",
    "model": "gpt-6-luna",
    "prompt": "{{ text }}",
    "response_schema": SCHEMA,
    "max_tokens": 64,
    "columns": ["text", "col\x1b[31m"],
}


class Stream(TextIOWrapper):
    """A standard stream of a process, in memory."""

    def __init__(self, encoding: str, *, terminal: bool = False) -> None:
        super().__init__(BytesIO(), encoding=encoding, newline="\n")
        self._is_terminal = terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


class Done:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def folder(tmp_path: Path, emulator: Emulator) -> Path:
    """Return a folder with a hostile table, and a spec over it."""
    del emulator
    rows = [{"id": f"{n} {HOSTILE}", "text": HOSTILE, "col\x1b[31m": HOSTILE} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    places = {"source": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "out")}
    (tmp_path / "spec.json").write_text(json.dumps(SPEC | places))
    return tmp_path


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def command(
    monkeypatch: pytest.MonkeyPatch,
    *words: str,
    encoding: str = "utf-8",
    terminal: bool = False,
    columns: int = 160,
) -> Done:
    """Run a command in this process, on streams of an encoding."""
    out, err = Stream(encoding, terminal=terminal), Stream(encoding)
    with monkeypatch.context() as patched:
        patched.setenv("COLUMNS", str(columns))
        # it has read the variable when it was made, maybe in another test
        patched.setattr(console.out, "_width", columns)
        for name, value in {"stdout": out, "stderr": err, "argv": ["batchata", *words]}.items():
            patched.setattr(sys, name, value)
        with pytest.raises(SystemExit) as exited:
            main()
    code = exited.value.code
    return Done(code if isinstance(code, int) else 1, out.text(), err.text())


def is_clean(text: str) -> bool:
    return all(printable(line) == line for line in text.split("\n"))


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_every_command_prints_on_any_stream(
    encoding: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command fails for a character that its output lacks; JSON stays JSON."""
    monkeypatch.chdir(folder)
    spec = "spec.json"
    commands = [
        (0, ["plan", spec]),
        (0, ["run", spec, "--direct"]),
        (0, ["show", spec]),
        (0, ["status", spec]),
        (0, ["costs"]),
        (0, ["reconcile"]),
        (0, ["--help"]),
        (0, ["run", "--help"]),
        (0, ["--version"]),
        (2, ["plan", "né→.json"]),
        (2, ["plan", spec, "--set", "key=→"]),
        (2, ["né→"]),
    ]
    for code, words in commands:
        done = command(monkeypatch, *words, encoding=encoding)
        assert done.code == code, (words, done.out, done.err)
        assert done.out or done.err
        assert "Traceback" not in done.err
        assert is_clean(done.out), words
        assert is_clean(done.err), words
    for words in (["plan", spec], ["show", spec], ["status"], ["costs"], ["reconcile"]):
        assert json.loads(command(monkeypatch, *words, "--json", encoding=encoding).out)


def test_an_arrow_is_drawn_where_the_output_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own characters become their nearest, others a question mark."""
    monkeypatch.chdir(folder)
    done = command(monkeypatch, "plan", "spec.json", encoding="latin-1")
    assert f"{folder / 'rows.jsonl'} -> {folder / 'out'}" in done.out
    assert encodable("é → 漢…", "latin-1") == "é -> ?..."
    assert encodable("é → 漢…", None) == "é → 漢…"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("columns", [160, 20])
def test_values_and_names_of_a_table_are_shown_as_text(
    columns: int, terminal: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rows and columns say moves no cursor, and is no markup; also on a narrow terminal."""
    monkeypatch.chdir(folder)
    assert command(monkeypatch, "run", "spec.json", "--direct").code == 0
    for words in (["show"], ["plan"], ["status"]):
        done = command(monkeypatch, *words, "spec.json", terminal=terminal, columns=columns)
        assert done.code == 0, done.err
        assert is_clean(done.out), words
    assert MARKS[0] in command(monkeypatch, "show", "spec.json", columns=1000).out


@pytest.mark.parametrize("terminal", [False, True])
def test_reports_show_providers_texts_as_text(terminal: bool) -> None:
    """Ids, statuses, names and errors of anybody are cells, in pipes as on terminals."""
    report = ReconcileReport(
        known={HOSTILE: 1},
        adopted={HOSTILE: HOSTILE},
        strays=[UnknownBatch(HOSTILE, HOSTILE, HOSTILE, 3, 5, None)],
        doubts=[UnclearChunk("c", "held", HOSTILE, HOSTILE, 3, 5, HOSTILE)],
        notes=[HOSTILE],
    )
    run: dict[str, Any] = {
        "name": HOSTILE,
        "state": "closed",
        "result": HOSTILE,
        "started_at": "2026-01-01T00:00:00",
        "outcomes": {HOSTILE: 3},
        **dict.fromkeys(("held_rows", "overdue_rows", "exhausted_rows", "abandoned_rows"), 0),
        "accepted_twice": [],
        "rehearsal": False,
        "settled_usd": "1",
        "in_flight_usd": None,
        "batches": [],
    }
    stream = Stream("utf-8", terminal=terminal)
    console = Console(
        file=stream, force_terminal=terminal, color_system=None, width=2000, legacy_windows=False
    )
    print_pairs(console, report.lines())
    print_table(console, runs_table([run]))
    print_text(console, f"Error: {HOSTILE}")
    with for_console(Console(file=stream, force_terminal=False)) as progress:
        progress.note(HOSTILE)
    assert is_clean(stream.text())
    for mark in MARKS:
        assert mark in stream.text()


def test_the_display_shows_providers_texts_as_text() -> None:
    """A running display cleans what it draws: errors, statuses, ids, models, budgets."""
    batch = BatchView(HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE, 3, "submitted", HOSTILE, 1, 5.0)
    snapshot = Snapshot(
        total=3,
        landed=1,
        failed=1,
        outcomes={HOSTILE: 1},
        batches=(batch,),
        stopping=HOSTILE,
        budget=HOSTILE,
        errors={HOSTILE: 1},
    )
    stats, batches = snapshot.stats() | {"doing": HOSTILE}, list(snapshot.batch_data().values())
    drawn = [line.plain for line in run_lines(stats, 1.0, batches, (200, 50), 9.0)]
    drawn += [sentence(stats, batches)]
    assert is_clean("\n".join(drawn))
    assert any(MARKS[0] in line for line in drawn)


@pytest.mark.parametrize("kind", [SpecError, TransientError])
def test_errors_are_texts_without_control_characters(kind: type[Exception]) -> None:
    """Whoever prints an error, its text moves no cursor."""
    assert is_clean(str(kind(HOSTILE)))


# --- streams that fail ----------------------------------------------------------------------------


def closed_pipe() -> Any:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def test_output_that_nobody_reads_does_not_matter() -> None:
    """After `| head -1` has ended, printing goes on without an error, also at the end."""
    with closed_pipe() as pipe:
        write_text(pipe, "x" * 100_000)
        print_text(Console(file=pipe), "more")
        pipe.write("at the end")
    write_text(None, "nowhere")


def test_commands_go_on_when_nobody_reads_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run lands its rows after its progress and its receipt have lost their reader."""
    monkeypatch.chdir(folder)
    for words in (["run", "spec.json", "--direct"], ["show", "spec.json"], ["status", "--json"]):
        with closed_pipe() as out, closed_pipe() as err, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            patched.setattr(sys, "argv", ["batchata", *words])
            with pytest.raises(SystemExit) as exited:
                main()
        assert exited.value.code == 0, words
    status = json.loads(command(monkeypatch, "status", "--json").out)
    assert [run["result"] for run in status] == ["succeeded"]


def test_output_that_cannot_be_written_is_an_error() -> None:
    """A full disk is told; progress is not worth an error."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        with pytest.raises(StorageError, match="No space left"):
            print_on(Console(file=full), "text")
        print_on(Console(file=full, stderr=True), "text")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
