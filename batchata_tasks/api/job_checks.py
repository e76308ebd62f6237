"""Checks of a Job, by itself and against its provider's rules, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.providers import provider_type

if TYPE_CHECKING:
    from batchata_tasks.providers import Adapter
    from batchata_tasks.spec.job import Job


def check_job(adapter: type[Adapter], job: Job, *, limited: bool) -> None:
    """Check a job by itself and by the rules of the adapter's provider; `limited` says whether a cost limit is to hold.

    Raises:
        SpecError: naming the job, the field and the remedy.
    """
    job.check()
    try:
        to = (
            adapter
            if job.endpoint == adapter.endpoint_name
            else provider_type(adapter.name, job.endpoint)
        )
        to.check_model(job.model, job.max_tokens)
        to.check_params(job.model, job.request(None).params, limited=limited)
        to.check_turns(job.turns())
        document = job.document()
        if document is not None and job.file is not None:
            to.check_document(document, job.file, structured=job.response_model is not None)
    except SpecError as error:
        message = f"job {job.id!r:.80}: {error}"
        raise SpecError(message) from None


def check_as_sent(adapter: type[Adapter], job: Job, *, limited: bool) -> None:
    """Check a job as `check_job` does, or by the adapter's own `validate_job`, which a provider of somebody else's may change.

    Raises:
        SpecError: naming the job, the field and the remedy.
    """
    own = getattr(adapter, "validate_job", None)
    if own is None:
        check_job(adapter, job, limited=limited)
    else:
        own(job, limited=limited)
