"""Provider: an adapter that can also be used by itself, without a run."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

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
    """One provider's batch API.

    A further provider derives from this, supplies what `Adapter` asks for, and is made known by
    `register`.

    The methods here send, watch and fetch single batches. Nothing guards them: there is no ledger,
    no cost limit and no budget, and after a crash only the batch id is left that the caller stored.
    `Batch` and `EnrichmentSpec` have all of that; they do not use these methods.

    `close`, or a `with` block, closes the connections.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _sent(self) -> dict[str, dict[str, SentJob]]:
        """The jobs that this object sent, by batch and id: no answer names its response model."""
        return {}

    @classmethod
    def validate_job(cls, job: Job, *, limited: bool = False) -> None:
        """Check a job by the provider's rules; `limited` says whether a cost limit has to hold.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        check_job(cls, job, limited=limited)

    def create_batch(self, jobs: Iterable[Job]) -> str:
        """Send jobs as one batch, and return its id.

        This spends money: no limit holds it back, and no ledger records it. The create goes out
        once. Each job's id names its request at the provider, so it has 1 to 64 letters (a to z),
        digits, `_` and `-`. If the provider takes request files (OpenAI), the file stays there.

        Raises:
            SpecError: the jobs are no batch of this provider; nothing was sent.
            TransientError, TerminalError, CredentialsError: the batch was certainly refused.
            UnclearError: the answer to the create was lost. The batch may be running, at your cost:
                it is not sent again, and nothing looks for it; see the provider's console.
        """
        batch_id, sent = standalone.create(self, list(jobs))
        self._sent[batch_id] = sent
        return batch_id

    def get_batch_status(self, batch_id: str) -> str:
        """Return a batch's status as the provider spells it.

        Anthropic: in_progress, canceling, ended. OpenAI: validating, in_progress, finalizing,
        cancelling; completed, failed, expired and cancelled once it has ended.

        Raises:
            TransientError: it cannot be looked up now, or it does not exist.
        """
        return self.look(batch_id).status

    def get_batch_results(self, batch_id: str) -> list[JobResult]:
        """Return the results of a batch that has ended, one per line, in the provider's order.

        This does not wait, and stores nothing: each call downloads the results. `parsed_response`
        is None unless this object created the batch, since only then the response models are known;
        jobs without a line have a result then, too. `cost_usd` is at batch rates. It is nan without
        a known price, and if no line says what the job used.

        Raises:
            TransientError: the batch has not ended, or its results are not available yet.
            TerminalError: it was refused as a whole, or its results are deleted.
            SpecError: the user's price file is invalid.
        """
        return standalone.results(self, batch_id, self._sent.get(batch_id))

    def cancel_batch(self, batch_id: str) -> bool:
        """Ask the provider to cancel a batch; return False if it had ended already.

        It takes a while to end. What ran by then is billed, and is in its results.

        Raises:
            TransientError: the provider cannot be asked now, or there is no such batch.
        """
        # to cancel a batch that was cancelled before is an error with some providers only
        if self.look(batch_id).ended:
            return False
        try:
            self.cancel(batch_id)
        except TerminalError:
            if not self.look(batch_id).ended:
                raise
            return False
        return True

    def estimate_cost(self, jobs: Iterable[Job]) -> float:
        """Return the likely cost of jobs in a batch, in US dollars; nan without a known price.

        It is the estimate of a plan before any batch has finished, so a guess (docs/money.md).
        Nothing is sent.

        Raises:
            SpecError: a job is invalid, or is another provider's.
        """
        return standalone.expected_cost(self, list(jobs))

    def get_polling_interval(self) -> float:
        """Return the first wait between looks at a batch, in seconds.

        Runs extend it, up to `poll_seconds[1]`.
        """
        return self.poll_seconds[0]
