"""The live display of a run, on terminals of all sizes and in pipes, and what remains of it."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import time
from copy import deepcopy
from io import StringIO
from select import select
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from batchata_tasks import Batch, RichBatchProgressDisplay
from batchata_tasks.progress.console import for_console
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.progress.snapshot import Snapshot
from tests.support.commands import start
from tests.support.table import open_batches
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

Seen = tuple[dict[str, Any], float, dict[str, dict[str, Any]]]
CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"
CODES = re.compile(r"\x1b\[(\??)(\d*)([A-Za-z])")


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at batches seldom: they are to stay open, and 50 are looked at."""
    monkeypatch.setenv("BATCHATA_POLL_INTERVAL", "1")


class Screen:
    """A terminal that wraps its lines anew when it becomes narrower."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = [""]
        self.row = 0
        self.column = 0
        self.cursor = True
        self._ends = set[int]()  # rows that end a line

    def feed(self, text: str) -> None:
        place = 0
        while place < len(text):
            if code := CODES.match(text, place):
                self._obey(*code.groups())
                place = code.end()
                continue
            self._put(text[place])
            place += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._ends.add(self.row)
            self._down()
        else:
            assert cell_len(char) == 1, char
            if self.column == self.width:
                self._down()
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")

    def _obey(self, private: str, number: str, what: str) -> None:
        if private:
            assert number == "25"
            self.cursor = what == "h"
        elif what == "A":
            self.row = max(self.row - int(number), 0)
        elif what == "K":
            self.rows[self.row] = ""
            self._ends.discard(self.row)
        else:
            assert what == "m", what

    def resize(self, width: int) -> None:
        """Wrap every line anew; the cursor stays at the end of the last one."""
        lines = [""]
        for place, row in enumerate(self.rows):
            lines[-1] += row
            if place in self._ends:
                lines.append("")
        cut = [
            [line[at : at + width] for at in range(0, max(len(line), 1), width)] for line in lines
        ]
        self.rows, self.width = [row for rows in cut for row in rows], width
        self._ends = {sum(map(len, cut[: place + 1])) - 1 for place in range(len(cut) - 1)}
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1])

    @property
    def shown(self) -> list[str]:
        return [row.rstrip() for row in self.rows if row.strip()]


class ClosedTerminal(StringIO):
    """A terminal that is gone by the time that something is drawn on it."""

    def write(self, _text: str, /) -> int:
        message = "I/O operation on closed file"
        raise ValueError(message)


class Shown:
    """A display on a terminal that a test reads; it is drawn when the test says so."""

    def __init__(self, width: int, height: int) -> None:
        self.file = StringIO()
        self.screen = Screen(width)
        self._read = 0
        self.console = Console(file=self.file, force_terminal=True, width=width, height=height)
        self.display = RichBatchProgressDisplay(self.console)

    def start(self, seen: Seen) -> None:
        self.display.update_progress(*seen)
        self.display.start_progress()
        self.display._region._over.set()  # no drawing between two looks of the test
        self.draw()

    def draw(self) -> None:
        self.display._region.draw()
        self.look()

    def look(self) -> list[str]:
        text = self.file.getvalue()
        self.screen.feed(text[self._read :])
        self._read = len(text)
        return self.screen.shown


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Shown]]:
    """Return a function that opens terminals one after the other."""
    terminals: list[Shown] = []

    def opened(width: int, height: int = 40) -> Shown:
        for one in terminals:
            one.display.finish_progress()
        terminals.append(Shown(width, height))
        return terminals[-1]

    yield opened
    for one in terminals:
        one.display.finish_progress()


_SEEN: dict[tuple[Any, ...], Seen] = {}


def middle(
    emulator: Emulator, folder: Path, landed: int, opened: int, per: int = 4, **params: Any
) -> Seen:
    """Return what callbacks get in the middle of a run; it is run once for the same arguments.

    By then `landed` batches have landed, with failed requests in them, and `opened` ones are open.
    """
    run = (landed, opened, per, *sorted(params.items()))
    if run not in _SEEN:
        _SEEN[run] = _in_the_middle(emulator, folder, landed, opened, per, **params)
    return deepcopy(_SEEN[run])


def _in_the_middle(
    emulator: Emulator, folder: Path, landed: int, opened: int, per: int, **params: Any
) -> Seen:
    emulator.control.faults(kind="never_ends", provider="anthropic", share=0.5)
    emulator.control.faults(kind="request_refusal", contains="number 1")
    emulator.control.faults(kind="request_error", contains="number 2")
    seen: list[Seen] = []
    batch = Batch(
        folder, max_parallel_batches=landed + opened, raw_files=False, items_per_batch=per, **params
    )
    for number in range((landed + opened) * per):
        batch.add_job(
            prompt=f"number {number}",
            id=str(number),
            model=GPT if number < landed * per else CLAUDE,
            max_tokens=50,
        )
    run = batch.run(
        wait=False, on_progress=lambda *found: seen.append(found), progress_interval=0.2
    )
    while not seen or [seen[-1][0]["batches"].get(state) for state in ("landed", "submitted")] != [
        landed,
        opened,
    ]:
        assert not run.done, run.status()
        time.sleep(0.02)
    found = seen[-1]
    run.shutdown(wait_for_active=False)
    return found


def test_what_is_shown(
    emulator: Emulator, tmp_path: Path, open_terminal: Callable[..., Shown]
) -> None:
    """The display shows how many requests landed and how they ended, and why some failed.

    It also shows batches by state, money, times and each open batch.
    """
    seen = middle(emulator, tmp_path, 2, 3, cost_limit_usd=1.0)
    shown = open_terminal(120)
    shown.start(seen)
    text = "\n".join(shown.screen.shown)
    assert re.search(r"^Requests +━+─+  8 of 20 landed$", text, re.MULTILINE)
    assert (
        "Outcomes  6 succeeded, 1 refused, 1 errored" in text
        or "Outcomes  6 succeeded, 1 errored, 1 refused" in text
    )
    assert "Batches   2 landed, 3 running" in text
    assert re.search(
        r"^Cost +[━╍─]+  \$0\.\d+ of \$1\.00 spent, \$0\.\d+ reserved$", text, re.MULTILINE
    )
    assert re.search(r"^Time +0:\d\d, oldest batch's deadline in 23:59:\d\d$", text, re.MULTILINE)
    assert "1 x refused: " in text
    assert "1 x provider: " in text
    opened = [one for one in seen[2].values() if one["state"] == "submitted"]
    for one in opened:
        assert re.search(
            rf"^ +{one['number']}  anthropic  {CLAUDE} +4  running +0:\d\d ago  {one['batch_id']}$",
            text,
            re.MULTILINE,
        )


@pytest.mark.parametrize(
    ("width", "height"), [(20, 4), (40, 10), (40, 24), (80, 24), (120, 12), (200, 60)]
)
def test_every_terminal_is_fitted(
    emulator: Emulator, tmp_path: Path, open_terminal: Callable[..., Shown], width: int, height: int
) -> None:
    """No line wraps, and no more lines are drawn than the terminal has.

    Batches without a line are counted, and failures have room first.
    """
    seen = middle(emulator, tmp_path, 1, 12, 3, cost_limit_usd=1.0)
    shown = open_terminal(width, height)
    shown.start(seen)
    lines = shown.screen.shown
    assert len(shown.screen.rows) < height
    assert max(map(cell_len, lines)) < width
    assert lines[0].startswith("Requests")
    numbers = [line for line in lines if re.match(r" +\d+  ", line)]
    more = [
        int(found.group(1)) for line in lines if (found := re.match(r"and (\d+) more open", line))
    ]
    if height > 6:
        assert len(numbers) + sum(more) == 12
        assert any(line.startswith("Failed") for line in lines)
        assert "3 of 39 landed" in lines[0]
        assert any(re.search(r"deadline in 23:59", line) for line in lines)


def test_more_batches_than_lines(
    emulator: Emulator, tmp_path: Path, open_terminal: Callable[..., Shown]
) -> None:
    """Of 50 open batches the oldest have lines, as many as fit; the others are counted."""
    shown = open_terminal(100, 24)
    shown.start(middle(emulator, tmp_path, 1, 50, 1))
    lines = shown.screen.shown
    numbers = [int(found.group(1)) for line in lines if (found := re.match(r" +(\d+)  ", line))]
    assert numbers == list(range(2, 2 + len(numbers)))
    assert 10 < len(numbers) < 23
    assert lines[-1] == f"and {50 - len(numbers)} more open batches"
    assert "no limit" in "".join(lines)


@pytest.mark.parametrize("sizes", [(120, 40, 200), (100, 30, 80), (60, 50, 40, 30)])
def test_a_resized_terminal_shows_one_picture(
    emulator: Emulator, tmp_path: Path, open_terminal: Callable[..., Shown], sizes: tuple[int, ...]
) -> None:
    """After a resize, the next picture replaces the whole last one, however its lines wrapped."""
    seen = middle(emulator, tmp_path, 1, 3)
    shown = open_terminal(sizes[0])
    shown.start(seen)
    after = list[list[str]]()
    for width in sizes[1:]:
        shown.console.width = width
        shown.screen.resize(width)
        shown.draw()
        after.append(shown.screen.shown)
    for width, lines in zip(sizes[1:], after, strict=True):
        fresh = open_terminal(width)
        fresh.start(seen)
        assert [re.sub(r"[\d:]+", "0", line) for line in lines] == [
            re.sub(r"[\d:]+", "0", line) for line in fresh.screen.shown
        ]


def test_notes_stand_above() -> None:
    """Text printed meanwhile goes above the picture.

    Control codes in a provider's text do not reach the terminal.
    """
    file = StringIO()
    with for_console(Console(file=file, force_terminal=True, width=60, height=20)) as progress:
        progress.planned(12, 1, 0)
        progress.note("a \x1b[2J\r note " + "of many words " * 8)
    screen = Screen(60)
    screen.feed(file.getvalue())
    told = " ".join(" ".join(screen.shown).split())
    # and of the picture nothing is left
    assert told == "a [2J note " + " ".join(["of many words"] * 8)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_restores_the_terminal(error: type[BaseException]) -> None:
    """However a run ends, the picture is wiped and the cursor is back.

    The streams are the program's own again.
    """
    file, before = StringIO(), (sys.stdout, sys.stderr)

    def fails() -> None:
        with for_console(Console(file=file, force_terminal=True, width=60, height=20)) as progress:
            progress.planning(7)
            raise error

    with pytest.raises(error):
        fails()
    screen = Screen(60)
    screen.feed(file.getvalue())
    assert (screen.shown, screen.cursor) == ([], True)
    assert (sys.stdout, sys.stderr) == before


def test_the_last_state_stays(
    emulator: Emulator, tmp_path: Path, open_terminal: Callable[..., Shown]
) -> None:
    """After `finish_progress` the sums and the failures are shown once, without open batches."""
    shown = open_terminal(100)
    shown.start(middle(emulator, tmp_path, 1, 2))
    shown.display.finish_progress()
    shown.display.finish_progress()
    lines = shown.look()
    assert [line.split()[0] for line in lines] == [
        "Requests",
        "Outcomes",
        "Batches",
        "Cost",
        "Time",
        "Failed",
        "1",
    ]
    assert shown.screen.cursor


@pytest.mark.parametrize(
    "variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {}]
)
def test_without_a_terminal_there_are_lines(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """In a pipe, with TERM=dumb, NO_COLOR or a log with colours, there are plain lines.

    They have no codes, and one of them is what a callback reported.
    """
    seen = middle(emulator, tmp_path, 1, 2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = StringIO()
    console = Console(
        file=file,
        width=80,
        force_terminal=True if {"TERM", "NO_COLOR"} & variables.keys() else None,
    )
    display = RichBatchProgressDisplay(console)
    display.start_progress()
    display.update_progress(*seen)
    display.finish_progress()
    (line,) = file.getvalue().splitlines()
    assert "\x1b" not in line
    assert "4 of 12 requests landed, 2 succeeded, " in line
    assert "2 open batches" in line
    with for_console(console) as progress:
        assert isinstance(progress, LineProgress)


def test_a_second_display_prints_lines_above_the_first(open_terminal: Callable[..., Shown]) -> None:
    """If two runs of a process share a terminal, the first is drawn.

    The second one's lines appear above.
    """
    first = open_terminal(60)
    first.display.start_progress()
    with for_console(first.console) as progress:
        progress.note("of the second")
        assert first.look()[0] == "of the second"
    first.display.finish_progress()
    first.look()
    assert first.screen.cursor


_NO_EFFECT = 10.0  # seconds
ASK = """
import fcntl, json, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from batchata_tasks import RichBatchProgressDisplay
display = RichBatchProgressDisplay()
display.update_progress(*json.loads(sys.argv[1]))
display.start_progress()
{body}
"""


def in_terminal(
    script: str, *words: str, keys: tuple[tuple[str, str], ...] = ()
) -> tuple[int, str, str]:
    """Run a script on a terminal of its own, and press each key once its text appears.

    A key that has no effect is pressed again, as people do: a signal right before a read is not
    noticed in it. Returns the exit code, all that the script wrote, and what it wrote after the
    cursor was last shown.
    """
    leader, follower = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with start("-c", script, *words, env=env, terminal=os.ttyname(follower)) as running:
        text, waiting, pressed = "", list(keys), ""
        give_up = time.monotonic() + PATIENCE
        while True:
            while not select([leader], [], [], _NO_EFFECT)[0]:
                assert time.monotonic() < give_up, text
                os.write(leader, pressed.encode())
            try:
                text += os.read(leader, 65536).decode(errors="replace")
            except OSError:  # the program has ended
                break
            if follower is not None:  # the program has the terminal by now
                follower = os.close(follower)
            if waiting and waiting[0][0] in text:
                pressed = waiting.pop(0)[1]
                os.write(leader, pressed.encode())
        os.close(leader)
        code = running.wait().returncode
    assert code is not None
    return code, text, text.rpartition("\x1b[?25h")[2]


@pytest.mark.parametrize(
    ("answer", "cancels"),
    [
        ("\r", True),
        ("yes\r", True),
        ("n\r", False),
        ("what\r", False),
        ("\x03", False),
        ("\x04", False),
    ],
)
def test_a_person_is_asked_once(
    emulator: Emulator, tmp_path: Path, answer: str, cancels: bool
) -> None:
    """Enter and yes cancel; anything else, Ctrl-C and Ctrl-D leave the batches.

    The next step is reported.
    """
    seen = middle(emulator, tmp_path, 1, 2)
    body = (
        "found = display.handle_cancellation()\ndisplay.finish_progress()\nprint('cancels', found)"
    )
    code, text, _ = in_terminal(ASK.format(body=body), json.dumps(seen), keys=(("[Y/n]", answer),))
    assert code == 0, text
    assert text.count("Cancel the 2 open batches and land what ran?") == 1
    assert f"cancels {cancels}" in text
    told = (
        "Cancelling 2 open batches; what ran is landed."
        if cancels
        else "2 open batches will go on at the provider, to be landed by the next run."
    )
    assert told in text
    assert text.count("\x1b[?25l") <= text.count("\x1b[?25h")


def test_nobody_is_asked_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a person, or without an open batch, the answer is yes."""
    display = RichBatchProgressDisplay()
    assert display.handle_cancellation()
    assert "Nothing is at the provider" in capsys.readouterr().err


