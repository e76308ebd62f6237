"""The jobs of a batch, kept in a fraction of the memory and time that an object of each takes."""

from __future__ import annotations

from collections.abc import MutableSequence
from copy import deepcopy
from dataclasses import fields, replace
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any, cast, overload

import orjson

from batchata_tasks.common.canonical import canonical
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import pluralize
from batchata_tasks.planning.text_form import TEXT, TextForm
from batchata_tasks.spec.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchata_tasks.spec.job import Roles

PlainJob = tuple[str, int, tuple[bytes, ...]]
"""Id, place of the form, texts as `spelled`: no memory is taken for a text and its JSON.

Python's garbage collector does not walk over such a tuple.
"""

_NEW_FORM = Lock()  # threads may add jobs at once, and no two forms have one place

_FIELDS = [one.name for one in fields(Job) if one.name not in ("id", "response_model")]
_fields_of = attrgetter(*_FIELDS)


class JobForm:
    """What jobs share that differ in their ids and in the texts of their turns alone."""

    def __init__(self, job: Job, roles: Roles, schema: str | None, content: str | None) -> None:
        """Take the form of a job without a file.

        `roles` are those of its turns, which have one text each. `schema` is the name of its
        response model, `content` a digest of that model's schema.
        """
        params = deepcopy(job.params)  # callers may change those of the job
        self.job = replace(job, id="", messages=None, prompt=None, params=params)
        self.destination, self.schema = job.destination(), schema
        self.terms = stored_json(self.job, schema).decode()
        self._field, turns = _turns(roles, is_prompt=job.messages is None)
        self._turns = TextForm(turns)
        self._stored = stored_form(self.terms, roles, is_prompt=job.messages is None)
        pairs = [b'[%b,"%b"]' % (orjson.dumps(role), TEXT) for role in roles]
        self._canonical = TextForm(b"[" + b",".join(pairs) + b"]")
        facts = {name: canonical(value) for name, value in facts_of(self.job, content).items()}
        self._facts = TextForm(b"[" + b",".join({**facts, self._field: turns}.values()) + b"]")

    def spelled(self, texts: Sequence[bytes]) -> tuple[bytes, bytes]:
        """Return a job as `stored_json` does, and what the input of its fingerprint is made of.

        `texts` are those of its turns, as `spelled`.
        """
        return self._stored.with_texts(texts), self._canonical.with_texts(texts)

    def facts(self, texts: Sequence[bytes]) -> bytes:
        """Return the canonical JSON of all that makes a job what it is, but for its id."""
        return self._facts.with_texts(texts)

    def job_of(self, job_id: str, texts: Sequence[bytes]) -> Job:
        """Return a job of this form."""
        params = deepcopy(self.job.params)
        own: dict[str, Any] = {self._field: orjson.loads(self._turns.with_texts(texts))}
        return replace(self.job, id=job_id, params=params, **own)


def facts_of(job: Job, content: str | None) -> dict[str, object]:
    """Return all that makes a job what it is, but for its id and its document.

    `content` is a digest of its response model's schema.
    """
    provider, model, endpoint = job.destination()
    return {
        "provider": provider,
        "model": model,
        "endpoint": endpoint,
        "messages": job.messages,
        "prompt": job.prompt,
        "temperature": job.temperature,
        "max_tokens": job.max_tokens,
        "params": job.params,
        "response_model": content,
    }


def _turns(roles: Roles, *, is_prompt: bool) -> tuple[str, bytes]:
    """Return the field of a job that has its turns, and its JSON with TEXT for each text."""
    if is_prompt:
        return "prompt", b'"%b"' % TEXT
    turns = [b'{"content":"%b","role":%b}' % (TEXT, orjson.dumps(role)) for role in roles]
    return "messages", b"[" + b",".join(turns) + b"]"


def stored_form(terms: str, roles: Roles, *, is_prompt: bool) -> TextForm:
    """Return the form of what `stored_json` returns, given all but the turns of it (`terms`)."""
    name, turns = _turns(roles, is_prompt=is_prompt)
    values = {key: orjson.dumps(value) for key, value in orjson.loads(terms).items()}
    values[name] = turns
    pairs = [orjson.dumps(key) + b":" + values[key] for key in sorted(values)]
    return TextForm(b"{" + b",".join(pairs) + b"}")


