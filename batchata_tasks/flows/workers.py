"""The workers that do a flow run's heavy work, if it is not done in threads of its own process.

They are those of one of Prefect's task runners: processes of this machine, a Dask or a Ray cluster.
What is at stake stays here: the dataset's lease, the money, what is sent, the order in which rows
land. A worker makes files that this process puts to use. If one is lost, its work is done again.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from contextvars import copy_context
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import parent_process
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from batchata_tasks.common.errors import BatchataError, InputError, SpecError
from batchata_tasks.execution.contexts import context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prefect import Task
    from prefect.task_runners import TaskRunner

    from batchata_tasks.common.settings import TaskRunner as Kind
    from batchata_tasks.execution.run_ref import RunRef

T = TypeVar("T")

_TICK = 0.2  # seconds between looks whether the run is left
_CLOSING = 60.0  # seconds for which workers are waited for that are to end
_MOST_LOST = 3  # times that workers are lost, until this process does the rest by itself
_PACKAGES: dict[str, str] = {"dask": "prefect_dask", "ray": "prefect_ray"}


def require_installed(kind: Kind) -> None:
    """Refuse a task runner whose package is not installed.

    Raises:
        SpecError: it is not.
    """
    package = _PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        message = (
            f"BATCHATA_TASK_RUNNER: {kind} needs a package that is not installed; run "
            f"`pip install 'batchata-flows[{kind}]'`, or set it to thread or process."
        )
        raise SpecError(message)


class Workers:
    """The workers of one flow run: of `kind`, unless its flow has a task runner of its own.

    They are started when the first of their work is there, and end when this is closed.
    """

    def __init__(self, kind: Kind) -> None:
        self._given = _runner_of_flow()
        self._name: str = kind if self._given is None else self._given.name
        if self._given is None:
            require_installed(kind)
        self._own: _Kept | None = None
        self._lock, self._submitting = threading.Lock(), threading.Lock()
        self._lost = 0

    @property
    def are_elsewhere(self) -> bool:
        """Whether work is done by other processes than this one."""
        return self._given is not None or self._name in _MAKERS

    def close(self) -> None:
        """End them, if they are this flow run's own."""
        with self._lock:
            self._close()

    def do(self, task: Task[Any, T], parameters: dict[str, Any], here: Callable[[], T]) -> T:
        """Return what a task returns on a worker, or what `here` returns if workers are lost.

        Raises:
            BatchataError: what the task raises.
            InputError: likewise; its text says that a worker raised it.
            InterruptedRunError, LeaseError: the run is to end, and does not wait for its workers.
        """
        ref: RunRef = parameters["ref"]
        if self._lost >= _MOST_LOST:
            return here()
        runner = self._runner()
        try:
            # one at a time: Dask's makes its cluster in the first, or one in each thread
            with self._submitting, _server_named():
                future = runner.submit(task, parameters)
            return _result(future, ref)
        except InputError as error:
            message = f"on a worker ({self._name}): {error}"
            raise type(error)(message) from error
        except BatchataError:
            raise
        except Exception as error:  # noqa: BLE001 - each runner has its own for a lost worker
            self._note_lost(runner, error, ref)
            return here()

    def _runner(self) -> TaskRunner[Any]:
        """Return the task runner, which runs."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._own is None:
                self._own = _Kept(_MAKERS[self._name], self._name)
            return self._own.runner

    def _note_lost(self, runner: TaskRunner[Any], error: Exception, ref: RunRef) -> None:
        """Count that workers were lost, and let others be started for what comes."""
        with self._lock:
            if self._given is None and (self._own is None or runner is not self._own.runner):
                return  # the same loss, of which another thread has told
            self._lost += 1
            self._close()
        rest = "this process does the rest" if self._lost >= _MOST_LOST else "it is done again"
        context_of(ref).log(
            f"a worker ({self._name}) was lost at its work ({type(error).__name__}): {rest}."
        )

    def _close(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.close()


class _Kept:
    """A task runner that a thread of its own starts and ends, and lives as long as it.

    Ray's processes end with the thread that started them, and in the main thread Ray would take the
    signals over from the run.
    """

    def __init__(self, make: Callable[[], TaskRunner[Any]], name: str) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(make,), name=name, daemon=True)
        started: SimpleQueue[TaskRunner[Any] | Exception] = SimpleQueue()
        self._started = started
        self._thread.start()
        runner = started.get()
        if isinstance(runner, Exception):
            message = (
                f"BATCHATA_TASK_RUNNER: the workers of {name} cannot be started or reached "
                f"({type(runner).__name__}: {runner}); nothing was given to them."
            )
            raise SpecError(message) from runner
        self.runner = runner

    def _keep(self, make: Callable[[], TaskRunner[Any]]) -> None:
        try:
            with make() as runner:
                self._started.put(runner)
                self._over.wait()
        except Exception as error:  # noqa: BLE001 - of a cluster that cannot be reached, or is gone
            self._started.put(error)

    def close(self) -> None:
        """End the task runner, and wait for that, but not for ever."""
        self._over.set()
        self._thread.join(_CLOSING)


@contextmanager
def _server_named() -> Generator[None, None, None]:
    """Let tasks that are submitted meanwhile report to this process's server, if it is temporary.

    Otherwise each worker would start another one, which takes it long.
    """
    if get_current_settings().api.url is not None:
        yield
        return
    with get_client(sync_client=True) as client:
        url = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: url}):
        yield


def _result(future: Any, ref: RunRef) -> Any:
    """Wait for a task on a worker, unless the run is to end.

    In a thread, since Dask's futures cannot be asked with a short timeout.
    """
    ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def wait() -> None:
        try:
            ended.put((future.result(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            ended.put((None, error))

    threading.Thread(target=copy_context().run, args=(wait,), name="worker", daemon=True).start()
    while True:
        try:
            value, error = ended.get(timeout=_TICK)
        except Empty:
            context_of(ref).raise_if_left()
            continue
        if error is not None:
            raise error
        return value


def _runner_of_flow() -> TaskRunner[Any] | None:
    """Return the task runner that this flow was given, as by `with_options`; None for threads."""
    context = FlowRunContext.get()
    runner = None if context is None else context.task_runner
    return None if isinstance(runner, ThreadPoolTaskRunner) else runner


def _process_pool() -> TaskRunner[Any]:
    return ProcessPoolTaskRunner(initializer=_live_with_parent)


def _live_with_parent() -> None:
    """Let a process of the pool end with the one that started it, however that ends.

    Ctrl-C at a terminal reaches both: this one leaves to its parent what becomes of that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


def _dask() -> TaskRunner[Any]:
    """Return Dask's: the cluster that DASK_SCHEDULER_ADDRESS names, or one of this machine."""
    address = import_module("dask").config.get("scheduler-address", None)
    runner = import_module(_PACKAGES["dask"]).DaskTaskRunner
    if address is not None:
        return runner(address=address)
    # one thread each: Python's own work in two would take turns
    local = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    return runner(cluster_kwargs=local)


def _ray() -> TaskRunner[Any]:
    """Return Ray's: the cluster that RAY_ADDRESS names, or one of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray tells of lost workers on the standard output, where a receipt in JSON may be expected
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    options = {"log_to_driver": False, "logging_level": "error"}
    if not os.environ.get("RAY_ADDRESS"):
        options["include_dashboard"] = False
    return import_module(_PACKAGES["ray"]).RayTaskRunner(init_kwargs=options)


_MAKERS: dict[str, Callable[[], TaskRunner[Any]]] = {
    "process": _process_pool,
    "dask": _dask,
    "ray": _ray,
}
