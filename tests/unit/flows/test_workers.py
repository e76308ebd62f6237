"""Which workers a flow run has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.flows import workers

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_package_that_is_missing_is_named(
    kind: Literal["dask", "ray"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has the command that installs it."""
    monkeypatch.setattr(workers, "find_spec", lambda _name: None)
    with pytest.raises(SpecError, match=rf"pip install 'batchata-flows\[{kind}\]'"):
        workers.Workers(kind)


def test_threads_and_processes_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting, no work is done elsewhere."""
    monkeypatch.setattr(workers, "find_spec", lambda _name: None)
    kinds: Iterable[Literal["thread", "process"]] = ("thread", "process")
    assert [workers.Workers(kind).are_elsewhere for kind in kinds] == [False, True]
