"""Starts the command line, or a script, often without importing it each time.

A process that has imported everything forks one child per start. The child is an ordinary process:
it has its own environment, runs the same code, and can be killed or stopped at any moment.

Importing everything takes seconds, so all processes that test share that process. It listens on a
socket in a folder of theirs, is started by whoever needs it first, and ends with its last user.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from runpy import run_module
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from tests.support.dialect import compile_all
from tests.support.money.verdicts import told
from tests.support.paths import ROOT
from tests.support.recovery.boundaries import armed
from tests.support.recovery.letting_go import lets_go
from tests.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_AT = "TEST_START_AT"  # a child that finds this in its environment waits until that time
FOLDER = "TEST_LAUNCHERS"  # the environment's name of the folder with the sockets
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
        self._one_at_a_time = threading.Lock()  # several threads may start and watch runs
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        folder = os.environ.get(FOLDER) or self._connection.enter_context(TemporaryDirectory())
        address = Path(folder) / f"launcher{'-prefect' if self._module else ''}"
        with address.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = _connected(address) or _started(address, self._module)
        self._connection.enter_context(connection)
        self._orders = self._connection.enter_context(connection.makefile("rw", encoding="utf-8"))
        assert self._order({"hello": 1}) == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

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
        # a tenth of a small run's time goes to reading all authorities; the tests' own are few
        few = {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
        order = {"start": arguments, "env": {**few, **env}, "cwd": str(cwd), **files}
        pid = self._order(order)
        return Run(pid, log, lambda: self._order({"poll": pid}))

    def _order(self, order: dict[str, Any]) -> Any:
        with self._one_at_a_time:
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
            return json.loads(self._orders.readline())


_STARTED: list[subprocess.Popen[bytes]] = []  # kept: others may use them for longer


def _connected(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


def _started(address: Path, module: str) -> socket.socket:
    address.unlink(missing_ok=True)
    # numpy's thread pool and Arrow's allocator would start threads, which a fork does not copy
    quiet = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    command = [sys.executable, "-m", "tests.support.launcher", str(address), module]
    environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT)}
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=nothing, stdout=nothing)
    _STARTED.append(process)

    def listens() -> socket.socket | None:
        assert process.poll() is None, "the launcher did not start"
        return _connected(address)

    return until(listens)


def _serve(address: str) -> list[str] | None:
    """Answer orders until nobody is connected; in a child, return the arguments for it."""
    with (
        socket.socket(socket.AF_UNIX) as listener,
        selectors.DefaultSelector() as users,
        ExitStack() as connections,
    ):
        listener.bind(address)
        listener.listen()
        users.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in users.select():
                if key.data is None:
                    user = connections.enter_context(listener.accept()[0])
                    orders = connections.enter_context(user.makefile("rw", encoding="utf-8"))
                    users.register(user, selectors.EVENT_READ, orders)
                elif line := key.data.readline():
                    order = json.loads(line)
                    answer = _answer(order)
                    if answer == 0 and "start" in order:
                        return _become(order)
                    key.data.write(json.dumps(answer) + "\n")
                    with suppress(BrokenPipeError):
                        key.data.flush()
                else:
                    users.unregister(key.fileobj)
            if len(users.get_map()) == 1:
                return None


def _answer(order: dict[str, Any]) -> Any:
    """Do what an order says; in the child of a fork, return 0."""
    if "start" in order:
        return os.fork()
    if "poll" in order:
        pid, status = os.waitpid(order["poll"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    threads = len(list(Path("/proc/self/task").iterdir()))
    return "ready" if threads == 1 else f"{threads} threads run, so a fork is not safe"


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
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
    _import_all()
    gc.collect()
    gc.freeze()  # a child that collected these objects would copy them all
    arguments = _serve(sys.argv[1])
    if arguments is None:
        return
    with ExitStack() as patches:
        armed(patches)
        lets_go(patches)
        told(patches)
        os._exit(_ended(lambda: _program(arguments)))


def _import_all() -> None:
    """Import all that a run imports on its way; none of it starts a thread.

    Not the command line itself: its consoles look at the environment as they are imported.
    """
    for name in (
        "anthropic",
        "encodings.idna",
        "httpx2",
        "openai",
        "opentelemetry.propagate",
        "pandas",  # which pyarrow imports at its first table
        "pyarrow.dataset",
        "rich.live",
        "rich.panel",
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
    if sys.argv[2]:
        import_module(sys.argv[2])
    import_module("batchata_tasks.pricing.lookup").published_rates("openai", "gpt-6-luna")
    import_module("batchata_tasks.planning.estimate")._tokenizer()
    httpx2.Client().close()
    compile_all(Path(sys.argv[1]).with_suffix(".db"))  # by `tempfile` it would fix its folder


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
