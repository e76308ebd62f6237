"""Requests that were sent, out of the request files that a dataset keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import storage_errors
from batchata_tasks.dataset.packs import open_kept
from batchata_tasks.providers import endpoint_types
from batchata_tasks.providers.sent_documents import body_of, documents_in
from batchata_tasks.reports.requests import RequestParts
from batchata_tasks.types.ids import TOKEN_CHARS, is_custom_id

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.providers import Adapter
    from batchata_tasks.types.document import Document


def kept_request(folder: DatasetFolder, row: dict[str, Any]) -> RequestParts | None:
    """Return the last request that was sent for a row of a dataset; None if it is not kept."""
    if (found := _kept(folder, row)) is None:
        return None
    body, adapter = found
    return RequestParts.of(orjson.dumps(body), adapter)


def kept_documents(folder: DatasetFolder, row: dict[str, Any], *, of_job: bool) -> list[Document]:
    """Return the documents of that request, as they were sent; none if it is not kept."""
    if (found := _kept(folder, row)) is None:
        return []
    return documents_in(*found, first_alone=of_job)


def _kept(
    folder: DatasetFolder, row: dict[str, Any]
) -> tuple[dict[str, Any], type[Adapter]] | None:
    """Return the body of that request, and the adapter that made it."""
    name = row["_custom_id"]
    if not isinstance(name, str) or not is_custom_id(name):
        return None
    path = folder.requests / f"{name[:TOKEN_CHARS]}.jsonl"
    try:
        types = endpoint_types(str(row["_provider"]))
    except SpecError:  # it was registered in another process
        return None
    for one in types:
        head = one.framing.before_id + name.encode() + one.framing.before_body
        if (line := _line(path, head)) is not None:
            return body_of(line), one
    return None


def _line(path: Path, head: bytes) -> bytes | None:
    """Return the line of a file that begins so."""
    with storage_errors(f"reading {path.name}"):
        try:
            with open_kept(path) as lines:
                return next((line for line in lines if line.startswith(head)), None)
        except FileNotFoundError:
            return None
