"""How a CSV file is written, found out from its bytes."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.csv_sniffing import sniff_csv

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = [
    ("id,text\n1,a\n2,b\n", ",", "utf-8", "utf-8"),
    ("id,text\n1,ä\n", ",", "utf-8-sig", "utf-8"),
    ("id;price\n1;1,50\n2;2,25\n", ";", "utf-8", "utf-8"),
    ('id;text\n1;"a;b\n, ü"\n2;c\n', ";", "cp1252", "cp1252"),
    ("id\ttext\n1\ta, b\n", "\t", "utf-16", "utf-16"),
    ("id|text\n1|a; b\n", "|", "utf-16-le", "utf-16-le"),
    ("id,text\n1,a\n", ",", "utf-16-be", "utf-16-be"),
    ("id,text\n1,\x81\n", ",", "latin-1", "latin-1"),
    ("text\na, b\nc\n", ",", "utf-8", "utf-8"),
    ("text\n", ",", "utf-8", "utf-8"),
    ("", ",", "utf-8", "utf-8"),
    ('a,b,c;d\n1,2,"x;y"\n1,2,z\n', ",", "utf-8", "utf-8"),
    ("id,text\n" + "1,a;b;c\n" * 200_000 + "1,ä\n", ",", "cp1252", "cp1252"),
]


@pytest.mark.parametrize(("text", "delimiter", "encoding", "found"), WRITTEN)
@pytest.mark.parametrize("compressed", [False, True])
def test_delimiter_and_encoding(
    text: str, delimiter: str, encoding: str, found: str, tmp_path: Path, *, compressed: bool
) -> None:
    """The delimiter by which rows are as wide as the header, and an encoding that reads all."""
    written = text.encode(encoding)
    path = tmp_path / ("t.csv.gz" if compressed else "t.csv")
    path.write_bytes(gzip.compress(written) if compressed else written)
    form = sniff_csv(str(path))
    assert form is not None
    assert (form.delimiter_in(".csv"), form.encoding) == (delimiter, found)


def test_other_sources_are_written_in_no_way(tmp_path: Path) -> None:
    """Only CSV files are looked at; a source that does not exist is told as such."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    assert sniff_csv(str(path)) is None
    assert sniff_csv(str(tmp_path)) is None
    with pytest.raises(SourceError, match="there is no file"):
        sniff_csv(str(tmp_path / "gone.csv"))
