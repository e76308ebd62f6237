"""A run never reads what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.overlap import refuse_overlap

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a dataset `out`, a table, a folder of tables, and links."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "out/data/part-1.parquet",
        "rows/a.parquet",
        "rows/x/data/a.parquet",
        "t.csv",
        "linked/a.parquet",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "linked/b.parquet").symlink_to(tmp_path / "out/data/part-1.parquet")
    (tmp_path / "rows-link").symlink_to(tmp_path / "rows")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("out", "out"),
        ("out/data", "out"),
        ("out/data/", "./rows/../out/"),
        ("out/data/part-1.parquet", "out"),
        ("out/data/*.parquet", "out"),
        ("link/data", "out"),
        ("out/data", "link"),
        ("linked", "out"),
        ("linked/*.parquet", "out"),
        ("file://{root}/out/data", "out"),
        ("{root}/out/data", "out"),
        ("rows", "rows/out"),
        ("rows", "rows/deep/er/out"),
        ("rows-link", "rows/out"),
        ("rows/**/*.parquet", "rows/out"),
        ("rows/*/data/*.parquet", "rows/out"),
        ("*/*.parquet", "."),
        ("**/*.parquet", "new"),
        ("t.csv", "."),
    ],
)
def test_source_and_output_within_each_other_are_refused(
    root: Path, source: str, output: str
) -> None:
    """Both are named, before anything is written, also on the very first run."""
    source = source.format(root=root)
    with pytest.raises(SpecError, match=r"is within the (source|output) .*; name another") as e:
        refuse_overlap(source, root / output)
    assert source in str(e.value)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("t.csv", "out"),
        ("*.csv", "new"),
        ("rows", "out"),
        ("rows", "rows2"),
        ("rows/*.parquet", "rows/out"),
        ("rows-link", "out"),
        ("out/data", "second"),
        ("memory://out/data", "out"),
    ],
)
def test_those_beside_each_other_are_fine(root: Path, source: str, output: str) -> None:
    """A pattern that matches no file of the output may lie beside it; datasets may be sources."""
    refuse_overlap(source, root / output)
