"""The command line and scripts as people start them: processes that print and exit."""

from __future__ import annotations

import atexit
import os
import time
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from tests.support.launcher import START_AT, Launcher
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from tests.support.launcher import Run

_NUMBERS = count()


class Process:
    """A program that runs, and what it printed so far."""

    def __init__(self, run: Run, errors: Path) -> None:
        self._run, self._errors = run, errors
        self.pid = run.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._run.poll()

    @property
    def stdout(self) -> str:
        return self._run.text()

    @property
    def stderr(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        self._run.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> Self:
        """Wait until it has ended; after `timeout` seconds kill it and raise TimeoutError."""
        self._run.wait(timeout)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.kill()


def start(
    *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, terminal: str = ""
) -> Process:
    """Start `batchata words`, or `python words` if they begin with "-c" or "-m".

    `terminal` is a device's path.
    """
    environment = {**os.environ, "COLUMNS": "160", **(env or {})}
    launcher, folder = _launcher(prefect="PREFECT_API_URL" in environment)
    name = folder / str(next(_NUMBERS))
    log, errors = name.with_suffix(".out"), name.with_suffix(".err")
    for file in (log, errors):
        file.touch()
    if terminal:
        log = errors = Path(terminal)
    return Process(launcher.start(list(words), environment, cwd, log, errors=errors), errors)


def batchata(
    *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = PATIENCE
) -> Process:
    """Run `batchata words` to its end."""
    return start(*words, cwd=cwd, env=env).wait(timeout)


def python(
    code: str,
    *words: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> Process:
    """Run `python -c code words` to its end."""
    return start("-c", code, *words, cwd=cwd, env=env).wait(timeout)


def python_at_once(codes: list[str]) -> list[Process]:
    """Run each code in a process of its own, all of them from one moment on, to their ends."""
    moment = {START_AT: str(time.time() + 0.3)}
    processes = [start("-c", code, env=moment) for code in codes]
    return [process.wait() for process in processes]


@cache
def _launcher(*, prefect: bool) -> tuple[Launcher, Path]:
    folder = TemporaryDirectory()
    launcher = Launcher(prefect=prefect).__enter__()
    atexit.register(folder.cleanup)
    atexit.register(launcher.__exit__)
    return launcher, Path(folder.name)
