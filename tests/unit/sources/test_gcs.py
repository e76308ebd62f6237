"""Tables at gs://, read with Google's client from a stand-in."""

from __future__ import annotations

import gzip
import io
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.opening import open_source
from tests.support.gcs import Gcs, serving
from tests.support.rows import python_rows

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Generator[Gcs, None, None]:
    """A stand-in with a few tables in the bucket `b`."""
    with serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        stream = io.BytesIO()
        pq.write_table(pa.table({"id": ["1"]}), stream)
        for day in ("01", "02"):
            server.objects["b", f"in/day={day}/a b.parquet"] = stream.getvalue()
        server.objects["b", "t.csv"] = b"id\n1\n"
        server.objects["b", "t.jsonl.gz"] = gzip.compress(b'{"id": "1"}\n')
        yield server


def rows(url: str) -> list[dict[str, object]]:
    source = open_source(url)
    return list(python_rows(source.batches(source.names())))


@pytest.mark.usefixtures("gcs")
def test_tables_of_a_bucket_are_read() -> None:
    """Files, folders with partitions, patterns; compressed, and under both schemes."""
    for url in ("gs://b/t.csv", "gcs://b/t.csv", "gs://b/t.jsonl.gz"):
        assert rows(url) == [{"id": "1"}]
    for url in ("gs://b/in", "gs://b/in/", "gs://b/in/*/*.parquet"):
        assert rows(url) == [{"id": "1", "day": "01"}, {"id": "1", "day": "02"}]


@pytest.mark.usefixtures("gcs")
@pytest.mark.parametrize("url", ["gs://b/none.csv", "gs://none/t.csv", "gs://b/none/*.csv"])
def test_what_is_not_there_is_told(url: str) -> None:
    """The error is like that of a path."""
    with pytest.raises(SourceError, match="there is no file gs://"):
        rows(url)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (HTTPStatus.UNAUTHORIZED, "gs://b/t.csv cannot be read: Unauthorized, 401"),
        (HTTPStatus.FORBIDDEN, r"no file gs://b/t.csv \(or whoever runs this may not see it\)"),
    ],
)
def test_a_refusal_is_told(
    gcs: Gcs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: HTTPStatus,
    told: str,
) -> None:
    """In one sentence, and nothing else is shown."""
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    gcs.refuses = status
    with pytest.raises(SourceError, match=told):
        rows("gs://b/t.csv")
    assert capsys.readouterr().err == ""
