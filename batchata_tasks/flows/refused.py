"""How a flow run ends that was refused, or that failed: in a sentence, as on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.logging import get_logger
from prefect.states import Failed

from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import BatchataError, InputError

if TYPE_CHECKING:
    from logging import LogRecord

    from prefect.client.schemas.objects import State


class FailedRunError(BatchataError):
    """A run failed that landed what it could: too many of its rows, or something stopped it.

    `receipt` has what it did and cost, as the flow `enrich` returns it.
    """

    def __init__(self, message: str, receipt: dict[str, Any]) -> None:
        super().__init__(message, receipt)  # of both it is made anew in another process
        self.receipt = receipt


def failed(message: str, receipt: dict[str, Any]) -> State[Any]:
    """Return the state of a run that failed; whoever called the flow gets a FailedRunError."""
    return _told(message, FailedRunError(message, receipt))


def refused(error: InputError, spec: object = None) -> State[Any]:
    """Return the state of a run of a spec (or its path) that was refused before it sent anything.

    Raised by the flow, the error would be a traceback in the worker's log. Whoever called the flow
    gets it raised as it is: so does Prefect's engine in a worker's process, which logs it then.
    """
    return _told(naming(str(error), path_of(spec)), error)


def _told(message: str, error: BatchataError) -> State[Any]:
    get_logger("prefect.flow_runs").addFilter(_tells_more)  # once, however often it is added
    return Failed(message=message, data=error)


def _tells_more(record: LogRecord) -> bool:
    """Whether a record is more than the traceback of what the state tells in a sentence."""
    return record.exc_info is None or not isinstance(
        record.exc_info[1], InputError | FailedRunError
    )


def path_of(spec: object) -> str | None:
    """Return the path of a spec, by which commands name it; None of a spec that came by value."""
    return spec if isinstance(spec, str) else None
