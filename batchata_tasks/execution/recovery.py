"""What is brought back from the providers, since the dataset's files are gone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Recovery:
    """The chunks that are recovered, in the order in which they were sent, and the rows that each has answers for."""

    claims: dict[str, set[str]]

    @property
    def row_ids(self) -> set[str]:
        """The rows for which nothing needs to be sent."""
        return set(chain.from_iterable(self.claims.values()))
