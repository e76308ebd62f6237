"""What runs leave in Prefect's user interface."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from httpx import HTTPError
from prefect import get_run_logger
from prefect.client.schemas.actions import ArtifactCreate

from batchata_tasks.common.commands import naming
from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.markdown import escaped

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient

_IN_A_CELL = 100  # characters: cells do not wrap, and what is longer is cut at the table's edge


def markdown(title: str, lines: list[tuple[str, str]], spec: str | None = None) -> str:
    """Return (what, value) pairs as a Markdown page; `spec` is the spec's path.

    Long values are paragraphs, the others one table below them. Foreign text does nothing.
    """
    told = [(what, naming(value, spec)) for what, value in lines]
    long = [
        f"**{escaped(what)}**: {escaped(value)}\n\n"
        for what, value in told
        if len(value) > _IN_A_CELL
    ]
    pairs = [(what, value) for what, value in told if len(value) <= _IN_A_CELL]
    return "".join([f"# {escaped(title)}\n\n", *long, table(("", ""), pairs) if pairs else ""])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, whose cells show texts as they are."""
    lines = [_line(heads), f"|{'---|' * len(heads)}\n"]
    return "".join([*lines, *map(_line, rows)])


def _line(cells: Iterable[str]) -> str:
    return "".join(["|", *(f" {escaped(cell)} |" if cell else " |" for cell in cells), "\n"])


def leave(
    client: SyncPrefectClient,
    flow_run_id: UUID,
    *,
    key: str,
    kind: str,
    data: str | float,
    description: str,
) -> UUID:
    """Leave an artifact on the page of a flow run, whether or not it still runs; return its id.

    Raises:
        HTTPError: the server does not take it.
    """
    made = ArtifactCreate(
        key=key, type=kind, data=data, description=description, flow_run_id=flow_run_id
    )
    return client.create_artifact(made).id


@contextmanager
def left_if_possible(what: str) -> Generator[None, None, None]:
    """Go on if the server does not take an artifact, and log so: the run's rows have landed."""
    try:
        yield
    except (HTTPError, StorageError) as error:
        reason = str(error) or type(error).__name__
        get_run_logger().warning("%s could not be left on Prefect's server: %s", what, reason)


def slug(text: str) -> str:
    """Return a text as an artifact's key: lowercase letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
