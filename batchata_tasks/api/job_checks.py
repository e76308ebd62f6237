"""Checks of Jobs, each by itself and by its provider's rules, before anything is sent."""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.job_list import JobForm
from batchata_tasks.planning.text_form import spelled
from batchata_tasks.providers import provider_type
from batchata_tasks.sources import documents
from batchata_tasks.spec.job import params_of, turn_texts
from batchata_tasks.spec.job_schemas import ResponseModels
from batchata_tasks.types.request import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.job import Job, Roles
    from batchata_tasks.types.document import Document

    FileState = tuple[int, ...]
    # on what checks rested: whether a limit held, the job's content, its file
    Facts = tuple[bool, int, FileState | None]


_PLAIN = (  # types of one's own are not taken for those of JSON
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_PASSED_KEPT = 256
_FORMS_KEPT = 256


def check_job(adapter: type[Adapter], job: Job, *, limited: bool) -> None:
    """Check a job by itself and by the rules of the adapter's provider.

    `limited` says whether a cost limit has to hold.

    Raises:
        SpecError: naming the job, the field and the remedy.
    """
    turns = job.check()
    ProviderRules().check(adapter, job, turns, limited=limited)


class ProviderRules:
    """Checks of jobs by their providers' rules; what many jobs share is checked once."""

    def __init__(self) -> None:
        self._serving: dict[tuple[object, ...], type[Adapter]] = {}
        # the schemas are kept, so that no other gets the `id` of one
        self._schemas: dict[tuple[type[Adapter], int], ResponseSchema] = {}

    def check_as_sent(
        self, adapter: type[Adapter], job: Job, turns: tuple[Message, ...], *, limited: bool
    ) -> Document | None:
        """Check a job by its provider's rules; `turns` are what `Job.check` returned.

        Return its document if it was read. A third-party provider may replace the rules: by its
        `validate_job`.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        validate_job = getattr(adapter, "validate_job", None)
        if validate_job is None:
            return self.check(adapter, job, turns, limited=limited)
        validate_job(job, limited=limited)
        with _naming(job):  # limits rest on these rules, whatever `validate_job` leaves out
            self._check_model_and_params(adapter, job, limited=limited)
        return None

    def check(
        self, adapter: type[Adapter], job: Job, turns: tuple[Message, ...], *, limited: bool
    ) -> Document | None:
        """Check a job by the adapter's own rules; return its document if it has one."""
        with _naming(job):
            serving = self._check_model_and_params(adapter, job, limited=limited)
            serving.check_turns(turns)
            document = job.document()
            if document is not None and job.file is not None:
                structured = job.response_model is not None
                serving.check_document(document, job.file, structured=structured)
            return document

    def check_schema(self, adapter: type[Adapter], schema: ResponseSchema) -> None:
        """Check a response model."""
        if (adapter, id(schema)) not in self._schemas:
            adapter.check_schema(schema)
            self._schemas[adapter, id(schema)] = schema

    def _check_model_and_params(
        self, adapter: type[Adapter], job: Job, *, limited: bool
    ) -> type[Adapter]:
        """Check the fields on which bounds and prices rest; return the adapter to the endpoint."""
        texts = repr(job.temperature), repr(job.params)  # 1 and 1.0 are equal, and not the same
        facts = (adapter, job.endpoint, job.model, job.max_tokens, *texts, limited)
        if (serving := self._serving.get(facts)) is not None:
            return serving
        serving = adapter
        if job.endpoint != adapter.endpoint_name:
            serving = provider_type(adapter.name, job.endpoint)
        serving.check_model(job.model, job.max_tokens)
        params = params_of(job)
        serving.check_params(job.model, params, limited=limited)
        serving.check_cap(job.max_tokens, params)
        if len(self._serving) >= _PASSED_KEPT:
            self._serving.clear()
        self._serving[facts] = serving
        return serving


@contextmanager
def _naming(job: Job) -> Generator[None, None, None]:
    """Begin the message of a SpecError with the job's id."""
    try:
        yield
    except SpecError as error:
        message = f"job {job.id!r:.80}: {error}"
        raise SpecError(message) from None


class _Known(NamedTuple):
    """A form of jobs that passed their checks, the fields that they have, and their adapter."""

    fields: dict[str, Any]
    form: JobForm
    adapter: type[Adapter]


class CheckedJobs:
    """Jobs that passed their checks: each is checked once, and its document read once for that.

    A job is checked again if anything changed that its checks rested on: its file, its turns, its
    parameters or its response model (they can be changed in place), or whether a cost limit holds.

    `stored_digest` returns the digest of the document that an earlier run had of a job, if any. It
    stands for one that cannot be read: only a request that has yet to be sent needs the document.
    Without `reads_documents` it stands for each that is known.
    """

    def __init__(
        self,
        stored_digest: Callable[[Job], str | None] = lambda _job: None,
        *,
        reads_documents: bool = True,
    ) -> None:
        self.stored_digest, self._reads_documents = stored_digest, reads_documents
        self.schemas = ResponseModels()
        self._rules = ProviderRules()
        self._adapters: dict[tuple[str, str | None, str], type[Adapter]] = {}
        # by the `id` of a job, which is kept, so that no other gets it
        self._jobs: dict[int, Job] = {}
        self._kept_digests: dict[int, str] = {}
        self._passed: dict[int, Facts] = {}
        self._digests: dict[Path, tuple[FileState | None, str]] = {}
        self._forms: dict[tuple[object, ...], _Known] = {}

    def check(self, job: Job, *, limited: bool) -> None:
        """Check a job, unless it passed as it is.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        passed = self._passed.get(id(job))
        if passed is not None and self._holds(job, passed, limited=limited):
            return
        turns = job.check()
        content, file = self._content(job), _state_of(job.file)
        _, schema = self.schemas.of(job)
        adapter = self._adapter_of(job)
        if schema is not None:
            self._rules.check_schema(adapter, schema)
        self._jobs[id(job)] = job
        self._kept_digests.pop(id(job), None)
        if self._is_kept(job):
            alone = replace(job, file=None, enable_citations=False, min_grade=None)
            self._rules.check_as_sent(adapter, alone, turns, limited=limited)
        else:
            document = self._rules.check_as_sent(adapter, job, turns, limited=limited)
            if document is not None and job.file is not None:
                self._digests[job.file] = file, document.sha256
        self._passed[id(job)] = limited, content, file

    def _is_kept(self, job: Job) -> bool:
        """Whether the stored digest of a job's document stands for it; keep the digest."""
        if job.file is None or (self._reads_documents and documents.is_readable(job.file)):
            return False
        if (sha256 := self.stored_digest(job)) is not None:
            self._kept_digests[id(job)] = sha256
        return sha256 is not None

    def plain(
        self, fields: dict[str, Any], messages: object, prompt: object, *, limited: bool
    ) -> tuple[JobForm, tuple[bytes, ...]] | None:
        """Return the form of a job that has these fields, and its texts as `spelled`, if valid.

        None if no job of its form was checked before, or it has more than texts, or is invalid:
        `check` says why.
        """
        if (messages is None) == (prompt is None) or not (turns := turn_texts(messages, prompt)):
            return None
        roles, texts = turns
        key = self._form_key(fields, roles, messages, limited=limited)
        known = None if key is None else self._forms.get(key)
        # == takes 1 for 1.0, and JSON a tuple for a list, nan for null, an enum for its value
        if known is None or known.fields != fields:
            return None
        if not getattr(known.adapter.check_turns, "roles_alone", False):
            try:
                known.adapter.check_turns(list(map(Message, roles, texts)))
            except SpecError:
                return None
        return known.form, tuple(map(spelled, texts))

    def keep_form(self, fields: dict[str, Any], job: Job, *, limited: bool) -> None:
        """Keep the form of a job that passed its checks, and was made of these fields.

        Without a document, and rules of a third-party provider, what is left to check are turns.
        """
        turns, adapter = turn_texts(job.messages, job.prompt), self._adapter_of(job)
        whole = job.file is not None or hasattr(adapter, "validate_job")
        if turns is not None and not whole and len(self._forms) < _FORMS_KEPT:
            roles, _ = turns
            name, _ = self.schemas.of(job)
            if (key := self._form_key(fields, roles, job.messages, limited=limited)) is None:
                return
            form = JobForm(job, roles, name, self.schemas.content(name))
            self._forms[key] = _Known(deepcopy(fields), form, adapter)

    def _form_key(
        self, fields: dict[str, Any], roles: Roles, messages: object, *, limited: bool
    ) -> tuple[object, ...] | None:
        """Return what the form of a job is found by; None if JSON does not hold its fields."""
        try:
            values = orjson.dumps(fields, default=_class_id, option=_PLAIN)
        except TypeError:
            return None
        return roles, messages is None, limited, values

    def _adapter_of(self, job: Job) -> type[Adapter]:
        names = job.model, job.provider, job.endpoint
        if (known := self._adapters.get(names)) is None:
            to = job.destination()
            known = self._adapters[names] = provider_type(to.provider, to.endpoint)
        return known

    def _holds(self, job: Job, passed: Facts, *, limited: bool) -> bool:
        """Whether nothing changed on which the checks of a job rested."""
        was_limited, content, file = passed
        if limited and not was_limited:
            return False
        return file == _state_of(job.file) and content == self._content(job)

    def _content(self, job: Job) -> int:
        """Return a number that changes with each part of a job that can be changed in place."""
        model = None if job.response_model is None else self.schemas.place_of(job.response_model)
        try:
            turns = None if job.messages is None else orjson.dumps(job.messages)
        except TypeError:
            turns = repr(job.messages)
        return hash((turns, job.prompt, repr(job.params), model))

    def renamed(self, job: Job, job_id: str) -> Job:
        """Return a job that passed its checks under another id; that one has passed them, too."""
        named = replace(job, id=job_id)
        self._jobs[id(named)] = named
        self._passed[id(named)] = self._passed.pop(id(job))
        if id(job) in self._kept_digests:
            self._kept_digests[id(named)] = self._kept_digests.pop(id(job))
        del self._jobs[id(job)]
        return named

    def digest_of(self, job: Job) -> str | None:
        """Return the `sha256` of a job's document; None if it has none.

        The file is not read if it is as it was when a job was checked.

        Raises:
            SpecError: it cannot be read.
        """
        if (file := job.file) is None:
            return None
        if (kept := self._kept_digests.get(id(job))) is not None:
            return kept
        state, sha256 = self._digests.get(file, (None, ""))
        now = _state_of(file)
        if state is None or state != now:
            sha256 = documents.digest_of(file)
            self._digests[file] = now, sha256
        return sha256


def _class_id(value: object) -> int:
    if isinstance(value, type):
        return id(value)  # classes of known forms are kept, so that no other gets the `id` of one
    raise TypeError


def _state_of(file: Path | None) -> FileState | None:
    """Return values of which one changes with each write to a file; None if there is no file."""
    if file is None:
        return None
    try:
        stat = file.stat()
    except OSError:
        return None  # the error is raised when it is read
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
