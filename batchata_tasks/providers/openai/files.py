"""Request files at OpenAI's Files API, and at servers that imitate it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from batchata_tasks.providers.wire import checked_id, pages, seconds_or_none, text_or_none

if TYPE_CHECKING:
    from collections.abc import Iterator

# the API takes up to 10,000, servers that imitate it 100
_PAGE = 100
_UNLISTED = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


def uploads(client: openai.OpenAI, since: float) -> Iterator[tuple[str, str]]:
    """Yield (file id, file name) of request files uploaded at or after `since` (seconds).

    A server that lists no files, or lists them in another shape, has none to show.
    """

    def fetch(after: str | None) -> httpx2.Response:
        cursor = {} if after is None else {"after": after}
        options: Any = {"params": {"purpose": "batch", "order": "desc", "limit": _PAGE, **cursor}}
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
