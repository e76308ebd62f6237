"""Single batches without a run, for the methods of Provider: no ledger, no limit, no dataset."""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.api.job_checks import ProviderRules
from batchata_tasks.api.job_result import JobResult
from batchata_tasks.common.errors import (
    BatchataError,
    CredentialsError,
    SpecError,
    TerminalError,
    TransientError,
)
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.columns import CITATION_NAMES
from batchata_tasks.execution.judged import judge, with_answer
from batchata_tasks.execution.priced import Priced
from batchata_tasks.planning.estimate import guessed
from batchata_tasks.planning.route import Route
from batchata_tasks.pricing.lookup import rates_at
from batchata_tasks.pricing.price_file import load_prices
from batchata_tasks.providers import provider_type
from batchata_tasks.providers.request_file import write_requests
from batchata_tasks.providers.result_lines import is_results, without_line
from batchata_tasks.spec.job_schemas import ResponseModels
from batchata_tasks.types.answer import Usage
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from batchata_tasks.pricing.rates import Rates
    from batchata_tasks.providers import Adapter, BatchLook
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.job import Job
    from batchata_tasks.types.answer import Answer

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # both providers take such a custom_id
_ID_RULE = (
    "its id names the request at the provider, "
    "so it has 1 to 64 letters (a to z), digits, `_` and `-`; rename it."
)
_TOKEN_BYTES = 10


@dataclass(frozen=True, slots=True)
class SentJob:
    """The facts of a job on which its result depends."""

    model: str
    schema: ResponseSchema | None
    cited: bool = False


def create(provider: Adapter, jobs: Sequence[Job]) -> tuple[str, dict[str, SentJob]]:
    """Send jobs as one batch; return its id, and the jobs by their ids.

    See `Provider.create_batch`.
    """
    schemas = ResponseModels()
    _check(provider, jobs, schemas)
    _check_together(provider, jobs)
    token = secrets.token_hex(_TOKEN_BYTES)
    with (
        _serving(provider, jobs[0].endpoint) as adapter,
        TemporaryDirectory(prefix="batchata-") as folder,
    ):
        path = Path(folder) / f"{token}.jsonl"
        write_requests(path, adapter.framing, _within(adapter, _bodies(adapter, jobs, schemas)))
        file_id = adapter.upload(path)
        try:
            look = adapter.create(path, file_id, token, lambda: None)
        except (TransientError, TerminalError, CredentialsError):
            with suppress(BatchataError):  # the refusal is the error to raise
                if file_id is not None:
                    adapter.discard_upload(file_id)
            raise
    sent = {job.id: SentJob(job.model, schemas.of(job)[1], job.enable_citations) for job in jobs}
    return look.batch_id, sent


@contextmanager
def _serving(provider: Adapter, endpoint: str) -> Generator[Adapter, None, None]:
    """Yield the adapter to an endpoint of the provider: this one, or another for the moment."""
    if endpoint == provider.endpoint_name:
        yield provider
    else:
        with closing(provider_type(provider.name, endpoint)()) as adapter:
            yield adapter


def _check(provider: Adapter, jobs: Sequence[Job], schemas: ResponseModels) -> None:
    """Refuse jobs that are invalid, each by itself, or another provider's."""
    rules = ProviderRules()
    for job in jobs:
        turns = job.check()
        if (name := job.destination().provider) != provider.name:
            other = f"{job.model!r} is a model of {name}, and this is {provider.name}"
            message = f"job {job.id!r:.80}: {other}; give the job to that provider."
            raise SpecError(message)
        rules.check_as_sent(type(provider), job, turns, limited=False)
        schemas.of(job)


def _check_together(provider: Adapter, jobs: Sequence[Job]) -> None:
    """Refuse jobs that cannot share a batch."""
    if not jobs:
        message = "jobs: there are none; a batch needs at least one."
        raise SpecError(message)
    if len(jobs) > (most := provider.limits.requests):
        limit = f"jobs: one batch of {provider.name} takes up to {most:,}"
        message = f"{limit}, and these are {len(jobs):,}; create several."
        raise SpecError(message)
    first, ids = jobs[0], set[str]()
    for job in jobs:
        problem = None
        if not _ID.fullmatch(job.id):
            problem = _ID_RULE
        elif job.id in ids:
            problem = "there are two jobs of this id; ids must be unique."
        elif job.endpoint != first.endpoint or (
            job.model != first.model and not provider.mixes_models
        ):
            kinds = f"{job.model} ({job.endpoint}) and {first.model} ({first.endpoint})"
            problem = f"one batch of {provider.name} cannot hold both {kinds}; create two."
        if problem is not None:
            message = f"job {job.id!r:.80}: {problem}"
            raise SpecError(message)
        ids.add(job.id)


def _bodies(
    provider: Adapter, jobs: Sequence[Job], schemas: ResponseModels
) -> Iterator[tuple[str, bytes]]:
    for job in jobs:
        yield job.id, orjson.dumps(provider.body(job.request(schemas.of(job)[1], job.document())))


