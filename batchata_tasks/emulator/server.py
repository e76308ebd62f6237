"""Serving an emulator in this process: `serve` for the command line, `main` for a subprocess."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from batchata_tasks.emulator.app import create_app
from batchata_tasks.emulator.core.clock import Pace
from batchata_tasks.emulator.core.state import Shared
from batchata_tasks.emulator.core.wire import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchata_tasks.emulator.core.clock import Mode
    from batchata_tasks.emulator.core.faults import Rule

LOOPBACK = "127.0.0.1"
SAYS = "x-batchata-emulator"
"""The header by which each answer says that an emulator made it."""
_GRACE = 1
_BACKLOG = 2_048


def listen(port: int = 0) -> socket.socket:
    """Listen on a port of the loopback interface, 0 for any free one.

    From here on connections are accepted: a call that comes before the server runs waits for it.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def build(pace: Pace, faults: Iterable[Rule] = (), *, anonymous: bool = False) -> uvicorn.Server:
    """Return a quiet server that is ready to run.

    Each of its answers says that an emulator answers, and which: of each start another one. An
    `anonymous` one keeps that to itself, so that it can play the real API.
    """
    shared = Shared(pace=pace)
    for rule in faults:
        shared.faults.add(rule)
    config = uvicorn.Config(
        create_app(shared),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        headers=[] if anonymous else [(SAYS, secrets.token_hex(8))],
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)


def serve(
    port: int = 0,
    *,
    mode: Mode = "seconds",
    n: float = 5.0,
    faults: Iterable[Rule] = (),
    on_ready: Callable[[str], None] | None = None,
    anonymous: bool = False,
) -> None:
    """Serve until interrupted; `on_ready` gets the URL once connections are accepted."""
    with listen(port) as listener:
        server = build(Pace(mode, n), faults, anonymous=anonymous)
        if on_ready is not None:
            on_ready(url_of(listener))
        # Ctrl-C is the normal way to end it, not an error.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a subprocess, which prints its URL first and can exit when its stdin is closed."""
    parser = argparse.ArgumentParser(prog="batchata_tasks.emulator.server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=("immediate", "reads", "seconds"), default="seconds")
    parser.add_argument("--n", type=float, default=5.0)
    parser.add_argument("--until-stdin-closes", action="store_true")
    parser.add_argument("--anonymous", action="store_true")
    given = parser.parse_args(arguments)
    if given.until_stdin_closes:
        threading.Thread(target=_exit_with_stdin, daemon=True).start()
    pace = {"mode": given.mode, "n": given.n}
    serve(given.port, **pace, on_ready=_announce, anonymous=given.anonymous)


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def _exit_with_stdin() -> None:
    sys.stdin.buffer.read()
    # The parent has ended or wants this process to end; there is nothing to save or to wait for.
    os._exit(0)


if __name__ == "__main__":
    main()
