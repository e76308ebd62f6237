"""Columns that were renamed, in `_batchata/renames.json`.

The names in a dataset's files change. Its fingerprints do not: they go on calling a column what it
was called when its rows were sent first, so that a new name is no reason to send them again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchata_tasks.dataset.folder import DatasetFolder


@dataclass(frozen=True)
class Rename:
    """One column that was renamed.

    `prompts` leads from the prompt under the new name to the one that rows were sent with: both as
    parts of fingerprints.
    """

    old: str
    new: str
    prompts: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Renames:
    """All columns of a dataset that were renamed, in order.

    `begun`: so many of the last ones are under way, and files may still have their old names.
    """

    all: tuple[Rename, ...] = ()
    begun: int = 0

    def __len__(self) -> int:
        return len(self.all)

    def next_step(self) -> dict[str, str]:
        """Return the first of those under way which a file can take at once: old names, new ones.

        No name is in it twice, so that a file which has one of the old names is not done yet.
        """
        step, seen = dict[str, str](), set[str]()
        for rename in self.all[len(self.all) - self.begun :]:
            if not seen.isdisjoint((rename.old, rename.new)):
                break
            step[rename.old] = rename.new
            seen |= {rename.old, rename.new}
        return step

    def originals(self, names: Iterable[str]) -> dict[str, str]:
        """Return, by the names of today, what fingerprints call columns that are used together.

        A name that a column gave up is free. If several columns had it, one after the other, and
        are used together, fingerprints know the first one by it; later ones are called otherwise.
        """
        found, taken = dict[str, str](), Counter[str]()
        origins = {name: self._original(name) for name in names}
        for name, (original, _) in sorted(origins.items(), key=lambda one: one[1][1]):
            found[name] = original + "\0" * taken[original]
            taken[original] += 1
        return found

    def _original(self, name: str) -> tuple[str, int]:
        """Return the first name of a column, and the place of the rename that took it away."""
        taken_away = len(self.all)
        for place, rename in reversed(list(enumerate(self.all))):
            if name == rename.old:
                break
            if name == rename.new:
                name, taken_away = rename.old, place
        return name, taken_away

    def original_prompt(self, part: str) -> str:
        """Return the part that fingerprints have of a prompt, given that of its text of today."""
        for rename in reversed(self.all):
            if part in rename.prompts:
                return rename.prompts[part]
        return part

    def today(self, names: Iterable[str], known: int) -> list[str]:
        """Return today's names of columns that had these ones after the first `known` renames."""
        found = list(names)
        for rename in self.all[known:]:
            found = [rename.new if name == rename.old else name for name in found]
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """Return them as plain JSON values."""
        return [asdict(rename) for rename in self.all]

    @classmethod
    def from_json(cls, stored: Iterable[dict[str, Any]]) -> Renames:
        """Return them from what `to_json` gave."""
        return cls(tuple(Rename(**one) for one in stored))

    @classmethod
    def read(cls, folder: DatasetFolder) -> Renames:
        """Return those of a dataset.

        Raises:
            StorageError: their file is damaged.
        """
        if (record := read_json(folder.renames)) is None:
            return cls()
        try:
            known = cls.from_json(record["renames"])
            return cls(known.all, int(record["begun"]))
        except (KeyError, TypeError) as error:
            message = f"{folder.renames} is damaged ({error!r}); restore it from a copy."
            raise StorageError(message) from error

    def write(self, folder: DatasetFolder) -> None:
        """Write the file."""
        record = {"format": 1, "begun": self.begun, "renames": self.to_json()}
        write_json(folder.renames, record)


def in_order(names: Mapping[str, str], taken: Iterable[str]) -> list[Rename]:
    """Return columns that are renamed together, one after the other, each to a name that is free.

    `names` has the new names by the old ones, `taken` all names of the dataset. If columns exchange
    their names, one is put aside under a name of its own meanwhile.
    """
    left, found = dict(names), list[Rename]()
    known = {*names, *names.values(), *taken}
    while left:
        old = next((old for old, new in left.items() if new not in left), None)
        if old is None:
            old = next(iter(left))
            aside = f"{old}_"
            while aside in known:
                aside += "_"
            left[aside] = left.pop(old)
            found.append(Rename(old, aside))
        else:
            found.append(Rename(old, left.pop(old)))
    return found
