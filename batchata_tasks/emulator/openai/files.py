"""The OpenAI Files API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.core.clock import DAY
from batchata_tasks.emulator.core.pages import openai_page, page_of
from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.core.routes import route
from batchata_tasks.emulator.core.shapes import Json
from batchata_tasks.emulator.core.spool import extract
from batchata_tasks.emulator.core.state import StoredFile, new_id
from batchata_tasks.emulator.core.wire import Download
from batchata_tasks.emulator.openai.create import expiry_seconds
from batchata_tasks.emulator.openai.input import Part, multipart

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from batchata_tasks.emulator.answers.schemas import JSON
    from batchata_tasks.emulator.core.calls import Call
    from batchata_tasks.emulator.core.routes import Style
    from batchata_tasks.emulator.core.spool import Sealed
    from batchata_tasks.emulator.core.state import Shared

EXPIRY = 30 * DAY
_PURPOSES = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})
_EXPIRES = re.compile(r"expires_after\[(anchor|seconds)\]")
_MULTIPART_OVERHEAD = 100_000


class Files:
    """The files of all accounts, and their routes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._by_id: dict[str, StoredFile] = {}

    def routes(self, prefix: str, style: Style) -> list[Route]:
        """Return all routes."""
        one = f"{prefix}/files/{{id}}"
        return [
            route(f"{prefix}/files", "POST", "upload", style, self.upload),
            route(f"{prefix}/files", "GET", "list_files", style, self.list_files),
            route(one, "GET", "file", style, self.get),
            route(one, "DELETE", "delete_file", style, self.delete),
            route(f"{one}/content", "GET", "content", style, self.content),
        ]

    def clear(self) -> None:
        """Forget all files."""
        self._by_id.clear()

    def forget(self) -> None:
        """Show none of the files to anybody any more."""
        for file in self._by_id.values():
            file.deleted = True

    def find(self, file_id: str, account: str) -> StoredFile | None:
        """Return a file of the account, if it is still available."""
        file = self._by_id.get(file_id)
        if file is None or file.account != account:
            return None
        return file if file.available(self._shared.clock.now()) else None

    def stored(self) -> list[StoredFile]:
        """Return the available files of all accounts, oldest first."""
        now = self._shared.clock.now()
        return [file for file in self._by_id.values() if file.available(now)]

    def remove(self, file_id: str) -> None:
        """Delete a file of any account."""
        self._by_id[file_id].deleted = True

    def add(self, file: StoredFile) -> StoredFile:
        """Store a file."""
        self._by_id[file.id] = file
        return file

    async def upload(self, call: Call) -> Response:
        """Store an uploaded file, streamed to disk."""
        limits = self._shared.limits
        body = await call.spool(limits.openai_file_bytes + _MULTIPART_OVERHEAD)
        if body is None:
            raise ApiError(413, "File is too large.")
        parts = multipart(body, call.request.headers.get("content-type", ""))
        file = parts.get("file")
        if file is None or file.filename is None:
            raise ApiError(400, "Missing required parameter: 'file'.", param="file")
        purpose = _text(body, parts.get("purpose")) or ""
        if purpose not in _PURPOSES:
            raise ApiError(
                400, f"Invalid value: '{purpose}'.", param="purpose", code="invalid_value"
            )
        stored = StoredFile(
            id=new_id("file-"),
            account=call.account,
            filename=file.filename,
            purpose=purpose,
            created_at=call.now,
            expires_at=_expiry(body, parts, call.now, default=purpose == "batch"),
            content=extract(body, file.start, file.end),
        )
        if purpose == "batch":
            _check_batch_file(stored, limits.openai_batch_bytes)
        return Json(wire(self.add(stored)))

    def _get(self, call: Call) -> StoredFile:
        file_id = call.request.path_params["id"]
        file = self.find(file_id, call.account)
        if file is None:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return file

    async def get(self, call: Call) -> Response:
        """Show one file."""
        return Json(wire(self._get(call)))

    async def delete(self, call: Call) -> Response:
        """Delete one file."""
        file = self._get(call)
        file.deleted = True
        return Json({"object": "file", "id": file.id, "deleted": True})

    async def content(self, call: Call) -> Response:
        """Stream a file's content."""
        file = self._get(call)
        headers = {
            "content-type": "application/octet-stream",
            "content-disposition": f'attachment; filename="{file.filename}"',
        }
        return Download(file.content, headers, sized=True)

    async def list_files(self, call: Call) -> Response:
        """List files, newest first by default."""
        query = call.request.query_params
        files = [
            file
            for file_id in self._by_id
            if (file := self.find(file_id, call.account)) is not None
            and query.get("purpose") in (None, file.purpose)
        ]
        if query.get("order", "desc") == "desc":
            files.reverse()
        most = self._shared.limits.openai_listed_files
        page, has_more = page_of(openai_page, files, query, call.shapes, default=most, most=most)
        return Json(
            {
                "object": "list",
                "data": [wire(file) for file in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": has_more,
            }
        )


def wire(file: StoredFile) -> JSON:
    """Return the File object."""
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": len(file.content),
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "status": "processed",
        "status_details": None,
    }


def _text(body: Sealed, part: Part | None) -> str | None:
    return None if part is None else body[part.start : part.end].decode(errors="replace")


def _expiry(body: Sealed, parts: dict[str, Part], now: float, *, default: bool) -> float | None:
    given = {
        field[1]: _text(body, part)
        for name, part in parts.items()
        if (field := _EXPIRES.match(name)) is not None
    }
    if not given:
        return now + EXPIRY if default else None
    return now + expiry_seconds(given, "expires_after")


def _check_batch_file(file: StoredFile, most: int) -> None:
    """Refuse what OpenAI refuses at upload; other errors show when a batch is validated."""
    if not file.filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
    if len(file.content) > most:
        raise ApiError(400, "File is too large.")
    feed = file.content.find(b"\n")
    first = file.content[: feed if feed >= 0 else len(file.content)]
    try:
        orjson.loads(first.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        message = "Invalid file format. Input file must be in valid jsonl format."
        raise ApiError(400, message) from error
