"""The documents of a spec's rows: found by `file`, checked, and read one row at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchata_tasks.common.canonical import canonical
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import from_home
from batchata_tasks.common.text import is_unicode
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown
from batchata_tasks.sources import document_urls, documents
from batchata_tasks.sources.document_urls import UrlFolder
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
        self._root = _root_of(spec.document_root or ".")
        self._digests = dict[str, str]()  # of the rows that are planned just now, by name

    def identities(self, rows: RowBlock) -> list[Identity]:
        """Return what the documents of rows add to their inputs: the digests of their content."""
        self._digests.clear()
        return [self._identity(self._named(rows, place)) for place in range(len(rows))]

    def _identity(self, names: list[str]) -> Identity:
        if not names:
            return _NO_DOCUMENT
        try:
            digests = [self._digest_of(name) for name in names]
        except SpecError:
            # as ASCII, since a path that no file can have is refused later, with its row
            return Identity(canonical(["document", "unread", *map(ascii, names)]), known=False)
        return Identity(canonical(["document", *digests]), known=True)

    def _digest_of(self, name: str) -> str:
        if name not in self._digests:
            if len(self._digests) >= _DIGESTS_KEPT:
                self._digests.clear()
            place = placed(name, self._root)
            is_path = isinstance(place, Path)
            digest = documents.digest_of(place) if is_path else document_urls.digest_of(place)
            self._digests[name] = digest
        return self._digests[name]

    def _document(self, name: str) -> Document:
        place = placed(name, self._root)
        if isinstance(place, Path):
            return documents.read(place, cited=self._cited, name=name)
        content = document_urls.fetched(place)
        return documents.of_content(content, document_urls.shown(place), cited=self._cited)

    def read(self, rows: RowBlock, place: int) -> list[Document]:
        """Return the documents of a row, whose identity was asked before.

        Raises:
            SpecError: one of them cannot be sent.
        """
        found = list[tuple[Document, str]]()
        for name in self._named(rows, place):
            document, shown_name = self._document(name), _shown(name)
            if self._digests.get(name, document.sha256) != document.sha256:
                message = f"file: {shown_name} has changed since the run began; run again."
                raise SpecError(message)
            found.append((document, shown_name))
        if found:
            self._provider.check_documents(found, structured=self._structured)
        return [document for document, _ in found]

    def _named(self, rows: RowBlock, place: int) -> list[str]:
        """Return the paths of a row's documents; of a template that renders to nothing none."""
        values = {name: rows.values(name)[place] for name in self.columns}
        seen, where = variables(shown(values, self.columns)), rows.namer(place)
        texts = (template.render(seen, where).strip("\r\n") for template in self._templates)
        return [text for text in texts if text and not text.isspace()]


def _root_of(text: str) -> Path | UrlFolder:
    """Return the folder of documents, or the URL below which they lie."""
    is_url = document_urls.is_url(text)
    return UrlFolder(text) if is_url else from_home(text, "document_root")


def _shown(name: str) -> str:
    return document_urls.shown(name) if document_urls.is_url(name) else name


def placed(name: str, root: Path | UrlFolder) -> Path | str:
    """Return the path of a document, with links resolved, or its URL; it may not be there.

    Raises:
        SpecError: it does not lie in `root`.
    """
    if isinstance(root, UrlFolder):
        root.require(name)
        return name
    if document_urls.is_url(name):
        message = (
            f"file: {_shown(name)} is a URL, and documents have to lie in a folder; fetch it "
            "first, or let `document_root` be the URL below which they lie."
        )
        raise SpecError(message)
    if not is_unicode(name):
        message = f"file: {name!a} is no path of Unicode; rename the file."
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
