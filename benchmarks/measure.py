"""Measure child processes: wall time, CPU time and peak memory, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # importers of this module can then import this checkout's package
    sys.path.insert(0, str(ROOT))
TIMEOUT = 900.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that one process used."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: float  # memory in MB (10^6 bytes)


class ChildError(RuntimeError):
    """A measured process failed or took too long."""


def measured(command: Sequence[str], env: Mapping[str, str], folder: Path) -> Usage:
    """Run a Python command (the words after `python`) to its end in `folder`; return its usage.

    The child's figures come from `wait4`, so they do not include other processes (the emulator). A
    small process in between starts the child and waits for it, because the peak that Linux reports
    begins with the size of the process that forked. The output goes to a file in `folder` and is
    shown only if the child fails; a child that takes over 15 minutes is killed.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    log = folder / "child.log"
    launcher = [sys.executable, str(Path(__file__)), str(log), sys.executable, *command]
    done = subprocess.run(
        launcher,
        cwd=folder,
        env={**os.environ, **env, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT + 60,
        check=True,
    )
    code, wall, cpu, peak = json.loads(done.stdout)
    if code:
        output = log.read_text(errors="replace")[-2000:]
        message = f"{' '.join(command[:3])} ended with {code}:\n{output}"
        raise ChildError(message)
    return Usage(wall, cpu, peak)


def _launch(log: Path, command: Sequence[str]) -> tuple[int, float, float, float]:
    """Run a command; return its exit code, its wall and CPU seconds and its peak memory in MB."""
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=output)
        killer = threading.Timer(TIMEOUT, child.kill)
        killer.daemon = True
        killer.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        killer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return child.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def cpu_of(pid: int) -> float:
    """Return the CPU seconds (user and system) of a live process so far; 0 if /proc is missing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine() -> str:
    """Return the facts of the machine that affect the figures, but nothing that names it."""
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} cores, {sys.platform}, Python {version}"


if __name__ == "__main__":
    print(json.dumps(_launch(Path(sys.argv[1]), sys.argv[2:])))
