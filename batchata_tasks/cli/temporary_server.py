"""Prefect's temporary server, which must not outlive the command that it was started for.

Prefect starts it if no server is configured, and ends it at a normal exit alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

# ends a process once the standard input does: when all that could write to it have died
_WATCH = """
import os, signal, sys
process = os.pidfd_open(int(sys.argv[1]))
sys.stdin.buffer.read()
signal.pidfd_send_signal(process, signal.SIGKILL)
"""
# kept, since the pipe to a watcher is to be closed by the end of this process alone
_WATCHERS: list[subprocess.Popen[bytes]] = []


def kill() -> bool:
    """Kill the server, if there is one; False if it is being started right now."""
    server = _server()
    if server is None:
        return True
    if server.server_process is None:
        return not server.running
    # at once, so that it does not print how its own shutdown went
    server.server_process.kill()
    return True


def end_with_this_process() -> None:
    """Let the server, which is running, end when this process does, also by a kill.

    A small process sees to that. It needs what Linux alone has: a handle on a process, since a
    number may have passed to another one.
    """
    server = _server()
    if server is None or server.server_process is None or not hasattr(os, "pidfd_open"):
        return
    pid = str(server.server_process.pid)
    with suppress(OSError):  # the run does not depend on it
        watcher = subprocess.Popen(  # noqa: S603 - all of its words are ours
            [sys.executable, "-I", "-S", "-c", _WATCH, pid],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        _WATCHERS.append(watcher)


def _server() -> Any:
    # nothing is imported in a handler, and an import may be half-way: then there is no server yet
    module = sys.modules.get("prefect.server.api.server")
    servers = getattr(module, "SubprocessASGIServer", None)
    return None if servers is None else servers()  # the only one
