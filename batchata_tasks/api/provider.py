"""Provider: an adapter that can also be used by itself, without a run."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from batchata_tasks.api import standalone
from batchata_tasks.api.job_checks import check_job
from batchata_tasks.common.errors import TerminalError
from batchata_tasks.providers.base import Adapter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.api.job_result import JobResult
    from batchata_tasks.api.standalone import SentJob
    from batchata_tasks.spec.job import Job


class Provider(Adapter):
    """One provider's batch API. An adapter derives from this and supplies the primitives; `register` makes it known.

    The methods here send, watch and fetch single batches. Nothing guards them: there is no ledger, no
    cost limit and no budget, and nothing is known of it after a crash but the batch id that the caller
    keeps. `Batch` and `EnrichmentSpec` have all of that; they do not use these methods.
    """

    @cached_property
    def _asked(self) -> dict[str, dict[str, SentJob]]:
        """What this object asked for, by batch and job: an answer alone does not name its response model."""
        return {}

    @classmethod
    def validate_job(cls, job: Job, *, limited: bool = False) -> None:
        """Check a job against the provider's rules; `limited` says whether a cost limit is to hold.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        check_job(cls, job, limited=limited)

    def create_batch(self, jobs: Iterable[Job]) -> str:
        """Send jobs as one batch, and return its id. This spends money: no limit holds it back, no ledger knows of it.

        The create goes out once. Each job's id names its request there, so it has 1 to 64 letters (a to
        z), digits, `_` and `-`. Where the provider takes request files (OpenAI), the file stays there.

        Raises:
            SpecError: the jobs are no batch of this provider; nothing was sent.
            TransientError, TerminalError, CredentialsError: the batch was refused for certain.
            UnclearError: the answer to the create was lost. The batch may be running, and be paid: it is
                not sent again, and nothing looks for it; the provider's console tells.
        """
        batch_id, asked = standalone.create(self, list(jobs))
        self._asked[batch_id] = asked
        return batch_id

    def get_batch_status(self, batch_id: str) -> str:
        """Return a batch's status as the provider spells it.

        Anthropic: in_progress, canceling, ended. OpenAI: validating, in_progress, finalizing, cancelling;
        completed, failed, expired and cancelled once it has ended.

        Raises:
            TransientError: it cannot be seen now; also where it does not exist.
        """
        return self.look(batch_id).status

    def get_batch_results(self, batch_id: str) -> list[JobResult]:
        """Return what became of the jobs of a batch that has ended, one result per line, in the provider's order.

        This waits for nothing, and keeps nothing: each call downloads the results. `parsed_response` is
        None unless this object created the batch, since nobody else knows its response models; then
        jobs without a line get a result, too. `cost_usd` is at batch rates, and nan where no price is
        known or no line says what the job used.

        Raises:
            TransientError: the batch has not ended, or its results cannot be had yet.
            TerminalError: it was refused as a whole, or its results are not kept any more.
            SpecError: the user's price file is wrong.
        """
        return standalone.results(self, batch_id, self._asked.get(batch_id))

    def cancel_batch(self, batch_id: str) -> bool:
        """Ask the provider to cancel a batch; False where it had ended already.

        It takes a while to end. What ran by then is billed, and is in its results.

        Raises:
            TransientError: the provider cannot be asked now; also where there is no such batch.
        """
        if self.look(
            batch_id
        ).ended:  # a cancel of one that was cancelled before is no error everywhere
            return False
        try:
            self.cancel(batch_id)
        except TerminalError:
            if not self.look(batch_id).ended:
                raise
            return False
        return True

    def estimate_cost(self, jobs: Iterable[Job]) -> float:
        """Return what jobs are likely to cost in a batch, in US dollars; nan where a price is not known.

        It is the estimate of a plan of which no batch has finished yet, so a guess (docs/money.md). Nothing
        is sent.

        Raises:
            SpecError: a job is wrong, or is none of this provider's.
        """
        return standalone.expected(self, list(jobs))

    def get_polling_interval(self) -> float:
        """Return how many seconds to wait between looks at a batch; runs let it grow to `poll_seconds[1]`."""
        return self.poll_seconds[0]
