"""Which passages of its documents an answer's fields rest on.

The documents are those that were sent: their files may be gone, or others, by now. They are read
out of the chunk's request file, where each is as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import closing, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import orjson

from batchata_tasks.citations.quotes import Text, cite_fields
from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.json import as_dict
from batchata_tasks.dataset.packs import open_kept
from batchata_tasks.sources.document_text import pages_of_text
from batchata_tasks.spec.jobs import JobsSpec

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.execution.run_context import BatchContext
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document

_TEXTS_KEPT = 16  # of documents, which neighbouring rows often share


class QuotedFields:
    """Finds the citations of a chunk's answers; its requests are read when the first one asks."""

    def __init__(self, context: BatchContext, chunk: Chunk) -> None:
        self._provider = context.provider
        self._path = context.folder.requests / f"{chunk.id}.jsonl"
        # a job's document comes first, before any parts of its own; those of a row before its text
        self._one_document = isinstance(context.run.spec, JobsSpec)
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
            pages = pages_of_text(document)
            paged = document.kind == "pdf"
            self._texts[name] = None if pages is None else Text(document.title, pages, paged)
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        return self._texts[name]

    def _documents(self, custom_id: str) -> list[Document]:
        """Return the documents of a request; none if its file is gone, or has been cleaned."""
        try:
            with self._opened() as stream:
                if self._places is None:
                    self._places = self._index(stream)
                if (place := self._places.get(custom_id.encode())) is None:
                    return []
                stream.seek(place[0])
                line = stream.read(place[1])
        except (FileNotFoundError, StorageError):
            return []
        parts = self._parts(line)
        documents = [self._provider.document_of(as_dict(part)) for part in parts]
        return [one for one in documents if one is not None]

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

    def _parts(self, line: bytes) -> list[Any]:
        """Return the parts of a request that are its documents."""
        record = as_dict(orjson.loads(line.rstrip().rstrip(b",")))
        bodies = [body for value in record.values() if (body := as_dict(value))]
        turns: list[Any] = bodies[0].get(self._provider.turns_param, []) if bodies else []
        # a further attempt adds turns, which are plain texts
        contents = [as_dict(turn).get("content") for turn in turns]
        split = [cast("list[Any]", one) for one in contents if isinstance(one, list)]
        parts = split[-1] if split else []
        return parts[:1] if self._one_document else parts[:-1]

    def _index(self, stream: BinaryIO) -> dict[bytes, tuple[int, int]]:
        """Return where the line of each request begins, and how long it is, by custom_id."""
        framing, places, start = self._provider.framing, dict[bytes, tuple[int, int]](), 0
        for line in stream:
            if line.startswith(framing.before_id):
                rest = line[len(framing.before_id) : len(framing.before_id) + 200]
                places[rest[: rest.index(framing.before_body[:1])]] = start, len(line)
            start += len(line)
        return places