def _within(provider: Adapter, bodies: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield requests while they fit into one batch."""
    size, most = 0, provider.limits.bytes
    for name, body in bodies:
        size += provider.framing.size(len(name), body)
        if size > most:
            limit = f"jobs: one batch of {provider.name} takes {most:,} bytes"
            message = f"{limit}, and with job {name!r} they have {size:,}; create several."
            raise SpecError(message)
        yield name, body


def results(
    provider: Adapter, batch_id: str, sent: Mapping[str, SentJob] | None
) -> list[JobResult]:
    """Return the results of a batch; `sent` are its jobs, if this process created it.

    See `Provider.get_batch_results`.
    """
    look = provider.look(batch_id)
    _check_ended(provider, look)
    with TemporaryDirectory(prefix="batchata-") as folder:
        paths = provider.download(look, Path(folder), "results")
        answers = [answer for path in paths for answer in provider.answers(path)]
        if not all(map(is_results, paths)) or (look.done and not answers):
            reason = f"batch {batch_id} has ended, but its results are not there yet"
            message = f"{reason}; fetch them again in a while."
            raise TransientError(message)
    names = {answer.custom_id for answer in answers}
    _, absent = without_line(look, len(names))
    answers += [absent._replace(custom_id=name) for name in sent or () if name not in names]
    priced = _Prices(provider, look)
    return [priced.result(answer, (sent or {}).get(answer.custom_id)) for answer in answers]


def _check_ended(provider: Adapter, look: BatchLook) -> None:
    if not look.ended:
        status = look.status
        if look.done is not None and look.requests:
            status += f", {look.done:,} of {look.requests:,} done"
        message = f"batch {look.batch_id} has not ended ({status}); fetch its results once it has."
        raise TransientError(message, provider.poll_seconds[0])
    if look.refused:
        reason = f"was refused as a whole, so that nothing of it ran: {look.error}"
        message = f"batch {look.batch_id} {reason}"
        raise TerminalError(message)
    if look.gone:
        message = f"the results of batch {look.batch_id} are not kept any more."
        raise TerminalError(message)


class _Prices:
    """Turns answers into results, with their costs."""

    def __init__(self, provider: Adapter, look: BatchLook) -> None:
        self._provider, self._look = provider, look
        self._custom = load_prices(Settings().prices)  # once, so that all results have the same
        self._rates: dict[str, Rates | None] = {}

    def result(self, answer: Answer, job: SentJob | None) -> JobResult:
        """Return the result of one answer; `job` is its job, if that is known."""
        read = job.schema.read if job is not None and job.schema is not None else None
        answer = with_answer(answer, read)
        outcome, error, parsed = judge(answer, read)
        if outcome is not Outcome.SUCCEEDED:
            error = error or outcome.value
        citations = [dict.fromkeys(CITATION_NAMES) | citation for citation in answer.citations]
        priced = self._priced(answer, job)
        cited = bool(citations) or (job is not None and job.cited)
        return JobResult(
            answer.custom_id,
            response=answer.text or "",
            parsed_response=parsed,
            citations=citations if cited else None,
            input_tokens=priced.usage.input_tokens,
            output_tokens=priced.usage.output_tokens,
            cost_usd=float("nan") if priced.cost is None else float(usd(priced.cost)),
            error=error,
            outcome=outcome.value,
            batch_id=self._look.batch_id,
        )

    def _priced(self, answer: Answer, job: SentJob | None) -> Priced:
        """Return what an answer used and cost; the cost is None if it is unknown."""
        model = job.model if job is not None else answer.model or self._look.model
        if model is not None and model not in self._rates:
            self._rates[model] = rates_at(self._provider, model, self._custom)
        priced = Priced.of(answer.usage, self._rates.get(model or ""), None)
        if answer.readable and answer.usage == Usage():
            return replace(priced, cost=0)
        return priced if answer.readable else replace(priced, cost=None)


def expected_cost(provider: Adapter, jobs: Sequence[Job]) -> float:
    """Return the likely cost of jobs, in US dollars. See `Provider.estimate_cost`."""
    schemas = ResponseModels()
    _check(provider, jobs, schemas)
    groups = defaultdict[tuple[str, str], list["Job"]](list)
    for job in jobs:
        groups[job.model, job.endpoint].append(job)
    total, custom = 0, load_prices(Settings().prices)
    for (model, endpoint), group in groups.items():
        cap = max(job.max_tokens for job in group)
        with _serving(provider, endpoint) as adapter:
            rates = rates_at(adapter, model, custom)
            route = Route(adapter, model, endpoint, rates, cap)
            for document in filter(None, (job.document() for job in group)):
                route.attach(document)
            cost = guessed(route, [body for _, body in _bodies(adapter, group, schemas)]).cost
        if cost is None:
            return float("nan")
        total += cost
    return float(usd(total))
