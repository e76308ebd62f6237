"""Starts the command line, or a script, often without importing it each time.

A process that has imported everything forks one child per start. The child is an ordinary process:
it has its own environment, runs the same code, and can be killed or stopped at any moment.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from runpy import run_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import httpx2
from bpe_openai import get_encoding

from batchata_tasks.pricing.lookup import published_rates
from tests.support.money.verdicts import told
from tests.support.paths import ROOT
from tests.support.recovery.boundaries import armed
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_AT = "TEST_START_AT"  # a child that finds this in its environment waits until that time
PREFECT = "batchata_tasks.flows.runner"
_TICK = 0.005


class Run:
    """One start of the command line; its output goes to `log`."""

    def __init__(self, pid: int, log: Path, poll: Callable[[], int | None]) -> None:
        self.pid, self.log = pid, log
        self._poll, self._code = poll, None

    def poll(self) -> int | None:
        """Return the exit code once it has ended, negative if a signal ended it."""
        if self._code is None:
            self._code: int | None = self._poll()
        return self._code

    def wait(self, timeout: float = PATIENCE) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                message = f"the run did not end within {timeout} s; it said:\n{self.text()}"
                raise TimeoutError(message)
            time.sleep(_TICK)
        return code

    def kill(self) -> int:
        """Kill it without warning; return how it ended, which may have been before."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    def halt(self) -> None:
        """Suspend it at once, as a machine does."""
        self.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # it is our child, not reaped: the number cannot be another's
            os.kill(self.pid, number)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Launcher:
    """Starts runs, by fork or (`command=True`) as the real command.

    With `prefect`, runs may be flows: it takes longer to start, and each run a little longer.
    """

    def __init__(self, *, prefect: bool = False) -> None:
        self._module = PREFECT if prefect else ""
        self._server: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()  # several threads may start and watch runs

    def __enter__(self) -> Self:
        # numpy's thread pool and Arrow's allocator would start threads, which a fork does not copy
        quiet = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launcher", self._module],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._order({"hello": 1}) == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        with self._server as server:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(10)

    def start(
        self,
        arguments: list[str],
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        *,
        errors: Path | None = None,
        command: bool = False,
    ) -> Run:
        """Start `batchata arguments`, or `python arguments` if they begin with "-c" or "-m".

        Its stdout goes to `log`, its stderr to `errors` (default: also to `log`). A `log` that is a
        terminal is its stdin too.
        """
        if command:
            words = [sys.executable, "-m", "batchata_tasks.cli", *arguments]
            with log.open("w", encoding="utf-8") as stream:
                process = subprocess.Popen(
                    words, cwd=cwd, env=dict(env), stdout=stream, stderr=stream
                )
            return Run(process.pid, log, process.poll)
        files = {"log": str(log), "errors": str(errors or log)}
        pid = self._order({"start": arguments, "env": dict(env), "cwd": str(cwd), **files})
        return Run(pid, log, lambda: self._order({"poll": pid}))

    def _order(self, order: dict[str, Any]) -> Any:
        server = self._server
        assert server is not None
        assert server.stdin is not None
        assert server.stdout is not None
        with self._one_at_a_time:
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())


def _serve() -> list[str] | None:
    """Answer orders until stdin ends; in a child, return the arguments it is to run with."""
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            sys.stdout.flush()
            answer: Any = os.fork()
            if answer == 0:
                return _become(order)
        elif "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            threads = len(list(Path("/proc/self/task").iterdir()))
            answer = "ready" if threads == 1 else f"{threads} threads run, so a fork is not safe"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def _become(order: dict[str, Any]) -> list[str]:
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    os.setsid()  # a terminal that is opened next is its own: keys reach it as signals
    output = _opened(order["log"])
    errors = output if order["errors"] == order["log"] else _opened(order["errors"])
    terminal = os.isatty(output)
    nothing = output if terminal else os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (errors, 2)):
        os.dup2(source, target)
    if PREFECT in sys.modules:
        _configure_prefect(order["start"])
    time.sleep(max(0.0, float(os.environ.pop(START_AT, "0")) - time.time()))
    return order["start"]


def _configure_prefect(arguments: list[str]) -> None:
    """Let Prefect read its settings again: it read those of the launcher when it was imported."""
    if arguments[0] == "run":
        import_module("batchata_tasks.cli.running").quiet_prefect()
    import_module("prefect.context").refresh_global_settings_context()
    logging = import_module("prefect.logging.configuration")
    logging.PROCESS_LOGGING_CONFIG.clear()
    logging.setup_logging()


def _opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)


def _main() -> None:
    # a shell that starts the tests in the background has it ignored, and children would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _import_all()
    gc.collect()
    gc.freeze()  # a child that collected these objects would copy them all
    arguments = _serve()
    if arguments is None:
        return
    with ExitStack() as patches:
        armed(patches)
        told(patches)
        os._exit(_ended(lambda: _program(arguments)))


def _import_all() -> None:
    """Import all that a run imports on its way; none of it starts a thread.

    Not the command line itself: its consoles look at the environment as they are imported.
    """
    for name in (
        "anthropic",
        "bpe_openai",
        "httpx2",
        "openai",
        "opentelemetry.propagate",
        "pandas",  # which pyarrow imports at its first table
        "pyarrow.dataset",
        "sqlalchemy.dialects.sqlite",
        "rich.live",
        "rich.progress",
        "rich.table",
        "typer",
        "yaml",
        "batchata_tasks.pipeline.runner",
        "batchata_tasks.providers.anthropic.adapter",
        "batchata_tasks.providers.openai.chat",
        "batchata_tasks.progress.display",
        "batchata_tasks.reports.plan",
    ):
        import_module(name)
    if sys.argv[1]:
        import_module(sys.argv[1])
    published_rates("openai", "gpt-6-luna")
    get_encoding("o200k_base")
    httpx2.Client().close()


def _program(arguments: list[str]) -> None:
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        return
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = ["batchata", *arguments]
    import_module("batchata_tasks.cli.main").main()


def _ended(program: Callable[[], None]) -> int:
    """Run a program as the interpreter does, up to its exit code.

    The interpreter is not shut down: that would take as long as the run.
    """
    try:
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter says it
        traceback.print_exc()
        code = 1
    threading._shutdown()  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _main()
