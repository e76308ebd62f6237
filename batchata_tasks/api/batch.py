"""Batch: many requests, described job by job, and sent as provider batches at half price."""

from __future__ import annotations

import warnings
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from batchata_tasks.api.config import (
    BatchOptions,
    JobDefaults,
    Verbosity,
    checked_params,
    unknown_key,
)
from batchata_tasks.api.job_checks import CheckedJobs
from batchata_tasks.common.canonical import base32, canonical, digest
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.planning.job_list import JobList, facts_of
from batchata_tasks.spec.job import Job, is_job_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from batchata_tasks.api.run import BatchRun
    from batchata_tasks.planning.job_documents import StoredDocuments
    from batchata_tasks.schema.quotes import MinGrade

_ID_BYTES = 15
_DEFAULTS = frozenset(JobDefaults.__annotations__)


class Batch:
    """Requests that go to the providers as batches; each builder method returns the batch.

    Nothing is sent before `run`. Jobs whose answers are in `results_dir` are not sent again.

    Args:
        results_dir: folder of the results; default: that of the run which the state file names,
            or else `batch_results`.
        params: see BatchParams.

    Raises:
        SpecError: a value is invalid. All builder methods raise it, too.
    """

    def __init__(
        self, results_dir: str | Path | None = None, **params: Unpack[BatchOptions]
    ) -> None:
        place = {} if results_dir is None else {"results_dir": str(results_dir)}
        self.config = checked_params({**place, **params})
        self._jobs = JobList()
        self._ids: dict[str, int] = {}
        self._priced: set[tuple[str, str, bool]] = set()
        self._checked = CheckedJobs(self._stored_digest)
        self._stored: dict[tuple[str, str | None], StoredDocuments] = {}

    @property
    def jobs(self) -> JobList:
        """The jobs, in the order in which they were added; they may be changed like a list."""
        return self._jobs

    @jobs.setter
    def jobs(self, jobs: Iterable[Job]) -> None:
        self._jobs = JobList(list(jobs))  # forms of another batch name its own response models

    def set_state(self, file: str | Path, reuse_state: bool = True) -> Self:
        """Let a file name the run, so that a later process finds it; see StateManager.

        Without `reuse_state`, jobs that landed before are sent again. Open batches are never
        forgotten: the next run goes to the folder of the run that the file names, and a Batch that
        was given another folder is refused.
        """
        return self._set(state_file=str(file), reuse_state=reuse_state)

    def set_default_params(self, **kwargs: Unpack[JobDefaults]) -> Self:
        """Set fields, such as the model, of jobs that are added later and do not set them."""
        names = JobDefaults.__annotations__
        for name in kwargs:
            if name not in names:
                raise SpecError(unknown_key("set_default_params", name, names))
        return self._set(default_params={**self.config.default_params, **kwargs})

    def add_cost_limit(self, usd: float) -> Self:
        """Set a hard limit on what a run may spend, in US dollars."""
        return self._set(cost_limit_usd=usd)

    def add_time_limit(self, seconds: float = 0, minutes: float = 0, hours: float = 0) -> Self:
        """Set how long a run may take: then it cancels open batches, and lands what ran."""
        return self._set(time_limit_seconds=seconds + 60 * minutes + 3600 * hours)

    def set_verbosity(self, level: Verbosity | Literal["warn"]) -> Self:
        """Set what is printed while a run works; `warn` is `warning`."""
        return self._set(verbosity_level=level)

    def raw_files(self, enabled: bool = True) -> Self:
        """Keep what was sent and what came back, in files for people."""
        return self._set(raw_files=enabled)

    def result_files(self, enabled: bool = True) -> Self:
        """Write the result of each job to a JSON file of its own, as it lands."""
        return self._set(result_files=enabled)

    def add_job(
        self,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        prompt: str | None = None,
        model: str | None = None,
        file: str | Path | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_model: type[BaseModel] | dict[str, Any] | None = None,
        enable_citations: bool | None = None,
        min_grade: MinGrade | None = None,
        id: str | None = None,  # noqa: A002 - the fixed name in the API
        provider: str | None = None,
        endpoint: Literal["chat", "responses"] | None = None,
        params: dict[str, Any] | None = None,
    ) -> Self:
        """Add a request; see Job. Without an `id`, it is named by its content.

        Raises:
            SpecError: it is invalid; the message names the field and the remedy.
        """
        fields = self.config.default_params
        # most jobs have nothing of their own but an id and texts
        plain = model is temperature is max_tokens is response_model is enable_citations is None
        if not (plain and min_grade is provider is endpoint is params is None):
            # the signature is the one list of the arguments
            given = {n: v for n, v in locals().items() if v is not None and n in _DEFAULTS}
            fields = fields | given
        if "model" not in fields:
            message = (
                "model: name one in add_job, or for all jobs with set_default_params(model=…)."
            )
            raise SpecError(message)
        if file is None and self._add_plain(id, fields, messages, prompt):
            return self
        fields = self._owned(fields)
        given_id = f"#{len(self.jobs) + 1}" if id is None else id
        turns, path = _copied(messages), _absolute(file)
        job = Job(given_id, messages=turns, prompt=prompt, file=path, **fields)
        self._checked.check(job, limited=self._limited)
        self._check_priced(job, limited=self._limited)
        if id is None:
            job = self._named(job)
        else:
            self._taken(id)
        self.jobs.append(job)
        self._checked.keep_form(fields, job, limited=self._limited)
        return self

    @property
    def _limited(self) -> bool:
        return self.config.cost_limit_usd is not None

    def _owned(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return fields of a job that do not change if the caller changes the originals later."""
        fields = dict(fields)
        if isinstance(fields.get("response_model"), dict):
            fields["response_model"] = self._checked.schemas.own(fields["response_model"])
        if "params" in fields:
            fields["params"] = deepcopy(fields["params"])
        return fields

    def _add_plain(
        self, job_id: str | None, fields: dict[str, Any], messages: object, prompt: object
    ) -> bool:
        """Add a job that differs in its id and texts alone from one that was added before.

        Return whether it is such a job, and valid.
        """
        if job_id is not None and not is_job_id(job_id):
            return False
        plain = self._checked.plain(fields, messages, prompt, limited=self._limited)
        if plain is None:
            return False
        form, texts = plain
        name = self._content_id(form.facts(texts)) if job_id is None else self._taken(job_id)
        self.jobs.add_plain(name, form, texts)
        return True

    def _check_priced(self, job: Job, *, limited: bool) -> None:
        """Refuse a model without a known price if a limit has to hold, as a run does.

        Without a limit, warn of one whose name looks like a typo.
        """
        provider, model, _ = job.destination()
        if (provider, model, limited) in self._priced:
            return
        # genai-prices takes long to import
        from batchata_tasks.pricing.lookup import (  # noqa: PLC0415 - slow
            batch_rates,
            likely_typo,
            unpriced,
        )
        from batchata_tasks.pricing.price_file import load_prices  # noqa: PLC0415 - slow

        prices = load_prices(Settings().prices)
        if limited and batch_rates(provider, model, prices) is None:
            reason = unpriced("model", provider, model, "cost_limit_usd")
            message = f"job {job.id!r:.80}: {reason}"
            raise SpecError(message)
        if (text := likely_typo(provider, model, prices)) is not None:
            warnings.warn(f"job {job.id!r:.80}: model: {text}", stacklevel=3)
        self._priced.add((provider, model, limited))

    def _stored_digest(self, job: Job) -> str | None:
        """Return the digest of the document that an earlier run of this batch had of a job."""
        # few batches lack a document, and it takes long to import
        from batchata_tasks.api.state import results_folder, state_of  # noqa: PLC0415 - slow
        from batchata_tasks.planning.job_documents import StoredDocuments  # noqa: PLC0415 - slow

        place = self.config.results_dir, self.config.state_file
        if (stored := self._stored.get(place)) is None:
            stored = StoredDocuments.of_folder(results_folder(self.config, state_of(self.config)))
            self._stored[place] = stored
        return stored.digest_of(job)

    def _named(self, job: Job) -> Job:
        """Return a job with its content as its id; jobs that are alike are numbered."""
        schemas = self._checked.schemas
        schema, _ = schemas.of(job)
        facts = [*facts_of(job, schemas.content(schema)).values()]
        if job.file is not None:
            facts += [self._checked.digest_of(job), job.enable_citations]
        return self._checked.renamed(job, self._content_id(canonical(facts)))

    def _content_id(self, facts: bytes) -> str:
        """Return the id of a job without one, by its content; jobs that are alike are numbered."""
        name = f"job-{base32(digest('job', facts)[:_ID_BYTES])}"
        number = self._ids[name] = self._ids.get(name, 0) + 1
        return name if number == 1 else self._taken(f"{name}-{number}")

    def _taken(self, job_id: str) -> str:
        """Return an id that no other job may have from now on."""
        if job_id in self._ids:
            message = f"job {job_id!r:.80}: there is a job of this id already; ids must be unique."
            raise SpecError(message)
        self._ids[job_id] = 1
        return job_id

    def run(
        self,
        wait: bool = True,
        on_progress: Callable[[dict[str, Any], float, dict[str, dict[str, Any]]], None]
        | None = None,
        print_status: bool = False,
        dry_run: bool = False,
        progress_interval: float = 1.0,
    ) -> BatchRun:
        """Run the batch.

        Args:
            wait: return when the run has ended; else it goes on in a thread, see BatchRun.
            on_progress: called with (stats, elapsed seconds, batches by id).
            print_status: show the progress.
            dry_run: send nothing, and print what would be sent and what it would cost.
            progress_interval: seconds between two calls of `on_progress`.

        Raises:
            SpecError: the batch cannot be run; nothing was sent.
            BatchataError: something stopped it half-way; the next run carries on.
        """
        # it imports the whole pipeline, which building a batch does not need
        from batchata_tasks.api.run import BatchRun  # noqa: PLC0415 - slow

        if callable(wait):  # a callback by habit, which would count as true
            message = "wait: it is True or False; give a callback as `on_progress=…`."
            raise SpecError(message)
        run = BatchRun(self.config, self.jobs, checked=self._checked)
        if on_progress is not None:
            run.set_on_progress(on_progress, progress_interval)
        run.show(print_status)
        if dry_run:
            run.dry()
            return run
        if wait:
            run.wait()
        else:
            run.start()
        return run

    def _set(self, **values: Any) -> Self:
        # a default that was written out would count as a value that somebody chose
        self.config = checked_params({**self.config.model_dump(exclude_unset=True), **values})
        return self


def _copied(messages: object) -> Any:
    if not isinstance(messages, list):
        return deepcopy(messages)
    return [_copied_turn(turn) for turn in cast("list[object]", messages)]


def _copied_turn(turn: object) -> object:
    pairs = as_dict(turn)
    if pairs and all(type(value) is str for value in pairs.values()):
        return dict(pairs)  # most turns: their texts cannot be changed in place
    return deepcopy(turn)


def _absolute(file: object) -> Path | None:
    """Return the absolute path of a file: the program may change its working folder."""
    if file is None:
        return None
    if not isinstance(file, str | PathLike):
        message = f"file: {file!r:.80} is no path; write a text or a Path."
        raise SpecError(message)
    return Path(cast("str", file)).absolute()
