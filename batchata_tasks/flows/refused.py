"""How a flow run ends whose spec, source or settings are wrong: in a sentence, as on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.states import Failed

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from batchata_tasks.common.errors import InputError


def refused(error: InputError) -> State[Any]:
    """Return the state of a run that was refused before it sent anything.

    Raised, the error would be a traceback in the worker's log. Whoever called the flow gets it
    raised as it is.
    """
    return Failed(message=str(error), data=error)