def stored_json(job: Job, schema: str | None, sha256: str | None = None) -> bytes:
    """Return a job as JSON: without its id, and with the digests of its model and document."""
    values: dict[str, Any] = dict(zip(_FIELDS, _fields_of(job), strict=True))
    values["enable_citations"] = job.enable_citations or None
    if job.file is not None:
        values |= {"file": str(job.file.absolute()), "sha256": sha256}
    stored = {name: value for name, value in values.items() if value not in (None, {})}
    return orjson.dumps({**stored, "schema": schema}, option=orjson.OPT_SORT_KEYS)


def _job(value: object) -> Job:
    """Return a job as it is; refuse what is none."""
    if not isinstance(value, Job):
        message = f"jobs: {value!r:.80} is no Job; write Job(…), or add one with add_job."
        raise SpecError(message)
    return value


class JobList(MutableSequence[Job]):
    """The jobs of a batch.

    Those of a known form are kept as the texts of their turns. Whoever asks for one gets an object,
    which is kept instead from then on, so that changes to it count.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        is_list = isinstance(jobs, JobList)
        forms = jobs.forms if is_list else []
        self._forms = {form: place for place, form in enumerate(forms)}
        self._jobs: list[Job | PlainJob] = list(jobs.kept() if is_list else map(_job, jobs))

    def add_plain(self, job_id: str, form: JobForm, texts: tuple[bytes, ...]) -> None:
        """Append a job of a form, by the texts of its turns, as `spelled`."""
        if (place := self._forms.get(form)) is None:
            with _NEW_FORM:
                place = self._forms.setdefault(form, len(self._forms))
        self._jobs.append((job_id, place, texts))

    def ids(self) -> Iterator[str]:
        """Yield the ids of the jobs."""
        return (one[0] if isinstance(one, tuple) else one.id for one in self._jobs)

    def kept(self) -> list[Job | PlainJob]:
        """Return what is kept of each job: an object, or all that its form (`forms`) lacks."""
        return self._jobs

    @property
    def forms(self) -> list[JobForm]:
        """The forms of jobs, by their places."""
        return list(self._forms)

    def checked_for_all(self) -> Iterator[Job]:
        """Yield the jobs that are kept as objects, and the first one of each form."""
        forms, seen = self.forms, set[int]()
        for one in self._jobs:
            if not isinstance(one, tuple):
                yield one
            elif one[1] not in seen:
                seen.add(one[1])
                yield self._object(one, forms)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        one = self._jobs[index]
        if isinstance(one, tuple):
            one = self._jobs[index] = self._object(one, self.forms)
        return one

    @staticmethod
    def _object(one: Job | PlainJob, forms: Sequence[JobForm]) -> Job:
        if isinstance(one, Job):
            return one
        job_id, place, texts = one
        return forms[place].job_of(job_id, texts)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            self._jobs[index] = map(_job, value)
        else:
            self._jobs[index] = _job(value)

    def __delitem__(self, index: int | slice) -> None:
        del self._jobs[index]

    def __len__(self) -> int:
        return len(self._jobs)

    def insert(self, index: int, value: Job) -> None:
        """Insert a job before the one at a place."""
        self._jobs.insert(index, _job(value))

    def sort(self, *, key: Callable[[Job], Any], reverse: bool = False) -> None:
        """Sort the jobs in place, as a list does."""
        forms = self.forms
        self._jobs.sort(key=lambda one: key(self._object(one, forms)), reverse=reverse)

    def copy(self) -> JobList:
        """Return another list of the same jobs."""
        return JobList(self)

    def __add__(self, other: Iterable[Job]) -> JobList:
        both = self.copy()
        both.extend(other)
        return both

    def __radd__(self, other: Iterable[Job]) -> JobList:
        return JobList(other) + self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | JobList):
            return NotImplemented
        return list(self) == list(cast("Iterable[Job]", other))

    __hash__ = None  # pyright: ignore[reportAssignmentType] - as that of each list

    def __repr__(self) -> str:
        return f"<{pluralize(len(self), 'job')}>"
