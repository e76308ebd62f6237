"""Deaths between two changes of files: what was not renamed or deleted before never is."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def dying_before(step: int) -> Iterator[list[str]]:
    """Die before the change of a file with this number, from 0, and let none follow.

    Yields the names of the files that were changed before. The death is a KeyboardInterrupt.
    """
    changed = list[str]()
    is_dead = False

    def instead(name: str) -> Any:
        real = getattr(Path, name)

        def change(self: Path, *args: Any, **options: Any) -> Any:
            nonlocal is_dead
            if is_dead:  # what cleans up after an error does not run in a killed process
                return None
            if len(changed) == step:
                is_dead = True
                raise KeyboardInterrupt
            changed.append(self.name)
            return real(self, *args, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, instead(name))
        yield changed
