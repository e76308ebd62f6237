"""Request files at OpenAI's Files API, and at servers that imitate it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from batchata_tasks.providers.wire import checked_id, pages, seconds_or_none, text_or_none

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.common.errors import TerminalError

# the API takes up to 10,000, servers that imitate it 100
_PAGE = 100
# no row waits for files to be listed and deleted, so that a silent server is not waited for either
TIDY: Any = {"max_retries": 0, "timeout": httpx2.Timeout(10.0)}
# how servers refuse a create because they have not looked at the uploaded file yet
_FILE_STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_NOT_READY = re.compile(
    r"\bfile\b.*(\bpending|\bprocessing|\buploading|\bin state\b|not (yet |been )*(processed|ready|"
    r"available|found|exist)|still being|no such|cannot find|does(n't| not) exist)"
    r"|(no such|cannot find|not find|unknown) (input )?file"
    r"|\bfile\b.*expected\W+processed|file_?not_?(yet_?)?(ready|processed|uploaded|found|exist)",
    re.IGNORECASE | re.DOTALL,
)
_UNLISTED = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


def says_not_ready(error: TerminalError) -> bool:
    """Whether the refusal of a create says that its file is not there (yet).

    The file was accepted a moment ago, so that this passes.
    """
    words = f"{error} {getattr(error.__cause__, 'code', None)}"
    return error.status in _FILE_STATUSES and _NOT_READY.search(words) is not None


def uploads(client: openai.OpenAI, since: float) -> Iterator[tuple[str, str]]:
    """Yield (file id, file name) of request files uploaded at or after `since` (seconds).

    A server that lists no files, or lists them in another shape, has none to show.
    """

    def fetch(after: str | None) -> httpx2.Response:
        cursor = {} if after is None else {"after": after}
        query = {"purpose": "batch", "order": "desc", "limit": _PAGE, **cursor}
        options: Any = {**TIDY, "params": query}
        return client.get("/files", cast_to=httpx2.Response, options=options)

    try:
        for page in pages(fetch):
            for file in page:
                made, name = seconds_or_none(file.get("created_at")), file.get("filename")
                if made is not None and made < since - 1:  # these are whole seconds
                    return
                if text_or_none(name) is not None:
                    yield checked_id(file), str(name)
    except openai.APIStatusError as error:
        if error.status_code not in _UNLISTED:
            raise
    except (ValueError, TypeError):
        return
