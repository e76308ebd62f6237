"""How a flow run ends whose spec, source or settings are wrong: in a sentence, as on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.states import Failed

from batchata_tasks.common.commands import naming

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from batchata_tasks.common.errors import InputError


def refused(error: InputError, spec: object = None) -> State[Any]:
    """Return the state of a run of a spec (or its path) that was refused before it sent anything.

    Raised, the error would be a traceback in the worker's log. Whoever called the flow gets it
    raised as it is.
    """
    return Failed(message=naming(str(error), path_of(spec)), data=error)


def path_of(spec: object) -> str | None:
    """Return the path of a spec, by which commands name it; None of a spec that came by value."""
    return spec if isinstance(spec, str) else None
