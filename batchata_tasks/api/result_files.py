"""Result files: the result of each job as a JSON file of its own, for programs that read those."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchata_tasks.api.results import asked_of, landed_results, results_in_part
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import durable, storage_errors
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.dataset.raw_files import result_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from batchata_tasks.api.job_result import JobResult
    from batchata_tasks.api.results import Asked
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.spec.jobs import JobsSpec


class ResultFiles:
    """Writes `<results_dir>/<job_id>.json` of the jobs of a batch that have landed."""

    def __init__(self, spec: JobsSpec, *, rehearsal: bool) -> None:
        self._spec, self._rehearsal = spec, rehearsal
        self._folder = DatasetFolder(spec.output)

    @cached_property
    def _asked(self) -> Asked:
        return asked_of(self._spec, rehearsal=self._rehearsal)

    def with_files(
        self, collect: Callable[[RunRef, str], dict[str, Any]]
    ) -> Callable[[RunRef, str], dict[str, Any]]:
        """Return a collect step that writes the files of what landed, too."""

        def collected(ref: RunRef, chunk_id: str) -> dict[str, Any]:
            value = collect(ref, chunk_id)
            self._write(results_in_part(self._spec, self._asked, part_of_chunk(chunk_id)))
            return value

        return collected

    def complete(self) -> None:
        """Write those that are lacking, or that say something else than the dataset."""
        self._write(landed_results(self._spec, rehearsal=self._rehearsal).values())

    def _write(self, results: Iterable[JobResult]) -> None:
        for result in results:
            path, content = result_file(self._folder, result.job_id), _content(result)
            with storage_errors(f"writing {path.name}"):
                if path.exists() and path.read_bytes() == content:
                    continue
                with durable(path) as stream:
                    stream.write(content)


def require_own_files(folder: DatasetFolder, job_ids: Iterable[str], state: Path | None) -> None:
    """Refuse a state file that is the result file of a job, too.

    Raises:
        SpecError: with the remedy.
    """
    if state is None or state.parent.resolve() != folder.root.resolve():
        return
    for job_id in job_ids:
        if result_file(folder, job_id).name == state.name:
            message = (
                f"job {job_id!r:.80}: its result file would be the state file, {state}; name "
                "another state file."
            )
            raise SpecError(message)


def _content(result: JobResult) -> bytes:
    try:
        values = result.to_dict()
    except (ValueError, TypeError):  # a serializer of the response model's own
        values = replace(result, parsed_response=None).to_dict()
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str)
    return f"{text}\n".encode()
