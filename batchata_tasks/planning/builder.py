"""The interface of what turns rows, or stored Jobs, into requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchata_tasks.common.errors import InputError
    from batchata_tasks.planning.route import Route, Shape
    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.types.document import Document


class BuiltRequest(NamedTuple):
    """A row's request: its body as JSON, its shape, and which of the builder's routes it takes.

    `problem` says why it cannot be sent; then it has no body. If that ends the plan, it is
    `refused`. `without_text` are the documents that it asks to cite, and of which some pages have
    no text.
    """

    body: bytes
    shape: Shape
    route: int = 0
    problem: str | None = None
    without_text: Sequence[Document] = ()
    refused: InputError | None = None


def without_text(documents: Iterable[Document | None]) -> list[Document]:
    """Return the documents of which some pages have no text that could be cited."""
    return [one for one in documents if one is not None and one.textless]


class Fingerprints(NamedTuple):
    """The fingerprints of some rows: the digest of each one's input, and its other parts.

    The input has 12 bytes. `others` has one text if all rows have the same. `unknown` are the
    places of rows of whose input a part cannot be read (a document): theirs counts as unchanged.
    """

    inputs: list[bytes]
    others: list[str]
    unknown: Sequence[int] = ()


class Builder(Protocol):
    """Turns rows into requests, and into the fingerprints that decide which are to be sent.

    `constant` is what rows share of their requests, and the text of the spec does not show.
    """

    routes: list[Route]
    constant: tuple[str, ...]

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns that must be read."""
        ...

    def columns_used(self) -> list[str]:
        """Return the columns that a request shows, so that their values belong to its identity."""
        ...

    def columns_of_files(self) -> list[str]:
        """Return the columns that name documents; the content of these belongs to the identity."""
        ...

    def kept(self, rows: RowBlock) -> Sequence[int]:
        """Return the places of the rows that count."""
        ...

    def nulls(self, rows: RowBlock) -> dict[int, str]:
        """Return the first column that the request uses and the row leaves null, by place."""
        ...

    def fingerprints(self, rows: RowBlock) -> Fingerprints:
        """Return the fingerprints of the rows' base requests."""
        ...

    def inputs_v1(self, rows: RowBlock) -> list[bytes]:
        """Return the inputs of the rows' fingerprints as version 1 had them."""
        ...

    def requests(self, rows: RowBlock, places: Sequence[int]) -> Iterator[BuiltRequest]:
        """Yield the requests of the rows at some places."""
        ...
