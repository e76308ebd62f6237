"""An emulator for the length of a `with` block: in a thread, or in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.emulator.control.client import ControlClient
from batchata_tasks.emulator.core.clock import Pace

if TYPE_CHECKING:
    import socket
    from types import TracebackType
    from typing import Self

    import uvicorn

    from batchata_tasks.emulator.core.clock import Mode

KEY = "emulator-key"
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0
_TICK = 0.005


class EmulatorError(RuntimeError):
    """The emulator did not start."""


class _Running:
    """What a running emulator offers, in a thread or in a process.

    `port` 0 takes a free one. An `anonymous` one does not say that it is an emulator.
    """

    def __init__(
        self, mode: Mode = "immediate", n: float = 0.0, *, port: int = 0, anonymous: bool = False
    ) -> None:
        self._pace = Pace(mode, n)
        self._port, self._anonymous = port, anonymous
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The root URL."""
        if self._url is None:
            message = "the emulator is not running"
            raise EmulatorError(message)
        return self._url

    @property
    def anthropic_url(self) -> str:
        """The value for `ANTHROPIC_BASE_URL`."""
        return f"{self.url}/anthropic"

    @property
    def openai_url(self) -> str:
        """The value for `OPENAI_BASE_URL`."""
        return f"{self.url}/openai/v1"

    @property
    def control(self) -> ControlClient:
        """The client that sets faults, progress and clock."""
        return ControlClient(self.url)

    def env(self) -> dict[str, str]:
        """Return the variables that point both SDKs at this emulator."""
        return {
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": KEY,
        }

    def start(self) -> Self:
        """Start, and return when calls are answered."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop; later calls cannot connect."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Emulator(_Running):
    """An emulator in a daemon thread of this process."""

    def __init__(
        self, mode: Mode = "immediate", n: float = 0.0, *, port: int = 0, anonymous: bool = False
    ) -> None:
        super().__init__(mode, n, port=port, anonymous=anonymous)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None

    def start(self) -> Self:
        """Start, and return when calls are answered."""
        # Imported here, because `python -m ...server` must not find its module imported already.
        from batchata_tasks.emulator.server import build, listen, url_of  # noqa: PLC0415 - above

        listener, server = listen(self._port), build(self._pace, anonymous=self._anonymous)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="emulator", daemon=True
        )
        thread.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                listener.close()
                message = "the emulator did not start"
                raise EmulatorError(message)
            time.sleep(_TICK)
        self._url = url_of(listener)
        self._server = server
        self._thread = thread
        self._listener = listener
        return self

    def stop(self) -> None:
        """Stop; calls after this are refused connections."""
        if self._server is None or self._thread is None or self._listener is None:
            return
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT)
        self._listener.close()
        self._server = self._thread = self._listener = self._url = None


class EmulatorProcess(_Running):
    """An emulator in a process of its own, which ends when this process does."""

    def __init__(
        self, mode: Mode = "immediate", n: float = 0.0, *, port: int = 0, anonymous: bool = False
    ) -> None:
        super().__init__(mode, n, port=port, anonymous=anonymous)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            message = "the emulator is not running"
            raise EmulatorError(message)
        return self._process.pid

    def start(self) -> Self:
        """Start, and return when calls are answered."""
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        pace = ["--mode", self._pace.mode, "--n", str(self._pace.n)]
        pace += ["--anonymous"] if self._anonymous else []
        module = "batchata_tasks.emulator.server"
        command = [sys.executable, "-m", module, "--port", str(self._port)]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*command, *pace, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line.startswith("http"):
            self.stop()
            message = "the emulator process did not start"
            raise EmulatorError(message)
        self._url = line.strip()
        return self

    def stop(self) -> None:
        """Stop; calls after this are refused connections."""
        if self._process is None:
            return
        with self._process as process:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
        self._process = self._url = None
