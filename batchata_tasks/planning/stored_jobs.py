"""Reads stored jobs: what each asks for, and the fingerprint of its request.

Most jobs of a batch differ in their texts alone. What they share is read once, for the first.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from batchata_tasks.common.arrow_types import shared_values
from batchata_tasks.common.canonical import canonical
from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.fingerprint import inputs_of_texts, other_parts, part
from batchata_tasks.spec.job import Job, params_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document

_TERMS_KEPT = 256
_TEXT = frozenset({str})


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What jobs share that differ in their turns and documents alone.

    `spelled` are these terms as JSON. `job` has them, and neither turns nor a document; `digest` is
    the name of its response model, `schema`. `others` are the parts of a fingerprint besides its
    input.
    """

    spelled: str
    job: Job
    digest: str | None
    schema: ResponseSchema | None
    others: str


class StoredJob(NamedTuple):
    """A job as it is stored; `sha256` is that of its document.

    `texts` has the role and the text of each turn; it is None if there is more to the job.
    """

    id: str
    terms: Terms
    messages: list[dict[str, Any]] | None
    prompt: str | None
    file: str | None
    sha256: str | None
    texts: tuple[tuple[str, str], ...] | None

    def job(self) -> Job:
        """Return the job; it has no response model (see `terms`)."""
        file = None if self.file is None else Path(self.file)
        params = deepcopy(self.terms.job.params)  # callers may change those of one job
        own = {"messages": self.messages, "prompt": self.prompt, "file": file, "params": params}
        return replace(self.terms.job, id=self.id, **own)

    def document(self) -> Document | None:
        """Read the document.

        Raises:
            SpecError: it cannot be read, or has changed.
        """
        try:
            document = self.job().document()
        except SpecError as error:
            message = f"job {self.id!r:.80}: {error}"
            raise SpecError(message) from None
        if document is not None and document.sha256 != self.sha256:
            changed = f"file: {self.file} has changed since the job was added"
            message = f"job {self.id!r:.80}: {changed}; run the program that adds it again."
            raise SpecError(message)
        return document

    def canonical_turns(self) -> bytes:
        """Return what the input of a fingerprint is made of, as canonical JSON."""
        if self.texts is not None:
            return orjson.dumps(self.texts)  # which spells texts as `canonical` does
        turns: list[Any] = [[turn.role, turn.content] for turn in self.job().turns()]
        if self.sha256 is not None:
            turns.append(["document", self.sha256])
        return canonical(turns)


class StoredJobs:
    """Reads stored jobs, with the response models that they name."""

    def __init__(self, schemas: Mapping[str, ResponseSchema]) -> None:
        self._schemas = schemas
        self._terms: dict[str, Terms] = {}

    def read(
        self,
        job_ids: Sequence[str],
        texts: Sequence[str | bytes],
        terms: Sequence[Terms] | None = None,
    ) -> list[StoredJob]:
        """Return jobs, from their ids and their other fields as JSON; and their terms, if known."""
        known = repeat(None, len(texts)) if terms is None else terms
        return [self._read(*one) for one in zip(job_ids, texts, known, strict=True)]

    def _read(self, job_id: str, text: str | bytes, terms: Terms | None) -> StoredJob:
        fields: dict[str, Any] = orjson.loads(text)
        messages, prompt = fields.pop("messages", None), fields.pop("prompt", None)
        file, sha256 = fields.pop("file", None), fields.pop("sha256", None)
        texts = _texts(messages, prompt) if file is None else None
        if terms is None:
            terms = self._terms_of(orjson.dumps(fields).decode())
        return StoredJob(job_id, terms, messages, prompt, file, sha256, texts)

    def terms_of(self, spelled: pa.Array) -> list[Terms]:
        """Return the terms of jobs, of each as JSON; most jobs share theirs."""
        return list(map(self._terms_of, shared_values(spelled)))

    def _terms_of(self, spelled: str) -> Terms:
        """Return the terms that have these fields, as JSON."""
        if (known := self._terms.get(spelled)) is None:
            if len(self._terms) >= _TERMS_KEPT:
                self._terms.clear()
            known = self._terms[spelled] = self._new_terms(spelled)
        return known

    def _new_terms(self, spelled: str) -> Terms:
        fields: dict[str, Any] = orjson.loads(spelled)
        digest = fields.pop("schema")
        schema = None if digest is None else self._schemas[digest]
        job = Job("", **fields)
        to = job.destination()
        facts = {"provider": to.provider, "endpoint": to.endpoint, "model": to.model}
        facts |= {"max_tokens": job.max_tokens, "params": params_of(job)}
        if job.enable_citations:
            facts["citations"] = True
        canonical = schema.canonical if schema is not None else None
        others = other_parts(part("prompt", "job"), part("model", facts), part("schema", canonical))
        return Terms(spelled, job, digest, schema, others)


def _texts(
    messages: list[dict[str, Any]] | None, prompt: str | None
) -> tuple[tuple[str, str], ...] | None:
    """Return the role and the text of each turn; None if one has separate parts.

    They are valid, since jobs are checked before they are stored.
    """
    if messages is None:
        return None if prompt is None else (("user", prompt),)
    texts: tuple[tuple[str, str], ...] = tuple(
        [(turn["role"], turn["content"]) for turn in messages]
    )
    return texts if _TEXT.issuperset([type(text) for _, text in texts]) else None


def inputs_of_jobs(jobs: Sequence[StoredJob]) -> list[bytes]:
    """Return the inputs of the jobs' fingerprints."""
    return inputs_of_texts(job.canonical_turns() for job in jobs)
