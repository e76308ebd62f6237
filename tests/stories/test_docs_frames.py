"""The code in docs/frames.md runs as printed, from top to bottom."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from batchata_tasks.emulator import Emulator

TEXT = (ROOT / "docs/frames.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_blocks_run(
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Frames of two libraries, rows that are up to date, and a receipt that fits a screen."""
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("out"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, "docs/frames.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "not sent: beyond `limit`" in printed
    assert "5 up to date; to do: 15 new" in printed
    assert max(map(len, printed.splitlines())) < 160
