"""Which passages of its documents an answer's fields rest on.

The documents are those that were sent: their files may be gone, or others, by now. They are read
out of the chunk's request file, where each is as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import closing, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from batchata_tasks.citations.quotes import Text, cite_fields
from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.packs import open_kept
from batchata_tasks.providers.sent_documents import body_of, documents_in
from batchata_tasks.sources.document_text import pages_of_text
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document

_LONGEST_ID = 200  # bytes
_TEXTS_KEPT = 16  # of documents, which neighbouring rows often share


def text_of(document: Document) -> Text | None:
    """Return the text of a document; None if none can be read."""
    pages = pages_of_text(document)
    return None if pages is None else Text(document.title, pages, document.kind == "pdf")


class QuotedFields:
    """Finds the citations of a chunk's answers; its requests are read when the first one asks."""

    def __init__(self, context: BatchContext, chunk: Chunk) -> None:
        self._provider = context.provider
        self._path = context.folder.requests / f"{chunk.id}.jsonl"
        self._is_job = isinstance(context.run.spec, JobsSpec)
        self._places: dict[bytes, tuple[int, int]] | None = None
        self._unpacked: BytesIO | None = None
        self._texts = OrderedDict[str, Text | None]()

    def __call__(self, custom_id: str, response: ResponseSchema, text: str) -> list[dict[str, Any]]:
        """Return the citations of an answer, as rows of the column `_citations`."""
        fields, _ = response.read(text)
        if fields is None:
            return []
        texts = [self._text_of(one) for one in self._documents(custom_id)]
        texts = [one for one in texts if one is not None]
        return [dict(one) for one in cite_fields(fields, response.quotes(text), texts)]

    def _text_of(self, document: Document) -> Text | None:
        name = document.sha256
        if name not in self._texts:
            self._texts[name] = text_of(document)
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        return self._texts[name]

    def _documents(self, custom_id: str) -> list[Document]:
        """Return the documents of a request; none if its file is gone, or damaged."""
        try:
            with self._opened() as stream:
                if self._places is None:
                    self._places = self._index(stream)
                if (place := self._places.get(custom_id.encode())) is None:
                    return []
                stream.seek(place[0])
                body = body_of(stream.read(place[1]))
            return documents_in(body, type(self._provider), first_alone=self._is_job)
        except (OSError, ValueError, StorageError):
            return []

    @contextmanager
    def _opened(self) -> Generator[BinaryIO, None, None]:
        """Yield the request file; one that was unpacked stays in memory."""
        stream = self._unpacked or open_kept(self._path)
        if isinstance(stream, BytesIO):
            self._unpacked = stream
            yield stream
            return
        with closing(stream):
            yield stream

    def _index(self, stream: BinaryIO) -> dict[bytes, tuple[int, int]]:
        """Return where the line of each request begins, and how long it is, by custom_id."""
        framing, places, start = self._provider.framing, dict[bytes, tuple[int, int]](), 0
        for line in stream:
            if line.startswith(framing.before_id):
                rest = line[len(framing.before_id) : len(framing.before_id) + _LONGEST_ID]
                places[rest.partition(framing.before_body[:1])[0]] = start, len(line)
            start += len(line)
        return places
