"""What is known of the documents of jobs that a dataset's folder keeps.

A job that was sent needs its document no more: its request is on disk, and its fingerprint has the
digest of the document as it was.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.errors import SourceError
from batchata_tasks.planning.job_store import JOB
from batchata_tasks.sources.opening import open_source
from batchata_tasks.spec.jobs import JOB_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.spec.job import Job


class StoredDocuments:
    """The digests of the documents of stored jobs; their files are read once somebody asks.

    `files` returns the files of the jobs; later ones count more.
    """

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._by_id: dict[tuple[str, str], str] = {}
        self._by_path: dict[str, str] = {}
        self._is_read = False

    @classmethod
    def of_folder(cls, folder: DatasetFolder) -> Self:
        """Return those of all jobs that a dataset's folder keeps."""

        def files() -> Iterable[Path]:
            return sorted(folder.jobs.glob("*.parquet"), key=lambda one: one.stat().st_mtime_ns)

        return cls(files)

    def digest_of(self, job: Job) -> str | None:
        """Return the `sha256` of a job's document as it was last stored; None if unknown.

        It is that of the same path: another file of its name may be another document.
        """
        if job.file is None:
            return None
        if not self._is_read:
            self._read()
        path = str(job.file.absolute())
        return self._by_id.get((job.id, path)) or self._by_path.get(path)

    def _read(self) -> None:
        for file in self._files():
            # one that is damaged is told where it is needed
            with suppress(SourceError):
                for job_id, path, sha256 in _documents(file):
                    self._by_id[job_id, path] = self._by_path[path] = sha256
        self._is_read = True


def _documents(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the id, path and digest of each job of a file that has a document."""
    for block in open_source(str(file)).batches([JOB_ID, JOB]):
        texts: Any = block.rows.column(JOB)
        # most jobs have none, and need not be parsed
        rows: pa.RecordBatch = block.rows.filter(pc.match_substring(texts, '"sha256":'))
        for job_id, text in zip(*(rows.column(n).to_pylist() for n in (JOB_ID, JOB)), strict=True):
            fields = orjson.loads(text)
            if "sha256" in fields:
                yield job_id, fields["file"], fields["sha256"]