def test_a_program_that_dies_restores_the_terminal(emulator: Emulator, tmp_path: Path) -> None:
    """An uncaught exception leaves its whole traceback and a cursor."""
    code, text, left = in_terminal(
        ASK.format(body="raise RuntimeError('oh')"), json.dumps(middle(emulator, tmp_path, 1, 2))
    )
    assert code == 1
    assert "RuntimeError: oh" in text
    assert "\x1b[?25l" in text
    assert "\x1b[?25l" not in left


RUN = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from batchata_tasks import Batch
batch = Batch(sys.argv[1], items_per_batch=2)
batch.set_default_params(model="claude-haiku-5-5", max_tokens=50)
for number in range(4):
    batch.add_job(prompt=f"text {number}", id=str(number))
run = batch.run(print_status=True)
print("ended as", run.receipt.result)
"""


def test_ctrl_c_in_a_run_that_is_shown(emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C asks; Enter cancels what is open.

    The display continues until all has landed, and its last state stays.
    """
    with open_batches(emulator):
        code, text, left = in_terminal(
            RUN, str(tmp_path / "out"), keys=(("2 running", "\x03"), ("[Y/n]", "\r"))
        )
    assert code == 0, text
    assert "ended as cancelled" in left
    assert "Outcomes  4 canceled" in re.sub(CODES, "", left)


def test_a_display_that_could_not_start_gives_way(open_terminal: Callable[..., Shown]) -> None:
    """One whose terminal is gone raises, and leaves the terminal to the next one."""
    streams = (sys.stdout, sys.stderr)
    gone = Console(file=ClosedTerminal(), force_terminal=True, width=80, height=24)
    with pytest.raises(ValueError, match="closed file"):
        RichBatchProgressDisplay(gone).start_progress()
    assert (sys.stdout, sys.stderr) == streams
    shown = open_terminal(80)
    shown.start((Snapshot().stats(), 0.0, {}))
    assert shown.screen.shown == ["Time      0:00, planning"]


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_are_worded_for_whoever_reads_them(*, terminal: bool) -> None:
    """As lines and above a display alike; a command says so how its spec was named."""
    file = StringIO()
    console = Console(file=file, force_terminal=terminal, width=60, height=20)
    with for_console(console, worded=lambda text: text.replace("SPEC", "a.yaml")) as progress:
        progress.note("see SPEC")
    assert "see a.yaml" in file.getvalue()
