"""A dataset that is reported on: by the spec that fills it, or by its folder, whatever does."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from batchata_tasks.common.errors import SpecError
from batchata_tasks.dataset.declared import SOURCE_ROLES, Role, require_declared
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.planning.stored_specs import spec_of_jobs

if TYPE_CHECKING:
    from batchata_tasks.dataset.declared import DeclaredSchema


class ShownDataset(Protocol):
    """What a report has to know of a dataset. Each spec says it, and so does a dataset's folder.

    `carried` are the columns that come from the source, the key first.
    """

    @property
    def name(self) -> str:
        """The name of what fills it, for people."""
        ...

    @property
    def output(self) -> str:
        """Its folder."""
        ...

    @property
    def key(self) -> list[str]:
        """The columns of its key."""
        ...

    @property
    def carried(self) -> list[str]:
        """The columns that come from the source."""
        ...


class FolderDataset:
    """A dataset of which only the folder is known."""

    def __init__(self, folder: str) -> None:
        """Look whether there is a dataset in a folder.

        Raises:
            SpecError: there is none.
        """
        self.folder = DatasetFolder(folder)
        owner = self.folder.owner()
        if owner is None:
            message = (
                f"output: there is no dataset in {self.folder.root}; name the folder of one, or "
                "the file of a spec."
            )
            raise SpecError(message)
        self.name = str(owner.get("spec") or self.folder.root.name)
        self.output = str(self.folder.root)

    @cached_property
    def _declared(self) -> DeclaredSchema:
        return require_declared(self.folder)

    @property
    def key(self) -> list[str]:
        """See ShownDataset.

        Raises:
            SpecError: nothing in the folder says so.
        """
        return self._declared.of((Role.KEY,)).names

    @property
    def carried(self) -> list[str]:
        """See ShownDataset; raises as `key`."""
        others = self._declared.of(SOURCE_ROLES).names
        return list(dict.fromkeys([*self.key, *others]))


def dataset_in(folder: str) -> ShownDataset:
    """Return the dataset in a folder; that of a Batch as its jobs tell of it, in their order.

    Raises:
        SpecError: there is no dataset, or the jobs are damaged.
    """
    found = FolderDataset(folder)
    return spec_of_jobs(found.folder) or found
