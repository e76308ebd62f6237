"""The guard's verdicts, call by call, in a file: a killed run leaves it too.

Only the launcher's child reads `VERDICTS`; the program under test does not know it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from batchata_tasks.pipeline import scheduler

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

# the file; one line a verdict: "send", "wait", ..., and "cut" if the chunk was made smaller
VERDICTS = "TEST_VERDICTS"


def told(patches: ExitStack) -> None:
    """Let this process write its guard's verdicts to a file, if its environment names one."""
    if (path := os.environ.pop(VERDICTS, None)) is not None:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        patches.enter_context(patch.object(scheduler, "guard", _telling(scheduler.guard, target)))


def _telling(guard: Callable[..., Any], target: int) -> Callable[..., Any]:
    def telling(ledger: Any, lease: Any, chunk: Any, *rest: Any, **named: Any) -> Any:
        verdict, head = guard(ledger, lease, chunk, *rest, **named)
        os.write(target, f"{verdict.value}{' cut' if head.stop != chunk.stop else ''}\n".encode())
        return verdict, head

    return telling
