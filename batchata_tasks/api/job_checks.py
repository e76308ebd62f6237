"""Checks of Jobs, each by itself and by its provider's rules, before anything is sent."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers import provider_type
from batchata_tasks.sources import documents
from batchata_tasks.spec.job_schemas import ResponseModels

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from batchata_tasks.providers import Adapter
    from batchata_tasks.spec.job import Job
    from batchata_tasks.types.document import Document

    FileState = tuple[int, ...]


def check_job(adapter: type[Adapter], job: Job, *, limited: bool) -> None:
    """Check a job by itself and by the rules of the adapter's provider.

    `limited` says whether a cost limit has to hold.

    Raises:
        SpecError: naming the job, the field and the remedy.
    """
    job.check()
    _check_by_rules(adapter, job, limited=limited)


def check_as_sent(adapter: type[Adapter], job: Job, *, limited: bool) -> Document | None:
    """Check a job that passed `Job.check` by its provider's rules.

    Return its document if it was read. A third-party provider may replace the rules: by its
    `validate_job`.

    Raises:
        SpecError: naming the job, the field and the remedy.
    """
    validate_job = getattr(adapter, "validate_job", None)
    if validate_job is None:
        return _check_by_rules(adapter, job, limited=limited)
    validate_job(job, limited=limited)
    with _naming(job):  # limits rest on these rules, whatever `validate_job` leaves out
        _check_model_and_params(adapter, job, limited=limited)
    return None


def _check_by_rules(adapter: type[Adapter], job: Job, *, limited: bool) -> Document | None:
    with _naming(job):
        serving = _check_model_and_params(adapter, job, limited=limited)
        serving.check_turns(job.turns())
        document = job.document()
        if document is not None and job.file is not None:
            serving.check_document(document, job.file, structured=job.response_model is not None)
        return document


def _check_model_and_params(adapter: type[Adapter], job: Job, *, limited: bool) -> type[Adapter]:
    """Check the fields on which bounds and prices rest; return the adapter to the endpoint."""
    serving = adapter
    if job.endpoint != adapter.endpoint_name:
        serving = provider_type(adapter.name, job.endpoint)
    serving.check_model(job.model, job.max_tokens)
    params = job.request(None).params
    serving.check_params(job.model, params, limited=limited)
    serving.check_cap(job.max_tokens, params)
    return serving


@contextmanager
def _naming(job: Job) -> Generator[None, None, None]:
    """Begin the message of a SpecError with the job's id."""
    try:
        yield
    except SpecError as error:
        message = f"job {job.id!r:.80}: {error}"
        raise SpecError(message) from None


@dataclass(frozen=True, slots=True)
class _Passed:
    """A job that passed its checks, and the facts on which they rested."""

    job: Job  # kept, so that its `id()` is no other job's
    limited: bool
    content: int
    file: FileState | None

    def still_holds(self, *, limited: bool) -> bool:
        """Whether nothing changed that the checks rested on."""
        strict_enough = self.limited or not limited
        same_file = self.file == _state_of(self.job.file)
        return strict_enough and same_file and self.content == _content(self.job)


class CheckedJobs:
    """Jobs that passed their checks: each is checked once, and its document read once for that.

    A job is checked again if anything changed that its checks rested on: its file, its turns, its
    parameters or its response model (they can be changed in place), or whether a cost limit holds.
    """

    def __init__(self) -> None:
        self.schemas = ResponseModels()
        self._passed: dict[int, _Passed] = {}
        self._digests: dict[Path, tuple[FileState | None, str]] = {}

    def check(self, job: Job, *, limited: bool) -> None:
        """Check a job, unless it passed as it is.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        passed = self._passed.get(id(job))
        if passed is not None and passed.still_holds(limited=limited):
            return
        job.check()
        content, file = _content(job), _state_of(job.file)
        _, schema = self.schemas.of(job)
        to = job.destination()
        adapter = provider_type(to.provider, to.endpoint)
        if schema is not None:
            adapter.check_schema(schema)
        document = check_as_sent(adapter, job, limited=limited)
        if document is not None and job.file is not None:
            self._digests[job.file] = file, document.sha256
        self._passed[id(job)] = _Passed(job, limited, content, file)

    def renamed(self, job: Job, job_id: str) -> Job:
        """Return a job that passed its checks under another id; that one has passed them, too."""
        named = replace(job, id=job_id)
        self._passed[id(named)] = replace(self._passed.pop(id(job)), job=named)
        return named

    def digest_of(self, file: Path) -> str:
        """Return the `sha256` of a file; it is not read if it is as it was when a job was checked.

        Raises:
            SpecError: it cannot be read.
        """
        state, sha256 = self._digests.get(file, (None, ""))
        now = _state_of(file)
        if state is None or state != now:
            sha256 = documents.digest_of(file)
            self._digests[file] = now, sha256
        return sha256


def _content(job: Job) -> int:
    """Return a number that changes with each part of a job that can be changed in place."""
    return hash(repr((job.messages, job.params, job.response_model)))


def _state_of(file: Path | None) -> FileState | None:
    """Return values of which one changes with each write to a file; None if there is no file."""
    if file is None:
        return None
    try:
        stat = file.stat()
    except OSError:
        return None  # the error is raised when it is read
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
