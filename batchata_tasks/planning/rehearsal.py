"""Whether a run is a rehearsal: an emulator answers, and what it answers counts for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.providers import address_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.providers import Adapter


def is_rehearsal(adapters: Iterable[Adapter]) -> bool:
    """Whether emulators answer a run with these adapters.

    Raises:
        SpecError: an emulator answers for one of them, and a real endpoint for another.
    """
    emulated, others = list["Adapter"](), list["Adapter"]()
    for adapter in adapters:
        (emulated if adapter.is_emulated() else others).append(adapter)
    if emulated and others:
        message = (
            f"an emulator answers at {address_now(emulated[0])}, and none that is known at "
            f"{address_now(others[0])}: what one run sends is rehearsed, or real; set both "
            "addresses alike, or use models of one provider."
        )
        raise SpecError(message)
    return bool(emulated)


def replaces_answers(output: str) -> SpecError:
    """Return the error for a rehearsal on a dataset that has answers of a real endpoint."""
    return SpecError(
        f"output: the dataset in {DatasetFolder(output).root} has answers of a real endpoint, and "
        "an emulator answers now, whose made-up answers never replace these; `batchata rehearse "
        "SPEC` rehearses with an output of its own, or name another one (`--set output=...`)."
    )
