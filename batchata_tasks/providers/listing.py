"""Batches, one or an account's list: how far back lists are read, and what they prove.

That a batch is absent from a list proves something only if the list is known to show the account's
batches. Those of the official APIs are; a gateway may answer with an empty list, or with somebody
else's batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchata_tasks.providers.wire import pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import httpx2

    from batchata_tasks.providers.base import Adapter, BatchLook

# header of a server whose lists show all batches: `complete`; and `exact` if they tell of each what
# the official API tells
_SAYS = "x-batchata-lists"


def is_official(base_url: str, domain: str) -> bool:
    """Whether an address is one of the provider's own: its domain, or a region of it."""
    host = (urlsplit(base_url).hostname or "").lower()
    return host == domain or host.endswith(f".{domain}")


def says_lists_are_complete(headers: Mapping[str, str]) -> bool:
    """Whether a server says that its lists show all batches of the account, as the emulator does.

    A gateway that knows this of itself may send the header, too.
    """
    return headers.get(_SAYS, "") in ("complete", "exact")


def watched_pages(
    adapter: Adapter, fetch: Callable[[str | None], httpx2.Response], *, official: bool
) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of a list of batches; note at the adapter what the list proves."""

    def noted(after: str | None) -> httpx2.Response:
        response = fetch(after)
        adapter.lists_all = official or says_lists_are_complete(response.headers)
        adapter.is_exact = official or response.headers.get(_SAYS) == "exact"
        if response.headers.get("age", "0") != "0":  # of a cache: older than what was sent since
            adapter.lists_end = False
        return response

    def unfinished() -> None:
        adapter.lists_end = False

    adapter.lists_end = True
    yield from pages(noted, unfinished)


def with_status(look: BatchLook) -> BatchLook:
    """Return the state of a batch that was asked for, as it is told.

    Raises:
        ValueError: nothing is told.
    """
    if not look.status and not look.ended:
        message = f"it states no status of batch {look.batch_id!r:.100}"
        raise ValueError(message)
    return look


def recent_of(pages: Iterable[list[BatchLook]], since: float) -> Iterator[BatchLook]:
    """Yield the batches that were created at or after `since` (seconds), or nobody knows when."""
    looks = around_of(pages, since)
    return (look for look in looks if look.created_at is None or look.created_at >= since)


def around_of(pages: Iterable[list[BatchLook]], since: float) -> Iterator[BatchLook]:
    """Yield the batches on all pages that may show one created at or after `since` (seconds).

    Lists come newest first, so that the first page which ends before `since` is the last; but a
    page in another order says nothing about the next one. Older batches on these pages come, too:
    a server's clock may be wrong.
    """
    for page in pages:
        dates = [look.created_at for look in page if look.created_at is not None]
        yield from page
        newest_first = len(dates) == len(page) and dates == sorted(dates, reverse=True)
        if newest_first and dates[-1] < since:
            return
