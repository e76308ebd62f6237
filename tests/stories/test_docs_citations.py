"""The code in docs/citations.md runs as printed, and prints what the page says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    import pytest

TEXT = (ROOT / "docs/citations.md").read_text(encoding="utf-8")


def test_the_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """A corrected page, a date that cannot be told, and a number that the page does not have."""
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (printed,) = re.findall(r"^\n```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/citations.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == printed
