"""The passes of `batchata watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.cli import passes as module
from batchata_tasks.common.errors import TransientError
from batchata_tasks.operations.watch import WatchReport
from batchata_tasks.progress.listener import LineProgress

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_it_goes_on_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that fails is told, and the next one tries again; only the first one's error ends it.

    Else a wrong setting would be told every minute, and a database that is restarted end it.
    """
    told, seen = list[str](), WatchReport(batches=1)
    answers: Iterator[WatchReport | Exception] = iter(
        [seen, TransientError("away."), seen, TransientError("away.")]
    )

    def look(*_: object, **__: object) -> WatchReport:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "watch", look)
    monkeypatch.setattr(module, "_EVERY", 0.0)
    passes = module.passes(600, LineProgress(told.append), once=False)
    assert [next(passes), next(passes)] == [seen, seen]
    assert told == ["away."]
    with pytest.raises(TransientError):
        next(module.passes(600, LineProgress(told.append), once=True))
