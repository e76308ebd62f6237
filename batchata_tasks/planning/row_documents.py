"""The documents of a spec's rows: found by `file`, checked, and read one row at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchata_tasks.common.canonical import canonical
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import from_home
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown
from batchata_tasks.sources import documents
from batchata_tasks.types.document import Document

if TYPE_CHECKING:
    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.providers import Adapter
    from batchata_tasks.spec.enrichment import EnrichmentSpec

_DIGESTS_KEPT = 100_000


class Identity(NamedTuple):
    """What a row's documents add to its input; it is not `known` if one of them cannot be read."""

    text: bytes
    known: bool


_NO_DOCUMENT = Identity(b"", known=True)


class RowDocuments:
    """Finds and reads the documents of rows; of no document more than its digest stays in memory.

    `columns` are those that the templates of their paths use.
    """

    def __init__(self, spec: EnrichmentSpec, provider: Adapter, columns: list[str]) -> None:
        files = spec.file or []
        labels = ["file"] if len(files) == 1 else [f"file.{i}" for i in range(len(files))]
        self._templates = [RowTemplate(*one, columns) for one in zip(labels, files, strict=True)]
        used = {name for template in self._templates for name in template.columns}
        self.columns = [name for name in columns if name in used]
        self._provider, self._cited = provider, spec.enable_citations
        self._structured = spec.response_model is not None or spec.response_schema is not None
        self._root = from_home(spec.document_root or ".", "document_root")
        self._digests = dict[Path, str]()  # of the rows that are planned just now

    def identities(self, rows: RowBlock) -> list[Identity]:
        """Return what the documents of rows add to their inputs: the digests of their content."""
        self._digests.clear()
        return [self._identity(self._named(rows, place)) for place in range(len(rows))]

    def _identity(self, names: list[str]) -> Identity:
        if not names:
            return _NO_DOCUMENT
        try:
            digests = [self._digest_of(placed(name, self._root)) for name in names]
        except SpecError:
            return Identity(canonical(["document", "unread", *names]), known=False)
        return Identity(canonical(["document", *digests]), known=True)

    def _digest_of(self, path: Path) -> str:
        if path not in self._digests:
            if len(self._digests) >= _DIGESTS_KEPT:
                self._digests.clear()
            self._digests[path] = documents.digest_of(path)
        return self._digests[path]

    def read(self, rows: RowBlock, place: int) -> list[Document]:
        """Return the documents of a row, whose identity was asked before.

        Raises:
            SpecError: one of them cannot be sent.
        """
        found = list[tuple[Document, Path]]()
        for name in self._named(rows, place):
            path = placed(name, self._root)
            document = documents.read(path, cited=self._cited, name=name)
            if self._digests.get(path, document.sha256) != document.sha256:
                message = f"file: {name} has changed since the run began; run again."
                raise SpecError(message)
            found.append((document, Path(name)))
        if found:
            self._provider.check_documents(found, structured=self._structured)
        return [document for document, _ in found]

    def _named(self, rows: RowBlock, place: int) -> list[str]:
        """Return the paths of a row's documents; of a template that renders to nothing none."""
        values = {name: rows.values(name)[place] for name in self.columns}
        seen, where = variables(shown(values, self.columns)), rows.namer(place)
        texts = (template.render(seen, where).strip("\r\n") for template in self._templates)
        return [text for text in texts if text and not text.isspace()]


def placed(name: str, root: Path) -> Path:
    """Return where the document of this name lies, with links resolved; it may not be there.

    Raises:
        SpecError: it is not in the folder `root`, or no path at all.
    """
    if "://" in name:
        message = f"file: {name} is a URL; documents are files: name a path."
        raise SpecError(message)
    path, within = from_home(name, "file"), Path(os.path.realpath(root))
    resolved = Path(os.path.realpath(path))
    if not resolved.is_relative_to(within):
        message = (
            f"file: {name} leads out of the folder of documents, {within}; name a file in it, or "
            "another `document_root`."
        )
        raise SpecError(message)
    return resolved
